"""ROM and program have the form that firmware asks for; that they run is a boot test."""

from __future__ import annotations

import struct

import host_code
import pytest

ROM = host_code.option_rom(0x1AF4, 0x1041, b"it ran\r\n")


def images() -> list[bytes]:
    found, at = [], 0
    while ROM[at : at + 2] == b"\x55\xaa":
        size = struct.unpack_from("<H", ROM, struct.unpack_from("<H", ROM, at + 0x18)[0] + at + 16)[0] * 512
        found.append(ROM[at : at + size])
        at += size
    return found


def test_two_images_and_the_last_says_so() -> None:
    assert len(ROM) == 4096
    bios, uefi = images()
    for image, code_type, indicator in ((bios, 0, 0), (uefi, 3, 0x80)):
        assert image[:2] == b"\x55\xaa"
        at = struct.unpack_from("<H", image, 0x18)[0]
        assert at % 4 == 0
        assert struct.unpack_from("<4sHH", image, at) == (b"PCIR", 0x1AF4, 0x1041)
        assert image[at + 20 : at + 22] == bytes([code_type, indicator])
        assert b"it ran\r\n" in image


def test_the_bios_image_sums_to_zero() -> None:
    bios = images()[0]
    assert bios[2] * 512 == len(bios)
    assert sum(bios) & 0xFF == 0


def test_the_uefi_image_is_a_driver() -> None:
    uefi = images()[1]
    assert struct.unpack_from("<IHHH", uefi, 4) == (0x0EF1, 11, 0x8664, 0)
    program = uefi[struct.unpack_from("<H", uefi, 0x16)[0] :]
    assert program[:2] == b"MZ"
    at = struct.unpack_from("<I", program, 0x3C)[0]
    assert program[at : at + 6] == b"PE\0\0\x64\x86"
    entry = struct.unpack_from("<I", program, at + 24 + 16)[0]
    assert program[entry : entry + 1] == b"\x56"


def test_a_line_that_does_not_fit() -> None:
    with pytest.raises(AssertionError):
        host_code.option_rom(1, 2, bytes(600))


def test_the_application_is_the_same_program() -> None:
    """But for its subsystem."""
    driver = images()[1]
    driver = driver[driver.index(b"MZ") :]
    program = host_code.application(b"it ran\r\n")
    different = [at for at, (a, b) in enumerate(zip(program, driver, strict=False)) if a != b]
    assert different == [0x40 + 24 + 68]
    assert (program[different[0]], driver[different[0]]) == (10, 11)
