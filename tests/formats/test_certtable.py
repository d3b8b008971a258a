"""Certificate tables, which a host writes: read, or refused with the offset."""

from __future__ import annotations

import contextlib
import struct
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinboot.formats import certtable
from tinboot.formats.certtable import MAX_SIZE, Certificates, pack, parse
from tinboot.formats.errors import Malformed

VCEK = "63da758d-e664-4564-adc5-f4b93be8accd"
OTHER = "92f81bc3-5811-4d3d-97ff-d19f88dc67ea"
END = bytes(24)


def entry(guid: str, offset: int, length: int) -> bytes:
    return uuid.UUID(guid).bytes + struct.pack("<II", offset, length)


def test_a_table_by_hand() -> None:
    table = entry(VCEK, 72, 3) + entry(OTHER, 75, 2) + END + b"abcde" + bytes(100)
    assert parse(table) == Certificates(vcek=b"abc", others=((OTHER, b"de"),))


@pytest.mark.parametrize("table", [b"", END, bytes(4096)])
def test_no_certificates(table: bytes) -> None:
    assert parse(table) == Certificates()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (bytes(MAX_SIZE + 1), "16385 bytes, expected at most 16384"),
        (bytes(23), "offset 0x17: the certificate table ends before its terminator"),
        (entry(VCEK, 24, 1), "offset 0x18: the certificate table ends before its terminator"),
        (entry(VCEK, 47, 1) + END + b"a", "offset 0x0: .*63da758d.* claims 1 bytes at 0x2f of 49"),
        (entry(VCEK, 0, 48) + END + b"a", "claims 48 bytes at 0x0 of 49"),
        (entry(VCEK, 48, 2) + END + b"a", "claims 2 bytes at 0x30 of 49"),
        (entry(VCEK, 48, 0) + END + b"a", "claims 0 bytes at 0x30"),
        (entry(VCEK, 0xFFFFFFFF, 0xFFFFFFFF) + END + b"a", "claims 4294967295 bytes at 0xffffffff"),
        (entry(VCEK, 49, 0xFFFFFFFF) + END + b"a", "claims 4294967295 bytes"),
        (entry(VCEK, 72, 1) + entry(VCEK, 73, 1) + END + b"ab", "offset 0x18: .* is there twice"),
        (entry(OTHER, 72, 1) + entry(OTHER, 73, 1) + END + b"ab", "offset 0x18: .* is there twice"),
        (entry(VCEK, 72, 2) + entry(OTHER, 73, 1) + END + b"ab", "overlaps another one's data at 0x49"),
        (bytes(16) + struct.pack("<II", 1, 0) + END, "offset 0x10: the certificate table's terminator"),
        (bytes(16) + struct.pack("<II", 0, 1) + END, "offset 0x10: the certificate table's terminator"),
    ],
)
def test_what_is_no_table(table: bytes, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        parse(table)


some = st.none() | st.binary(min_size=1, max_size=64)


@settings(deadline=None, max_examples=60)
@given(some, some, some, some, st.dictionaries(st.uuids(), st.binary(min_size=1, max_size=8), max_size=4))
def test_what_is_packed_comes_back(
    vcek: bytes | None, vlek: bytes | None, ask: bytes | None, ark: bytes | None, rest: dict[uuid.UUID, bytes]
) -> None:
    others = tuple((str(guid), data) for guid, data in rest.items() if guid.int)
    made = Certificates(vcek, vlek, ask, ark, others)
    assert parse(pack(made)) == made


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.tuples(st.sampled_from([VCEK, OTHER]), st.integers(0, 300), st.integers(0, 300)), max_size=4),
    st.binary(max_size=200),
)
def test_wild_offsets(entries: list[tuple[str, int, int]], data: bytes) -> None:
    table = b"".join(entry(*fields) for fields in entries) + END + data
    try:
        found = parse(table)
    except Malformed:
        return
    kept = [found.vcek] if found.vcek else []
    assert len(kept) + len(found.others) == len(entries)
    assert all(part in table for part in kept)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(Malformed):
        parse(data)


def test_guids_are_in_the_order_of_their_text() -> None:
    assert pack(Certificates(vcek=b"x"))[:16] == uuid.UUID(VCEK).bytes
    assert certtable.pack(Certificates()) == END
