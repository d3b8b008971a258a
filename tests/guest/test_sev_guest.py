"""/dev/sev-guest: what goes into the call, and each way in which it may come back.

The call gets addresses, as the kernel does; offsets are written out here, not taken from the code under test.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tinboot.guest import sev_guest
from tinboot.guest.evidence import BadAnswer, Busy, DeviceError, Evidence, NoDevice, Patience

DATA = bytes(range(64))
REPORT = bytes(n % 251 for n in range(1184))
TABLE = b"\x01" * 3000

#: Changes a request, or raises; gets what the call holds: addresses of request and response.
Kernel = Callable[["Call"], None]


class Call:
    """One ioctl as the kernel sees it."""

    def __init__(self, buffer: bytearray) -> None:
        self._buffer = buffer
        self.version, self.request, self.response, self.exit = struct.unpack("<B7xQQQ", buffer)
        raw = ctypes.string_at(self.request, 112)
        self.user_data, self.vmpl = raw[:64], struct.unpack_from("<I", raw, 64)[0]
        self.reserved = raw[68:96] + raw[108:]
        self.certificates, self.length = struct.unpack_from("<QI", raw, 96)

    def give(self, report: bytes = REPORT, table: bytes = b"", status: int = 0, size: int = 1184) -> None:
        answer = struct.pack("<II24x", status, size) + report
        ctypes.memmove(self.response, answer, len(answer))
        ctypes.memmove(self.certificates, table, len(table))
        self.leave(0)

    def leave(self, exit_info: int) -> None:
        struct.pack_into("<Q", self._buffer, 24, exit_info)

    def want(self, length: int) -> None:
        ctypes.memmove(self.request + 104, struct.pack("<I", length), 4)

    def fail(self, number: int, exit_info: int = 0xFF) -> None:
        self.leave(exit_info)
        raise OSError(number, os.strerror(number))


class Device:
    """A device that goes through `answers`, and stays with the last."""

    def __init__(self, folder: Path, *answers: Kernel) -> None:
        self.node = folder / "sev-guest"
        self.node.touch()
        self.answers = list(answers)
        self.calls: list[Call] = []

    def ioctl(self, file: int, request: int, buffer: bytearray) -> int:
        assert os.fstat(file).st_ino == self.node.stat().st_ino
        assert request == 0xC0205302
        self.calls.append(Call(buffer))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        answer(self.calls[-1])
        return 0

    def collect(self) -> Evidence:
        now = [0.0]

        def sleep(seconds: float) -> None:
            now[0] += seconds

        return sev_guest.collect(DATA, Patience(15, lambda: now[0], sleep), str(self.node), self.ioctl)


def test_what_is_asked_and_given(tmp_path: Path) -> None:
    device = Device(tmp_path, lambda call: call.give(table=TABLE))
    assert device.collect() == Evidence("sev-guest", REPORT, TABLE + bytes(1096))
    (call,) = device.calls
    assert (call.version, call.user_data, call.vmpl, call.length, call.exit) == (1, DATA, 0, 4096, 0xFF)
    assert not any(call.reserved)


def test_no_certificates(tmp_path: Path) -> None:
    """QEMU without any leaves 24 zero bytes: a terminator."""
    assert Device(tmp_path, lambda call: call.give()).collect().certificates == b""


def too_small(length: int) -> Kernel:
    def answer(call: Call) -> None:
        call.want(length)
        call.fail(errno.EIO, 1 << 32)

    return answer


def test_a_buffer_that_is_too_small(tmp_path: Path) -> None:
    device = Device(
        tmp_path, too_small(8192), too_small(16384), lambda call: call.give(table=bytes(9999) + b"x")
    )
    assert len(device.collect().certificates) == 16384
    assert [call.length for call in device.calls] == [4096, 8192, 16384]


@pytest.mark.parametrize("length", [0, 4096, 5000, 20480, 0xFFFFF000])
def test_a_length_that_cannot_be(tmp_path: Path, length: int) -> None:
    device = Device(tmp_path, too_small(length))
    with pytest.raises(BadAnswer, match=f"certificates take {length} bytes and do not fit in 4096"):
        device.collect()
    assert len(device.calls) == 1


BUSY: dict[str, Kernel] = {
    "VMM": lambda call: call.fail(errno.EIO, 2 << 32),
    "EAGAIN": lambda call: call.fail(errno.EAGAIN),
    "EBUSY": lambda call: call.fail(errno.EBUSY),
    "EINTR": lambda call: call.fail(errno.EINTR),
    "ETIMEDOUT": lambda call: call.fail(errno.ETIMEDOUT),
}


@pytest.mark.parametrize("kind", BUSY)
def test_busy_for_a_while(tmp_path: Path, kind: str) -> None:
    device = Device(tmp_path, BUSY[kind], BUSY[kind], lambda call: call.give())
    assert device.collect().report == REPORT
    assert len(device.calls) == 3


@pytest.mark.parametrize("kind", BUSY)
def test_busy_for_ever(tmp_path: Path, kind: str) -> None:
    device = Device(tmp_path, BUSY[kind])
    with pytest.raises(Busy, match="until the deadline"):
        device.collect()
    assert len(device.calls) < 15


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda call: call.fail(errno.EIO, 0x16), "firmware error 0x16, VMM error 0x0"),
        (lambda call: call.fail(errno.EIO, 7 << 32), "firmware error 0x0, VMM error 0x7"),
        (lambda call: call.fail(errno.ENOTTY), "Inappropriate ioctl"),
        (lambda call: call.fail(errno.EFAULT), "Bad address"),
        (lambda call: call.give(status=0x16), "status 0x16"),
    ],
    ids=["PSP", "VMM", "no key", "EFAULT", "status"],
)
def test_refused(tmp_path: Path, answer: Kernel, message: str) -> None:
    device = Device(tmp_path, answer)
    with pytest.raises(DeviceError, match=message):
        device.collect()
    assert len(device.calls) == 1


@pytest.mark.parametrize("size", [0, 1183, 1185, 0xFFFFFFFF])
def test_a_report_of_another_size(tmp_path: Path, size: int) -> None:
    with pytest.raises(BadAnswer, match=f"{size} bytes, expected 1184"):
        Device(tmp_path, lambda call: call.give(size=size)).collect()


def test_no_device(tmp_path: Path) -> None:
    with pytest.raises(NoDevice, match="sev-guest: No such file"):
        sev_guest.collect(DATA, Patience(), str(tmp_path / "sev-guest"))


def test_a_device_that_does_not_open(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="Is a directory"):
        sev_guest.collect(DATA, Patience(), str(tmp_path))


@pytest.mark.parametrize("length", [0, 63, 65])
def test_other_lengths_are_the_callers_fault(tmp_path: Path, length: int) -> None:
    with pytest.raises(ValueError, match="64 bytes"):
        sev_guest.collect(bytes(length), Patience(), str(tmp_path))
