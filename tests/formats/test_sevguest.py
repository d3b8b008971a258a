"""The ABI of /dev/sev-guest against Linux's own definitions, written out."""

from __future__ import annotations

import pytest

from tinboot.formats import sevguest


@pytest.mark.parametrize(
    ("number", "command"),
    [(0, sevguest.GET_REPORT), (1, sevguest.GET_DERIVED_KEY), (2, sevguest.GET_EXT_REPORT)],
)
def test_ioctl_numbers(number: int, command: int) -> None:
    """_IOWR('S', number, 32 bytes): include/uapi/asm-generic/ioctl.h."""
    assert command == 3 << 30 | 32 << 16 | ord("S") << 8 | number


def test_sizes() -> None:
    assert sevguest.CALL.size == 32
    assert sevguest.REPORT_REQUEST.size == 96
    assert sevguest.EXTENDED_REQUEST.size == 112
    assert sevguest.RESPONSE.size == 32
    assert sevguest.RESPONSE_BYTES == 4000


def test_exit_info() -> None:
    info = sevguest.exit_info(2 << 32 | 0x16)
    assert info == (0x16, sevguest.VMM_BUSY)
    assert str(info) == "firmware error 0x16, VMM error 0x2"
