"""What a guest says on its serial line, as lines and as the few events that decide a boot. Pure.

    tinboot-up {json}      the root is up: the hand-over took place
    tinboot-halt {json}    a hook refused (tinboot/formats/halt.py)
    Kernel panic - …       the kernel gave up

The first two count only at the start of a line, so that no text quoted in a refusal can pass for one.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum

import tinboot.formats.halt

UP_PREFIX = "tinboot-up "
PANIC = "Kernel panic - not syncing: "

_LINE_LIMIT = 1 << 16  # bytes; a longer line is cut there
_ESCAPES = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[()][0-9A-B]|\x1b[=>c78M]")  # ECMA-48 and VT100
_CONTROL = bytes(code for code in (*range(32), 127) if code != 9)  # all but the tabulator
_PRINTK_TIME = re.compile(r"\[ *\d+\.\d+\] ")


class Outcome(Enum):
    """How a wait, and a boot, ends."""

    UP = "handed over"
    HALTED = "halted"
    PANICKED = "panicked"
    MARKER = "reached the marker"
    ENDED = "QEMU ended and the guest had said nothing decisive"
    GARBLED = "printed a tinboot line that cannot be read"
    FLOODED = "printed more than the log's bound"
    TIMED_OUT = "printed nothing decisive by the deadline"
    SILENT = "printed nothing at all by the deadline"
    DEAD_LOOP = "was stopped by its firmware"


@dataclass(frozen=True, slots=True)
class Event:
    """One decisive line. `up` is set for UP, `halt` for HALTED; `text` is the line or what is wrong with it.

    `seconds` since QEMU's start and `cpu_seconds` that QEMU had used, when the line was complete.
    """

    outcome: Outcome
    text: str
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    up: dict[str, object] | None = None
    halt: tinboot.formats.halt.Halt | None = None


class Lines:
    """Assembles lines from the bytes as they come. `partial` is the unfinished line, cleaned."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[str]:
        """The lines that `chunk` completes, without escapes and line ends."""
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        while len(self._rest) > _LINE_LIMIT:
            whole.append(self._rest[:_LINE_LIMIT])
            self._rest = self._rest[_LINE_LIMIT:]
        return [clean(line) for line in whole]

    @property
    def partial(self) -> str:
        return clean(self._rest)


def clean(line: bytes) -> str:
    """Text of one line: terminal escapes and control characters removed, bad UTF-8 replaced."""
    return _ESCAPES.sub(b"", line).translate(None, _CONTROL).decode(errors="replace")


def read_event(line: str) -> Event | None:
    """The event that `line` is, or None. Times are left at 0."""
    said = _PRINTK_TIME.sub("", line, count=1) if line.startswith("[") else line
    if said.startswith(tinboot.formats.halt.PREFIX):
        try:
            return Event(Outcome.HALTED, said, halt=tinboot.formats.halt.parse(said.rstrip()))
        except (ValueError, TypeError) as error:
            return Event(Outcome.GARBLED, f"{said[:500]} ({error})")
    if said.startswith(UP_PREFIX):
        try:
            fields = json.loads(said.removeprefix(UP_PREFIX))
        except ValueError as error:
            return Event(Outcome.GARBLED, f"{said[:500]} ({error})")
        if not isinstance(fields, dict):
            return Event(Outcome.GARBLED, f"{said[:500]} (expected an object)")
        return Event(Outcome.UP, said, up=fields)
    if PANIC in said:
        return Event(Outcome.PANICKED, said.partition(PANIC)[2].strip())
    return None
