"""Tells a firmware that refused from one that is slow: it burns CPU time and its registers stay the same.

A refusal of OVMF is CpuDeadLoop() (edk2, MdePkg/Library/BaseLib/CpuDeadLoop.c): a few instructions that test
a variable nobody sets. Samples are taken by the CPU time that QEMU used, not by the clock, so that a
guest that is not scheduled does not pass for one that stands still.
"""

from __future__ import annotations

import re
import time
from collections import Counter, deque

from machine import Machine
from serial_log import Event, Outcome

from tinboot.formats.errors import Unavailable

#: CPU seconds of QEMU from one sample to the next, samples that are looked at, and how many must be equal:
#: the timer's interrupt is served in the loop, too.
_STEP, _SAMPLES, _EQUAL = 0.1, 12, 10

#: The firmware and all it loads lie below; the kernel's own addresses are above.
_FIRMWARE_TOP = 1 << 36

_POLL_SECONDS = 0.1
_REGISTER = re.compile(r"\b(R[A-Z0-9]{1,2}) *=([0-9a-f]{16})\b")
_GENERAL = {"RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RBP", "RSP", "RIP", *(f"R{n}" for n in range(8, 16))}


def registers(printed: str) -> tuple[int, ...] | None:
    """The general registers in QEMU's `info registers`, RIP first; None for a CPU that is not in 64 bits.

    None, too, for one that is halted: it waits for an interrupt, which a dead loop does not.
    """
    found = {name: int(value, 16) for name, value in _REGISTER.findall(printed)}
    if "HLT=1" in printed or not found.keys() >= _GENERAL:
        return None
    return (found["RIP"], *(found[name] for name in sorted(_GENERAL - {"RIP"})))


class Samples:
    """The last registers seen; `stuck` is the place of the dead loop, if it is one."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, ...] | None] = deque(maxlen=_SAMPLES)

    def add(self, sample: tuple[int, ...] | None) -> None:
        self._seen.append(sample)

    @property
    def stuck(self) -> int | None:
        if len(self._seen) < _SAMPLES:
            return None
        [(sample, count)] = Counter(self._seen).most_common(1)
        if sample is None or count < _EQUAL or sample[0] >= _FIRMWARE_TOP:
            return None
        return sample[0]


def wait(machine: Machine, seconds: float, *, marker: str | None = None) -> Event:
    """As `machine.wait`; a firmware in its dead loop ends the wait, too, after about 1.2 s of CPU in it."""
    deadline = time.monotonic() + seconds
    samples, used = Samples(), machine.cpu_seconds()
    while True:
        left = deadline - time.monotonic()
        event = machine.wait(min(_POLL_SECONDS, max(0.0, left)), marker=marker)
        if event.outcome not in (Outcome.TIMED_OUT, Outcome.SILENT) or left <= 0:
            return event
        if machine.cpu_seconds() - used < _STEP:
            continue
        try:
            printed = machine.execute("human-monitor-command", {"command-line": "info registers"})
        except Unavailable:  # it has just ended: the wait above says so
            continue
        used = machine.cpu_seconds()
        samples.add(registers(str(printed)))
        if (place := samples.stuck) is not None:
            return machine.now(Outcome.DEAD_LOOP, f"at {place:#x}")
