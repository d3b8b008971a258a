"""The certificate table that a host may give with a report: hints, to be verified like any other.

GHCB Specification (56421) 2.03, table 7, "SNP extended guest request": entries of GUID, offset and length,
ended by one of zeros. The GUIDs stand in the order of their text, unlike UEFI's.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from tinboot.formats.errors import Malformed

#: Linux accepts 16 KiB (drivers/virt/coco/sev-guest/sev-guest.c, SEV_FW_BLOB_MAX_SIZE).
LIMIT = 16 << 10

_ENTRY = struct.Struct("<16sII")
_END = bytes(_ENTRY.size)


def _guid(text: str) -> bytes:
    return bytes.fromhex(text.replace("-", ""))


#: GUID -> what it is.
KINDS = {
    _guid("63da758d-e664-4564-adc5-f4b93be8accd"): "vcek",
    _guid("a8074bc2-a25a-483e-aae6-39c045a0b8a1"): "vlek",
    _guid("4ab7b379-bbac-4fe4-a02f-05aef327c782"): "ask",
    _guid("c0b406a4-a803-4952-9743-3fb6014cd0ae"): "ark",
}


class Certificates(NamedTuple):
    """Certificates as they stand in the table, PEM or DER; None where there is none. ASK may be an ASVK."""

    vcek: bytes | None = None
    vlek: bytes | None = None
    ask: bytes | None = None
    ark: bytes | None = None


def parse(table: bytes) -> Certificates:
    """Raises `Malformed` with the offset of what is wrong. No table, or all zeros: no certificates.

    Entries of other kinds are passed over: a host may keep data of its own there.
    """
    if len(table) > LIMIT:
        raise Malformed(f"the certificate table has {len(table)} bytes, expected at most {LIMIT}")
    found: dict[str, bytes] = {}
    lowest = len(table)
    if not any(table):
        return Certificates()
    for at in range(0, len(table), _ENTRY.size):
        if len(table) - at < _ENTRY.size:
            raise Malformed(f"offset {at:#x}: the certificate table ends without an entry of zeros")
        if table[at : at + _ENTRY.size] == _END:
            if lowest < at + _ENTRY.size:
                raise Malformed(f"offset {lowest:#x}: a certificate begins within the table's own entries")
            return Certificates(**found)
        name, offset, length = _ENTRY.unpack_from(table, at)
        if offset + length > len(table) or not length:
            raise Malformed(f"offset {at:#x}: a certificate of {length} bytes at {offset:#x} in {len(table)}")
        kind = KINDS.get(name)
        if kind in found:
            raise Malformed(f"offset {at:#x}: the certificate table has two entries for {kind}")
        if kind is not None:
            found[kind] = table[offset : offset + length]
        lowest = min(lowest, offset)
    raise Malformed("the certificate table ends without an entry of zeros")


def write(certificates: Certificates, *, align: int = 4096) -> bytes:
    """The table of `certificates`, padded to a multiple of `align` bytes."""
    listed = [(name, getattr(certificates, kind)) for name, kind in KINDS.items()]
    listed = [(name, data) for name, data in listed if data is not None]
    offset = _ENTRY.size * (len(listed) + 1)
    head, body = b"", b""
    for name, data in listed:
        head += _ENTRY.pack(name, offset + len(body), len(data))
        body += data
    whole = head + _END + body
    return whole + bytes(-len(whole) % align)
