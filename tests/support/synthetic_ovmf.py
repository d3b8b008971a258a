"""OVMF images of any shape: noise, then SEV metadata and a table of GUIDs in front of the reset vector."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

from tinboot.formats import ovmf
from tinboot.formats.ovmf import FOOTER, PAGE, SEV_ES_RESET, SEV_HASH_TABLE, SEV_METADATA, Section

#: As AmdSev OVMF of edk2 2025.02 has them.
SECTIONS = (
    Section(0x800000, 0x9000, ovmf.SNP_SEC_MEMORY),
    Section(0x80A000, 0x3000, ovmf.SNP_SEC_MEMORY),
    Section(0x80D000, PAGE, ovmf.SNP_SECRETS),
    Section(0x80E000, PAGE, ovmf.SNP_CPUID),
    Section(0x80F000, PAGE, ovmf.SVSM_CAA),
    Section(0x811000, 0xF000, ovmf.SNP_SEC_MEMORY),
    Section(0x810000, PAGE, ovmf.SNP_KERNEL_HASHES),
)
HASH_TABLE = (0x810C00, 0x400)
RESET_EIP = 0x80B004

_METADATA_AT = 1024  # bytes before the image's end


def entry(name: bytes, data: bytes) -> bytes:
    """One entry of the table, which is read backwards."""
    return data + struct.pack("<H", len(data) + 18) + name


def metadata(sections: Sequence[Section], *, signature: bytes = b"ASEV", version: int = 1) -> bytes:
    listed = b"".join(struct.pack("<III", *section) for section in sections)
    return struct.pack("<4sIII", signature, 16 + len(listed), version, len(sections)) + listed


def image(
    sections: Sequence[Section] = SECTIONS,
    *,
    hash_table: tuple[int, int] | None = HASH_TABLE,
    reset_eip: int | None = RESET_EIP,
    pages: int = 2,
    seed: int = 0,
    more: Sequence[bytes] = (),
    described: bytes | None = None,
) -> bytes:
    """An image of `pages`; `more` are further entries, `described` stands in place of the metadata."""
    entries = list(more)
    if reset_eip is not None:
        entries.append(entry(SEV_ES_RESET, struct.pack("<I", reset_eip)))
    if hash_table is not None:
        entries.append(entry(SEV_HASH_TABLE, struct.pack("<II", *hash_table)))
    entries.append(entry(SEV_METADATA, struct.pack("<I", _METADATA_AT)))
    listed = b"".join(entries)
    made = bytearray(random.Random(seed).randbytes(pages * PAGE))
    content = metadata(sections) if described is None else described
    made[-_METADATA_AT : len(made) - _METADATA_AT + len(content)] = content
    table = listed + struct.pack("<H", len(listed) + 18) + FOOTER
    made[-32 - len(table) : -32] = table
    return bytes(made)
