"""The console: one line at a time, and out of the UART before anything ends."""

from __future__ import annotations

import fcntl
import os
import signal

_STDOUT = 1
_TCSBRK = 0x5409  # include/uapi/asm-generic/ioctls.h; with a non-zero argument it is tcdrain(3)
_DRAIN_SECONDS = 5  # a full 4 KiB tty buffer at 9600 baud


def attach(path: str) -> None:
    """Makes the console at `path` this process's standard input, output and error."""
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
    for standard in (0, 1, 2):
        os.dup2(fd, standard)
    if fd > 2:
        os.close(fd)


def say(text: str) -> None:
    """Writes `text` as one line. A console that fails must not stop what the line tells of."""
    data = memoryview(text.encode("ascii", "backslashreplace") + b"\n")
    try:
        while data:
            data = data[os.write(_STDOUT, data) :]
    except OSError:
        return


def drain() -> None:
    """Waits, for at most a few seconds, until all that was said has left the machine."""

    def give_up(number: int, frame: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(_DRAIN_SECONDS)
    try:
        fcntl.ioctl(_STDOUT, _TCSBRK, 1)
    except OSError:  # TimeoutError too; or no terminal at all
        return
    finally:
        signal.alarm(0)
