"""The certificate table that comes with an extended report, from the host: a hint, never trusted.

    header      24-byte entries {GUID, u32 offset, u32 length}, ended by 24 zero bytes
    data        certificates, PEM or DER, at offsets from the table's first byte

GHCB specification (56421) 2.03, "SNP Extended Guest Request"; Linux, include/uapi/linux/sev-guest.h. GUIDs
stand in their text's order (as the bytes of RFC 9562), not in UEFI's mixed one. QEMU without certificates
gives the terminator alone or nothing. A host may add entries of its own, so unknown GUIDs are kept aside.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from tinboot.formats.errors import Malformed

#: Linux, drivers/virt/coco/sev-guest/sev-guest.c, SEV_FW_BLOB_MAX_SIZE: the largest table a guest asks for.
MAX_SIZE = 16 << 10

_ENTRY = struct.Struct("<16sII")

_GUIDS = {
    "vcek": "63da758d-e664-4564-adc5-f4b93be8accd",
    "vlek": "a8074bc2-a25a-483e-aae6-39c045a0b8a1",
    "ask": "4ab7b379-bbac-4fe4-a02f-05aef327c782",  # ASVK, too
    "ark": "c0b406a4-a803-4952-9743-3fb6014cd0ae",
}
_NAMES = {text: name for name, text in _GUIDS.items()}


class Certificates(NamedTuple):
    """Each as the host gave it, PEM or DER; None where the table has none. `others`: (GUID, data)."""

    vcek: bytes | None = None
    vlek: bytes | None = None
    ask: bytes | None = None
    ark: bytes | None = None
    others: tuple[tuple[str, bytes], ...] = ()


def parse(table: bytes) -> Certificates:
    """Raises `Malformed` with the offset of what is wrong."""
    if len(table) > MAX_SIZE:
        raise Malformed(f"the certificate table has {len(table)} bytes, expected at most {MAX_SIZE}")
    entries = list(_header(table)) if table else []
    end = (len(entries) + 1) * _ENTRY.size
    found: dict[str, bytes] = {}
    taken: list[tuple[int, int]] = []
    for index, (name, offset, length) in enumerate(entries):
        where = f"offset {index * _ENTRY.size:#x}: the certificate table's entry {name}"
        if name in found:
            raise Malformed(f"{where} is there twice")
        if not length or offset < end or offset + length > len(table):
            raise Malformed(f"{where} claims {length} bytes at {offset:#x} of {len(table)}")
        if any(offset < stop and start < offset + length for start, stop in taken):
            raise Malformed(f"{where} overlaps another one's data at {offset:#x}")
        taken.append((offset, offset + length))
        found[name] = bytes(table[offset : offset + length])
    known = {_NAMES[name]: data for name, data in found.items() if name in _NAMES}
    others = tuple((name, data) for name, data in found.items() if name not in _NAMES)
    return Certificates(**known, others=others)


def _header(table: bytes) -> list[tuple[str, int, int]]:
    entries: list[tuple[str, int, int]] = []
    for at in range(0, len(table) - _ENTRY.size + 1, _ENTRY.size):
        name, offset, length = _ENTRY.unpack_from(table, at)
        if not any(name):
            if offset or length:
                raise Malformed(f"offset {at + 16:#x}: the certificate table's terminator is not zero")
            return entries
        entries.append((_text(name), offset, length))
    raise Malformed(f"offset {len(table):#x}: the certificate table ends before its terminator")


def pack(certificates: Certificates) -> bytes:
    """The inverse of `parse`, the data in the order of the fields."""
    named = [(text, getattr(certificates, name)) for name, text in _GUIDS.items()]
    entries = [(text, data) for text, data in named if data is not None] + list(certificates.others)
    offset = (len(entries) + 1) * _ENTRY.size
    header, body = b"", b""
    for text, data in entries:
        header += _ENTRY.pack(bytes.fromhex(text.replace("-", "")), offset + len(body), len(data))
        body += data
    return header + bytes(_ENTRY.size) + body


def _text(guid: bytes) -> str:
    digits = guid.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
