"""OCSP responses on a disk: one behind the other, and nothing that is none."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats.errors import Malformed
from tinboot.formats.ocspdisk import MAX_COUNT, MAX_SIZE, pack, unpack


def response(size: int, byte: int = 1) -> bytes:
    return b"\x30\x82" + size.to_bytes(2, "big") + bytes((byte,)) * size


@pytest.mark.parametrize("sizes", [(), (300,), (300, 2000, 508), (508,), (65535,)])
def test_what_is_packed_is_unpacked(sizes: tuple[int, ...]) -> None:
    responses = tuple(response(size) for size in sizes)
    disk = pack(responses)
    assert len(disk) % 512 == 0
    assert unpack(disk) == responses


@pytest.mark.parametrize(
    "data", [b"", b"\x30\x03\x0a\x01\x03", response(300) + b"x", b"\x30\x83" + bytes(300)]
)
def test_what_is_no_response_is_not_packed(data: bytes) -> None:
    with pytest.raises(Malformed):
        pack([data])


@pytest.mark.parametrize(
    ("disk", "told"),
    [
        (b"noise", "offset 0x0: 6e6f, expected an OCSP response or zeros"),
        (response(300)[:-1], "offset 0x0: a response of 304 bytes, 303 are there"),
        (response(300) + bytes(200) + b"x", "offset 0x130: something follows the zeros"),
        (response(300) + b"\x31", "offset 0x130: 31, expected an OCSP response or zeros"),
        (bytes(MAX_SIZE + 1), f"a disk of {MAX_SIZE + 1} bytes, expected at most {MAX_SIZE}"),
        (response(256) * (MAX_COUNT + 1), f"more than {MAX_COUNT} OCSP responses"),
    ],
)
def test_anything_else_is_refused_with_its_place(disk: bytes, told: str) -> None:
    with pytest.raises(Malformed, match=told):
        unpack(disk)


@given(st.lists(st.binary(max_size=40), max_size=4))
def test_whatever_bytes_come_are_read_or_refused(parts: list[bytes]) -> None:
    disk = b"".join(b"\x30\x82" + len(part).to_bytes(2, "big") + part for part in parts[:2]) + b"".join(
        parts[2:]
    )
    with contextlib.suppress(Malformed):
        read = b"".join(unpack(disk))
        assert disk.startswith(read)
        assert not any(disk[len(read) :])
