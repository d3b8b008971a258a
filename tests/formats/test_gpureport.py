"""A GPU's signed measurements: where each part lies, and everything that is no report."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable

import pytest
import vectors
from hypothesis import given, settings
from hypothesis import strategies as st

from tinboot.formats import gpureport
from tinboot.formats.errors import Malformed
from tinboot.formats.gpureport import parse

BLOCKS_AT, RESPONDER_AT, OPAQUE_AT = 45, 3565, 3599
NONCE, RESPONDER = bytes(range(32)), bytes(range(32, 64))
OPAQUE = struct.pack("<HH", 3, 10) + b"550.90.07\0" + struct.pack("<HHB", 11, 1, 0x55)
SIGNATURE = bytes(range(96))
REAL = ("go-nvtrust/attestationReport.txt", "nvidia-attestation-sdk/hopperAttestationReport.txt")


def block(index: int, digest: bytes | None = None) -> bytes:
    return struct.pack("<BBHBH", index, 1, 51, 1, 48) + (digest or bytes((index,)) * 48)


def packed(opaque: bytes = OPAQUE, blocks: list[bytes] | None = None) -> bytes:
    """The table of the module, written down once more."""
    record = b"".join(blocks or [block(number) for number in range(1, 65)])
    request = b"\x11\xe0\x01\xff" + NONCE + b"\0"
    response = b"\x11\x60\0\0\x40" + (3520).to_bytes(3, "little") + record + RESPONDER
    return request + response + struct.pack("<H", len(opaque)) + opaque + SIGNATURE


def test_each_part_lies_where_the_table_says() -> None:
    report = parse(packed())
    assert report.nonce == NONCE
    assert report.measurements == tuple(bytes((number,)) * 48 for number in range(1, 65))
    assert report.responder_nonce == RESPONDER
    assert report.opaque.driver_version == "550.90.07"
    assert report.signature == SIGNATURE
    assert report.raw == packed()
    assert report.signed == packed()[:-96]


def test_zeros_behind_the_end_are_the_buffers() -> None:
    assert parse(packed() + bytes(100)) == parse(packed())


def test_nothing_else_is_behind_the_end() -> None:
    end = len(packed())
    with pytest.raises(Malformed, match=f"offset {end:#x}: 3 bytes too many"):
        parse(packed() + b"\0\0\1")


def test_no_report_is_longer_than_nvmls_buffer() -> None:
    with pytest.raises(Malformed, match="8193 bytes, expected at most 8192"):
        parse(packed().ljust(8193, b"\0"))


@pytest.mark.parametrize(
    ("at", "what"),
    [
        *((at, "the head of the request") for at in range(4)),
        (36, "the slot"),
        *((at, "the head of the response") for at in range(37, 45)),
        (BLOCKS_AT, "the index of the next block"),
        *((at, "the head of block 1 ") for at in range(46, 52)),
        (BLOCKS_AT + 55, "the index of the next block"),
        (BLOCKS_AT + 63 * 55, "the index of the next block"),
    ],
)
def test_a_changed_head_is_told_with_its_place(at: int, what: str) -> None:
    data = bytearray(packed())
    data[at] ^= 0x10
    with pytest.raises(Malformed, match=f"^offset 0x[0-9a-f]+: {what}"):
        parse(bytes(data))


def _missing(blocks: list[bytes]) -> list[bytes]:
    return blocks[:10] + blocks[11:]


def _repeated(blocks: list[bytes]) -> list[bytes]:
    return [*blocks[:10], blocks[9], *blocks[11:]]


def _reordered(blocks: list[bytes]) -> list[bytes]:
    return [*blocks[:10], blocks[11], blocks[10], *blocks[12:]]


@pytest.mark.parametrize("change", [_missing, _repeated, _reordered])
def test_a_block_missing_repeated_or_moved_is_no_report(
    change: Callable[[list[bytes]], list[bytes]],
) -> None:
    blocks = change([block(number) for number in range(1, 65)])
    with pytest.raises(
        Malformed, match=r"offset 0x253: the index of the next block is [0-9a-f]{2}, expected 0b"
    ):
        parse(packed(blocks=blocks))


def test_another_number_of_blocks_is_no_report() -> None:
    data = packed(blocks=[block(number) for number in range(1, 42)])
    fewer = data[:41] + b"\x29" + (41 * 55).to_bytes(3, "little") + data[45:]
    with pytest.raises(Malformed, match=r"offset 0x25: the head of the response is 1160000029cf0800"):
        parse(fewer)


@pytest.mark.parametrize("cut", [0, 3, 36, 44, BLOCKS_AT + 20, RESPONDER_AT + 1, OPAQUE_AT + 5, -1, -96])
def test_a_report_that_ends_early_says_where(cut: int) -> None:
    with pytest.raises(Malformed, match="the report ends at"):
        parse(packed()[:cut])


def test_the_opaque_datas_length_is_bounded() -> None:
    data = bytearray(packed())
    data[OPAQUE_AT - 2 : OPAQUE_AT] = struct.pack("<H", 1025)
    with pytest.raises(Malformed, match="offset 0xe0d: 1025 bytes of opaque data, expected at most 1024"):
        parse(bytes(data))


def test_the_opaque_datas_errors_have_the_reports_offset() -> None:
    with pytest.raises(Malformed, match="offset 0xe0f: opaque type 99, which is not known"):
        parse(packed(struct.pack("<HH", 99, 0)))


@pytest.mark.parametrize("name", REAL)
def test_real_reports_are_read_to_their_end(name: str) -> None:
    data = bytes.fromhex(vectors.read(f"gpu/{name}").decode())
    report = parse(data)
    assert report.raw == data
    assert report.opaque.vbios_version == "96.00.5E.00.01"


@settings(max_examples=300)
@given(st.data())
def test_whatever_bytes_come_are_read_or_refused(data: st.DataObject) -> None:
    mutated = bytearray(packed())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.sampled_from([*range(60), *range(3590, len(mutated))]))
        mutated[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(mutated), 0, 40, 3600, len(mutated) - 96]))
    with contextlib.suppress(Malformed):
        report = parse(bytes(mutated[:cut]))
        assert mutated[:cut].startswith(report.raw)
        assert len(report.measurements) == gpureport.BLOCKS


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(Malformed):
        parse(noise)
