"""The guest's words on the console, and the last of them."""

from __future__ import annotations

import ctypes
import fcntl
import os
from typing import NoReturn

from tinboot.formats.halt import Halt
from tinboot.formats.halt import line as halt_line

_TCSBRK = 0x5409  # include/uapi/asm-generic/ioctls.h; with 1 it waits until all is sent, as tcdrain(3)
_POWER_OFF = 0x4321FEDC  # include/uapi/linux/reboot.h


def say(line: str, *, drain: bool = False) -> None:
    """One line on the console; `drain` waits until it has left the machine.

    It begins with a line feed: systemd resets the terminal at its start, in the middle of a line. The console
    does not become anybody's terminal by it.
    """
    console = os.open("/dev/console", os.O_WRONLY | os.O_NOCTTY)
    try:
        data = memoryview(b"\n" + line.encode() + b"\n")
        while data:
            data = data[os.write(console, data) :]
        if drain:
            fcntl.ioctl(console, _TCSBRK, 1)
    finally:
        os.close(console)


def halt(ended: Halt) -> NoReturn:
    """Says why and switches the machine off, at once: nothing in it has anything to save.

    Returns by neither way: where the kernel does not switch off the unit fails, and PID 1 tries.
    """
    try:
        say(halt_line(ended), drain=True)
    finally:
        ctypes.CDLL(None).reboot(ctypes.c_int(_POWER_OFF))
        raise SystemExit(1)
