"""What OVMF says of itself, and every way in which it could say it wrongly."""

from __future__ import annotations

import contextlib
import struct
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_ovmf import HASH_TABLE, RESET_EIP, SECTIONS, entry, image, metadata

from tinboot.formats import ovmf
from tinboot.formats.errors import Malformed, Refused
from tinboot.formats.ovmf import PAGE, SEV_ES_RESET, SEV_HASH_TABLE, SEV_METADATA, Section, parse


def test_all_parts() -> None:
    found = parse(image())
    assert found == ovmf.Firmware(2 * PAGE, SECTIONS, RESET_EIP, HASH_TABLE)
    assert found.gpa == (1 << 32) - 2 * PAGE
    assert ovmf.kernel_hashes_at(found) == HASH_TABLE[0]


def test_guids_are_stored_as_uefi_stores_them() -> None:
    text = "96b582de-1fb2-45f7-baea-a366c55a082d"
    assert ovmf.guid(text) == uuid.UUID(text).bytes_le == ovmf.FOOTER


def test_firmware_without_sev() -> None:
    assert parse(bytes(2 * PAGE)) == ovmf.Firmware(2 * PAGE, (), None, None)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (image(hash_table=None), "no room for a table of kernel hashes"),
        (image(hash_table=(0, 0)), "no room"),  # what Debian's OVMF has: the GUID, and nothing behind it
        (image(SECTIONS[:-1]), "no section for kernel hashes"),
        (image(hash_table=(0x80FC00, 0x400)), "hashes at 0x80fc00 lie outside of their section"),
    ],
)
def test_firmware_that_does_not_check_the_kernel(made: bytes, message: str) -> None:
    with pytest.raises(Refused, match=message):
        ovmf.kernel_hashes_at(parse(made))


def test_more_than_one_section_of_kernel_hashes() -> None:
    more = (Section(0x900000, PAGE, ovmf.SNP_KERNEL_HASHES), *SECTIONS)
    assert ovmf.kernel_hashes_at(parse(image(more))) == HASH_TABLE[0]


def test_entries_that_nobody_knows_are_passed_over() -> None:
    assert parse(image(more=[entry(bytes(16), b"anything")])) == parse(image())


END = 2 * PAGE - 32


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (b"", "the firmware has 0 bytes"),
        (bytes(PAGE + 1), "expected whole pages"),
        (bytes(ovmf.MAX_SIZE + PAGE), "at most"),
        (image()[: END - 18] + struct.pack("<H", 0xFFFF) + image()[END - 16 :], "claims 65535 bytes"),
        (image()[: END - 18] + struct.pack("<H", 17) + image()[END - 16 :], "claims 17 bytes"),
        (image(more=[b"x" * 3]), "3 bytes before the first entry"),
        (image(more=[struct.pack("<H", 17) + b"g" * 16]), "an entry of the table claims 17 bytes"),
        (image(more=[struct.pack("<H", 400) + b"g" * 16]), "an entry of the table claims 400 bytes"),
        (image(more=[entry(SEV_ES_RESET, bytes(4))]), "twice"),
        (image(more=[entry(SEV_ES_RESET, bytes(8))], reset_eip=None), "SEV-ES reset block has 8 bytes"),
        (image(more=[entry(SEV_HASH_TABLE, bytes(4))], hash_table=None), "SEV hash table has 4 bytes"),
        (image(hash_table=(0x810C00, 0x401)), "does not lie in one page"),
        (image(hash_table=(0x810C00, 175)), "does not lie in one page"),
        (image(hash_table=(0, 0x400)), "does not lie in one page"),
        (image(described=metadata(SECTIONS, signature=b"ASEW")), "ASEW"),
        (image(described=metadata(SECTIONS, version=2)), "version 2"),
        (image(described=struct.pack("<4sIII", b"ASEV", 15, 1, 0)), "SEV metadata of 15 bytes"),
        (image(described=struct.pack("<4sIII", b"ASEV", 16 + 65 * 12, 1, 65)), "with 65 sections"),
        (image([Section(0x800000, 0, 1)]), "not of whole pages"),
        (image([Section(0x800001, PAGE, 1)]), "not of whole pages"),
        (image([Section(0x800000, PAGE + 1, 1)]), "not of whole pages"),
        (image([Section(0xFFFFE000, PAGE, 1)]), "reaches into the firmware"),
        (image([Section(0x800000, 2 * PAGE, 1), Section(0x801000, PAGE, 2)]), "overlaps 0x800000"),
    ],
)
def test_refuses(made: bytes, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        parse(made)


def test_metadata_outside_the_image() -> None:
    made = image()
    at = made.index(SEV_METADATA) - 6
    for distance in (0xFFFFFFFF, len(made) + 1, 15, 0):
        with pytest.raises(Malformed, match="SEV metadata would begin"):
            parse(made[:at] + struct.pack("<I", distance) + made[at + 4 :])


@given(st.data())
def test_whatever_is_changed_it_is_read_or_refused(data: st.DataObject) -> None:
    made = bytearray(image())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(len(made) - 1100, len(made) - 1))
        made[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Malformed):
        parse(bytes(made))
