"""OCSP responses on a disk: one DER behind the other, NUL-padded to the sector, and nothing else.

The host lays them ready for the GPU gate. They are signed, so it can withhold them and not make any.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinboot.formats.errors import Malformed

SECTOR = 512
MAX_SIZE = 256 << 10  # bytes; a response with its responder's certificate has about 2,000
MAX_COUNT = 64

#: A SEQUENCE with a length in two bytes (ITU-T X.690, 8.1.3.5): no response is shorter, or may be longer.
_HEAD = b"\x30\x82"


def pack(responses: Sequence[bytes]) -> bytes:
    """The disk for `responses`; raises `Malformed` where `unpack` would not give the same back."""
    disk = b"".join(responses)
    disk += bytes(-len(disk) % SECTOR)
    if unpack(disk) != tuple(responses):
        raise Malformed("an OCSP response that is not one DER sequence of 256 to 65,535 bytes")
    return disk


def unpack(disk: bytes) -> tuple[bytes, ...]:
    """The responses of a whole disk. What is in them, nobody has looked at. Raises `Malformed`."""
    if len(disk) > MAX_SIZE:
        raise Malformed(f"a disk of {len(disk)} bytes, expected at most {MAX_SIZE}")
    found, at = [], 0
    while disk[at : at + 1].strip(b"\0"):
        if disk[at : at + 2] != _HEAD:
            raise Malformed(f"offset {at:#x}: {disk[at : at + 2].hex()}, expected an OCSP response or zeros")
        end = at + 4 + int.from_bytes(disk[at + 2 : at + 4], "big")
        if end > len(disk):
            raise Malformed(f"offset {at:#x}: a response of {end - at} bytes, {len(disk) - at} are there")
        found.append(disk[at:end])
        at = end
        if len(found) > MAX_COUNT:
            raise Malformed(f"more than {MAX_COUNT} OCSP responses")
    if any(disk[at:]):
        raise Malformed(f"offset {at:#x}: something follows the zeros behind the last response")
    return tuple(found)
