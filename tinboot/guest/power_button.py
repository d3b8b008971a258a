"""Waits for the ACPI power button and asks systemd for an orderly power-off."""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
from pathlib import Path

from tinboot.guest.console import say

#: `struct input_event` on 64-bit Linux (include/uapi/linux/input.h): two longs of time, type, code, value.
EVENT = struct.Struct("=qqHHi")

EV_KEY, KEY_POWER, PRESSED = 1, 116, 1  # include/uapi/linux/input-event-codes.h

#: systemd(1), "Signals": SIGRTMIN+4 starts poweroff.target.
POWER_OFF = signal.SIGRTMIN + 4

INPUTS = Path("/dev/input")


def presses_power(data: bytes) -> bool:
    """True if a whole event in `data`, as read from an evdev node, is the power key going down."""
    whole = len(data) - len(data) % EVENT.size
    return any(event[2:] == (EV_KEY, KEY_POWER, PRESSED) for event in EVENT.iter_unpack(data[:whole]))


def ready() -> None:
    """Tells systemd that a press is heard from now on (sd_notify(3)); the status line waits for it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
        notify.connect(os.environ["NOTIFY_SOCKET"])
        notify.sendall(b"READY=1")


def main() -> None:
    """Returns after the first press; fails if there is no input device, and systemd says so."""
    nodes = sorted(INPUTS.glob("event*"))
    files = [os.open(node, os.O_RDONLY | os.O_CLOEXEC) for node in nodes]
    if not files:
        raise SystemExit(f"no input device in {INPUTS}: the power button cannot be heard")
    ready()
    while True:
        readable, _, _ = select.select(files, [], [])
        for file in readable:
            if presses_power(os.read(file, 64 * EVENT.size)):
                say("tinboot-power-off")
                os.kill(1, POWER_OFF)
                return


if __name__ == "__main__":
    main()
