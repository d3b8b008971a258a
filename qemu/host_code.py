"""Code of the host's that prints a line where a firmware runs it: a card's option ROM, a boot disk's program.

Formats: PCI Firmware Specification 3.3, 5.1 (ROM header, PCI data structure); UEFI Specification 2.10, 14.4.2
(EFI image in a ROM); Microsoft PE format (PE32+).
"""

from __future__ import annotations

import struct

_SECTOR = 512
_SMALLEST = 4096  # edk2 passes over a ROM of half of that
_COM1 = 0x3F8
_BIOS, _UEFI = 0, 3  # code types
_LAST = 0x80  # indicator: no image behind this one

_APPLICATION, _BOOT_DRIVER = 10, 11  # UEFI subsystems

#: Of the UEFI program, and its code and text.
_HEADERS, _TEXT = 0x200, 0x200


def application(line: bytes) -> bytes:
    """What a firmware starts from a disk as \\EFI\\BOOT\\BOOTX64.EFI. It prints `line` on COM1."""
    return _uefi_program(line, _APPLICATION)


def option_rom(vendor: int, device: int, line: bytes) -> bytes:
    """A ROM for that PCI device, with a program for a BIOS and one for UEFI that do the same."""
    bios, uefi = _bios_program(line), _uefi_program(line, _BOOT_DRIVER)
    first = _image(vendor, device, _BIOS, 0, bios, b"")
    head = struct.pack("<IHHH8xH", 0x0EF1, _BOOT_DRIVER, 0x8664, 0, 0x38)  # x86-64, plain, at 0x38
    rom = first + _image(vendor, device, _UEFI, _LAST, head, uefi)
    return rom.ljust(_SMALLEST, b"\0")


def _image(vendor: int, device: int, code_type: int, indicator: int, head: bytes, program: bytes) -> bytes:
    """The header with `head` behind its two words, the data structure, and `program`, padded and summed."""
    uefi = code_type == _UEFI
    size = -(-(0x38 + len(head) + len(program)) // _SECTOR)
    structure = struct.pack(
        "<4sHHHHB3sHHBBHH", b"PCIR", vendor, device, 0, 24, 3, b"\0\0\2", size, 0, code_type, indicator, 0, 0
    )
    if uefi:
        # signature, size in sectors, then the EFI header up to 0x18, where the data structure's place is
        data = struct.pack("<HH", 0xAA55, size) + head + struct.pack("<H", 0x1C) + b"\0\0" + structure
    else:
        # the entry at 3 jumps behind the data structure
        jump = b"\xe9" + struct.pack("<H", 0x38 - 6)
        data = (struct.pack("<HB", 0xAA55, size) + jump).ljust(0x18, b"\0")
        data += struct.pack("<H", 0x1C) + b"\0\0" + structure
    assert len(data) <= 0x38
    data = data.ljust(0x38, b"\0") + (program if uefi else head)
    data = data.ljust(size * _SECTOR, b"\0")
    return data if uefi else data[:-1] + bytes([-sum(data[:-1]) & 0xFF])


def _bios_program(line: bytes) -> bytes:
    """16 bits, called far: lodsb from CS, out to COM1, as often as there are bytes."""
    setup = b"\x60\x1e\x0e\x1f\xfc"  # pusha; push ds; push cs; pop ds; cld
    # the text's offset in the segment, which is the ROM's
    at = 0x38 + len(setup) + 3 + 3 + 3 + 4 + 3
    code = setup + b"\xbe" + struct.pack("<H", at) + b"\xb9" + struct.pack("<H", len(line))  # mov si; mov cx
    code += b"\xba" + struct.pack("<H", _COM1)  # mov dx
    code += b"\xac\xee\xe2\xfc"  # lodsb; out dx, al; loop
    return code + b"\x1f\x61\xcb" + line  # pop ds; popa; retf


def _uefi_program(line: bytes, subsystem: int) -> bytes:
    """A PE32+ image of one section whose entry prints and returns EFI_SUCCESS."""
    code = b"\x56\xfc\x48\x8d\x35" + struct.pack("<i", 4 + 5 + 4 + 4)  # push rsi; cld; lea rsi, [rip + …]
    code += b"\x66\xba" + struct.pack("<H", _COM1) + b"\xb9" + struct.pack("<I", len(line))  # mov dx; mov ecx
    code += b"\xac\xee\xe2\xfc"  # lodsb; out dx, al; loop
    code += b"\x31\xc0\x5e\xc3"  # xor eax, eax; pop rsi; ret
    text = (code + line).ljust(_TEXT, b"\0")
    assert len(text) == _TEXT
    dos = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    # x86-64, one section, executable with large addresses
    coff = struct.pack("<4sHHIIIHH", b"PE\0\0", 0x8664, 1, 0, 0, 0, 0xF0, 0x22)
    optional = struct.pack("<HBBIIIII", 0x20B, 0, 0, _TEXT, 0, 0, _HEADERS, _HEADERS)
    optional += struct.pack("<QII6HI", 0, _TEXT, _TEXT, 0, 0, 0, 0, 0, 0, 0)
    optional += struct.pack("<III", _HEADERS + _TEXT, _HEADERS, 0) + struct.pack("<HH", subsystem, 0)
    optional += struct.pack("<QQQQII", 0, 0, 0, 0, 0, 16) + bytes(16 * 8)
    section = struct.pack("<8sIIIIIIHHI", b".text", _TEXT, _HEADERS, _TEXT, _HEADERS, 0, 0, 0, 0, 0x60000020)
    return (dos + coff + optional + section).ljust(_HEADERS, b"\0") + text
