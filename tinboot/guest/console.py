"""The guest's words on the console, and the last of them."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from typing import NoReturn

from tinboot.formats.halt import Halt
from tinboot.formats.halt import line as halt_line

_TCSBRK = 0x5409  # include/uapi/asm-generic/ioctls.h; with 1 it waits until all is sent, as tcdrain(3)

#: systemd(1), "Signals": SIGRTMIN+14 switches the machine off at once, without stopping anything.
_POWER_OFF_NOW = signal.SIGRTMIN + 14

_GRACE = 30.0  # seconds until a machine that should be off is left to the unit's FailureAction=


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
    """Says why, and has PID 1 switch the machine off. Never returns: the unit must not become active."""
    try:
        say(halt_line(ended), drain=True)
    finally:
        os.kill(1, _POWER_OFF_NOW)
        time.sleep(_GRACE)
        raise SystemExit(1)
