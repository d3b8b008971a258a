"""Attestation reports: where each field lies, and what is not one."""

from __future__ import annotations

import contextlib
import struct

import pytest
import stub_chain
import stub_report
from hypothesis import given, settings
from hypothesis import strategies as st
from stub_report import Contents

from tinboot.formats import snpreport
from tinboot.formats.errors import Malformed
from tinboot.formats.snpreport import SIGNED, SIZE, VERSIONS, Cpuid, FirmwareVersion, parse, reserved

KEY = stub_chain.chip_key()
REPORT = stub_report.sign(Contents().pack(), KEY)


def numbered(version: int) -> bytes:
    """A report in which each byte tells where it stands."""
    return version.to_bytes(4, "little") + bytes(at * 7 % 251 + 1 for at in range(4, SIZE))


@pytest.mark.parametrize("version", VERSIONS)
def test_each_field_lies_where_the_table_says(version: int) -> None:
    """Offsets and sizes of 56860, table 23, once more and apart from the code's own layout."""
    raw = numbered(version)
    found = parse(raw)

    def number(at: int, size: int) -> int:
        return int.from_bytes(raw[at : at + size], "little")

    numbers = {"version": (0, 4), "guest_svn": (4, 4), "policy": (8, 8), "vmpl": (0x30, 4)}
    numbers |= {"signature_algorithm": (0x34, 4), "platform_info": (0x40, 8), "key_info": (0x48, 4)}
    numbers |= {"signature_r": (0x2A0, 72), "signature_s": (0x2E8, 72)}
    if version >= 5:
        numbers |= {"launch_mitigations": (0x1F8, 8), "current_mitigations": (0x200, 8)}
    else:
        assert found.launch_mitigations is None
        assert found.current_mitigations is None
    for name, (at, size) in numbers.items():
        assert getattr(found, name) == number(at, size), name
    strings = {"family_id": (0x10, 16), "image_id": (0x20, 16), "current_tcb": (0x38, 8)}
    strings |= {"report_data": (0x50, 64), "measurement": (0x90, 48), "host_data": (0xC0, 32)}
    strings |= {"id_key_digest": (0xE0, 48), "author_key_digest": (0x110, 48), "report_id": (0x140, 32)}
    strings |= {"report_id_ma": (0x160, 32), "reported_tcb": (0x180, 8), "chip_id": (0x1A0, 64)}
    strings |= {"committed_tcb": (0x1E0, 8), "launch_tcb": (0x1F0, 8), "raw": (0, SIZE)}
    for name, (at, size) in strings.items():
        assert getattr(found, name) == raw[at : at + size], name
    assert found.cpuid == (Cpuid(raw[0x188], raw[0x189], raw[0x18A]) if version >= 3 else None)
    assert found.current_version == FirmwareVersion(raw[0x1EA], raw[0x1E9], raw[0x1E8])
    assert found.committed_version == FirmwareVersion(raw[0x1EE], raw[0x1ED], raw[0x1EC])
    assert found.signed == raw[:SIGNED]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_byte_is_a_field_or_reserved(version: int) -> None:
    """A change of a signed byte shows in exactly one field, or the byte is reserved."""
    raw = numbered(version)
    before = parse(raw)
    free = {at for part in reserved(version) for at in part}
    for at in range(4, SIGNED):
        after = parse(raw[:at] + b"\0" + raw[at + 1 :])
        changed = [name for name in before._fields if getattr(before, name) != getattr(after, name)]
        assert (changed == ["raw"]) == (at in free), hex(at)
        assert len(changed) == (1 if at in free else 2), hex(at)


@pytest.mark.parametrize("size", [0, 1, SIZE - 1, SIZE + 1, SIZE + 32, 2 * SIZE, 4000])
def test_another_length(size: int) -> None:
    with pytest.raises(Malformed, match=f"has {size} bytes, expected 1184"):
        parse(REPORT.ljust(size, b"\0")[:size])


@pytest.mark.parametrize("version", [0, 1, 4, 6, 2 << 8, 0xFFFFFFFF])
def test_another_version(version: int) -> None:
    with pytest.raises(
        Malformed, match=f"offset 0x0: version {version} of the report, expected one of 2, 3, 5"
    ):
        parse(struct.pack("<I", version) + REPORT[4:])


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=2 * SIZE))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(Malformed):
        assert parse(data).raw == data


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(VERSIONS), st.binary(min_size=SIZE - 4, max_size=SIZE - 4))
def test_any_content_of_a_known_version_is_read(version: int, rest: bytes) -> None:
    found = parse(version.to_bytes(4, "little") + rest)
    assert found.version == version
    assert found.raw[4:] == rest


def test_text() -> None:
    assert str(Cpuid(0x19, 0x11, 1)) == "family 0x19 model 0x11 stepping 1"
    assert str(FirmwareVersion(1, 55, 29)) == "1.55.29"
    assert snpreport.FirmwareVersion(1, 55, 29) < FirmwareVersion(1, 58, 1)
