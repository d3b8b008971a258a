"""A GPU's measurements, signed: an SPDM request and its response, as NVML returns them in one piece.

DMTF DSP0274 1.1, the messages GET_MEASUREMENTS and MEASUREMENTS. Numbers are little-endian.

    0     request   version 0x11, code 0xE0, 1 (signed), 0xFF (all blocks), nonce u8[32], slot 0
    37    response  version 0x11, code 0x60, 0, 0, number of blocks 64, length of the record u24
    45    64 blocks of 55 bytes: index 1 to 64, DMTF specification 1, size 51,
                    then a DMTF measurement: type 1, size 48, SHA-384
    3565  responder's nonce u8[32], length of the opaque data u16, opaque data
    end   signature: r and s, 48 bytes each, big-endian (SPDM's own form, no DER)

The signature covers everything before it. Where a report ends its own lengths say; a buffer may go on with
zeros, and nothing else. `parse` refuses every other shape: a block missing, repeated or moved is no report.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from tinboot.formats import gpuopaque
from tinboot.formats.errors import Malformed
from tinboot.formats.gpuopaque import Opaque

MAX_SIZE = 0x2000  # nvml.h: NVML_CC_GPU_ATTESTATION_REPORT_SIZE
NONCE = 32
BLOCKS = 64
DIGEST = 48
SIGNATURE = 96

_NONCE_AT = 4
_RESPONSE_AT = 37
_BLOCKS_AT = 45
_BLOCK = 55
_RECORD = BLOCKS * _BLOCK
_RESPONDER_AT = _BLOCKS_AT + _RECORD
_OPAQUE_AT = _RESPONDER_AT + NONCE + 2

_REQUEST = b"\x11\xe0\x01\xff"
_SLOT = b"\x00"
_RESPONSE = b"\x11\x60\x00\x00" + bytes((BLOCKS,)) + _RECORD.to_bytes(3, "little")
_HEAD = b"\x01\x33\x00\x01\x30\x00"  # of a block, behind its index
_HEAD_AND_DIGEST = struct.Struct(f"{1 + len(_HEAD)}s{DIGEST}s")
_HEADS = tuple(bytes((number + 1,)) + _HEAD for number in range(BLOCKS))


class Report(NamedTuple):
    """`measurements[i]`, 48 bytes, is block i + 1, what a RIM calls index i. `raw` ends with `signature`."""

    nonce: bytes
    measurements: tuple[bytes, ...]
    responder_nonce: bytes
    opaque: Opaque
    signature: bytes
    raw: bytes

    @property
    def signed(self) -> bytes:
        """What the signature covers. A replay cache keys on these bytes: ECDSA signatures are malleable."""
        return self.raw[:-SIGNATURE]


def parse(data: bytes) -> Report:
    """Raises `Malformed` with the offset."""
    if len(data) > MAX_SIZE:
        raise Malformed(f"a report of {len(data)} bytes, expected at most {MAX_SIZE}")
    data = bytes(data)
    _expect(data, 0, _REQUEST, "the head of the request")
    _expect(data, _RESPONSE_AT - 1, _SLOT, "the slot")
    _expect(data, _RESPONSE_AT, _RESPONSE, "the head of the response")
    heads, measurements = zip(*_HEAD_AND_DIGEST.iter_unpack(_take(data, _BLOCKS_AT, _RECORD)), strict=True)
    if heads != _HEADS:
        for number in range(BLOCKS):
            at = _BLOCKS_AT + number * _BLOCK
            _expect(data, at, bytes((number + 1,)), "the index of the next block")
            _expect(data, at + 1, _HEAD, f"the head of block {number + 1}")
    length = int.from_bytes(_take(data, _OPAQUE_AT - 2, 2), "little")
    if length > gpuopaque.MAX_SIZE:
        at, most = _OPAQUE_AT - 2, gpuopaque.MAX_SIZE
        raise Malformed(f"offset {at:#x}: {length} bytes of opaque data, expected at most {most}")
    opaque = gpuopaque.parse(_take(data, _OPAQUE_AT, length), _OPAQUE_AT)
    end = _OPAQUE_AT + length + SIGNATURE
    signature = _take(data, end - SIGNATURE, SIGNATURE)
    if any(data[end:]):
        raise Malformed(f"offset {end:#x}: {len(data) - end} bytes too many, and not all of them zero")
    return Report(
        data[_NONCE_AT : _NONCE_AT + NONCE],
        measurements,
        data[_RESPONDER_AT : _RESPONDER_AT + NONCE],
        opaque,
        signature,
        data[:end],
    )


def _take(data: bytes, at: int, size: int) -> bytes:
    part = data[at : at + size]
    if len(part) != size:
        raise Malformed(f"offset {at:#x}: the report ends at {len(data):#x}, expected {size} bytes more")
    return part


def _expect(data: bytes, at: int, want: bytes, what: str) -> None:
    found = _take(data, at, len(want))
    if found != want:
        raise Malformed(f"offset {at:#x}: {what} is {found.hex()}, expected {want.hex()}")
