"""What an OVMF image says of itself: the table of GUIDs before the reset vector, and the SEV metadata.

    image end - 32      end of the table (edk2, OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm)
    ...                 entries, read backwards: data, u16 length (of data + 18), 16-byte GUID
    last entry          the footer: its length is the whole table's

The launch digest is computed from these facts, so an image that states one of them twice, or out of
range, is refused. GUIDs are in the mixed-endian form of UEFI 2.10, appendix A.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from tinboot.formats.errors import Malformed, Refused

PAGE = 4096

#: Twice what QEMU accepts as flash (hw/i386/pc_sysfw.c, FLASH_SIZE_LIMIT); edk2 makes images of 2 to 4 MiB.
MAX_SIZE = 16 << 20

#: The image ends here in guest memory.
TOP = 1 << 32

_RESET_VECTOR = 32  # bytes between the table and the image's end
_ENTRY = struct.Struct("<H16s")  # length of the whole entry, GUID; stands behind the entry's data


def guid(text: str) -> bytes:
    """The 16 bytes of a GUID as UEFI stores it: the first three groups little-endian."""
    first, second, third, *rest = text.split("-")
    little = (bytes.fromhex(part)[::-1] for part in (first, second, third))
    return b"".join((*little, bytes.fromhex("".join(rest))))


#: edk2, OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm
FOOTER = guid("96b582de-1fb2-45f7-baea-a366c55a082d")
SEV_HASH_TABLE = guid("7255371f-3a3b-4b04-927b-1da6efa8d454")  # u32 base, u32 size
SEV_ES_RESET = guid("00f771de-1a7e-4fcb-890e-68c77e2fb44e")  # u32 address
SEV_METADATA = guid("dc886566-984a-4798-a75e-5585a7bf67cc")  # u32 distance from the image's end

#: edk2, OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm: signature, length, version, count; then the sections.
_METADATA = struct.Struct("<4sIII")
_SECTION = struct.Struct("<III")

SNP_SEC_MEMORY, SNP_SECRETS, SNP_CPUID, SVSM_CAA, SNP_KERNEL_HASHES = 1, 2, 3, 4, 0x10
KINDS = {
    SNP_SEC_MEMORY: "SNP_SEC_MEM",
    SNP_SECRETS: "SNP_SECRETS",
    SNP_CPUID: "SNP_CPUID",
    SVSM_CAA: "SVSM_CAA",
    SNP_KERNEL_HASHES: "SNP_KERNEL_HASHES",
}

_MAX_SECTIONS = 64  # edk2's images have eight
_HASHES = 176  # bytes of the table that QEMU writes (tinboot/formats/kernelhashes.py)


class Section(NamedTuple):
    """Guest memory that the VMM prepares before launch: address and size in bytes, whole pages."""

    gpa: int
    size: int
    kind: int


class Firmware(NamedTuple):
    """`size` of the image in bytes. `sections` in the file's order, which the digest follows.

    `reset_eip`: where application processors start; `hash_table`: (address, bytes) of the kernel hashes.
    None where the image does not say, or says zero.
    """

    size: int
    sections: tuple[Section, ...]
    reset_eip: int | None
    hash_table: tuple[int, int] | None

    @property
    def gpa(self) -> int:
        """Where the image begins in guest memory."""
        return TOP - self.size


def parse(image: bytes) -> Firmware:
    """Raises `Malformed` with the offset of what is wrong."""
    size = len(image)
    if not PAGE <= size <= MAX_SIZE or size % PAGE:
        raise Malformed(f"the firmware has {size} bytes, expected whole pages of {PAGE}, at most {MAX_SIZE}")
    entries = _entries(image)
    reset = _fixed(entries, SEV_ES_RESET, "SEV-ES reset block", "<I")
    table = _fixed(entries, SEV_HASH_TABLE, "SEV hash table", "<II")
    return checked(
        Firmware(
            size=size,
            sections=_sections(image, entries),
            reset_eip=reset[0] if reset and reset[0] else None,
            hash_table=(table[0], table[1]) if table and any(table) else None,
        )
    )


def kernel_hashes_at(firmware: Firmware) -> int:
    """Where the hashes of kernel, initrd and command line go; the firmware compares what it loads with them.

    Raises `Refused` without a measured place for them: that firmware starts any kernel, or none.
    """
    hint = "use an AmdSev build of OVMF, as `tinboot firmware build` makes it"
    if firmware.hash_table is None:
        raise Refused("the firmware has no room for a table of kernel hashes (SEV_HASH_TABLE_RV)", hint)
    base, size = firmware.hash_table
    measured = [section for section in firmware.sections if section.kind == SNP_KERNEL_HASHES]
    if not measured:
        raise Refused("the firmware has no section for kernel hashes (SNP_KERNEL_HASHES)", hint)
    if not any(section.gpa <= base and base + size <= section.gpa + section.size for section in measured):
        raise Refused(f"the firmware's kernel hashes at {base:#x} lie outside of their section", hint)
    return base


def checked(firmware: Firmware) -> Firmware:
    """`firmware` itself; raises `Malformed` where its parts overlap or lie where nothing can be."""
    before: list[Section] = []
    for section in firmware.sections:
        where = f"the firmware's section {section.gpa:#x}+{section.size:#x}"
        if section.gpa % PAGE or section.size % PAGE or not section.size:
            raise Malformed(f"{where} is not of whole pages")
        if section.gpa + section.size > firmware.gpa:
            raise Malformed(f"{where} reaches into the firmware or beyond 4 GiB")
        for other in before:
            if section.gpa < other.gpa + other.size and other.gpa < section.gpa + section.size:
                raise Malformed(f"{where} overlaps {other.gpa:#x}+{other.size:#x}")
        before.append(section)
    if firmware.hash_table is not None:
        base, length = firmware.hash_table
        if not base or base % PAGE + length > PAGE or length < _HASHES:
            raise Malformed(f"the SEV hash table at {base:#x} with {length} bytes does not lie in one page")
    return firmware


def _entries(image: bytes) -> dict[bytes, bytes]:
    """GUID -> data. Empty where the image has no table: firmware without SEV."""
    end = len(image) - _RESET_VECTOR
    length, found = _ENTRY.unpack_from(image, end - _ENTRY.size)
    if found != FOOTER:
        return {}
    start = end - length
    if not 0 <= start <= end - _ENTRY.size:
        raise Malformed(f"offset {end - _ENTRY.size:#x}: the table of GUIDs claims {length} bytes")
    entries: dict[bytes, bytes] = {}
    at = end - _ENTRY.size
    while at > start:
        if at - start < _ENTRY.size:
            raise Malformed(f"offset {start:#x}: {at - start} bytes before the first entry of the table")
        length, name = _ENTRY.unpack_from(image, at - _ENTRY.size)
        if not _ENTRY.size <= length <= at - start:
            raise Malformed(f"offset {at - _ENTRY.size:#x}: an entry of the table claims {length} bytes")
        if name in entries:
            raise Malformed(f"offset {at - _ENTRY.size:#x}: the table has the GUID {name.hex()} twice")
        entries[name] = image[at - length : at - _ENTRY.size]
        at -= length
    return entries


def _fixed(entries: dict[bytes, bytes], name: bytes, what: str, form: str) -> tuple[int, ...] | None:
    data = entries.get(name)
    if data is None:
        return None
    if len(data) != struct.calcsize(form):
        raise Malformed(f"the {what} has {len(data)} bytes, expected {struct.calcsize(form)}")
    return struct.unpack(form, data)


def _sections(image: bytes, entries: dict[bytes, bytes]) -> tuple[Section, ...]:
    distance = _fixed(entries, SEV_METADATA, "SEV metadata's entry", "<I")
    if distance is None:
        return ()
    at = len(image) - distance[0]
    if not 0 <= at <= len(image) - _METADATA.size:
        raise Malformed(f"the SEV metadata would begin {distance[0]} bytes before the image's end")
    signature, length, version, count = _METADATA.unpack_from(image, at)
    if signature != b"ASEV" or version != 1:
        raise Malformed(f"offset {at:#x}: SEV metadata {signature!r} version {version}, expected ASEV 1")
    expected = _METADATA.size + count * _SECTION.size
    if count > _MAX_SECTIONS or length != expected or at + length > len(image):
        raise Malformed(f"offset {at + 4:#x}: SEV metadata of {length} bytes with {count} sections")
    offsets = range(at + _METADATA.size, at + length, _SECTION.size)
    return tuple(Section(*_SECTION.unpack_from(image, offset)) for offset in offsets)
