"""Progress of long work on standard error: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status

#: Seconds between plain lines of one counter: a CI log should show life and stay readable.
_EVERY = 10.0


class Progress:
    """`step` begins something, `note` tells what it does now, `count` how far it is."""

    def __init__(self, console: Console, status: Status | None) -> None:
        self._console = console
        self._status = status
        self._step = ""
        self._began = time.monotonic()
        self._said = 0.0

    def step(self, text: str) -> None:
        """Begins a step; the one before is finished and its duration shown."""
        self.finish()
        self._step, self._began, self._said = text, time.monotonic(), 0.0
        if self._status is None:
            self._print(f"{text} …")
        else:
            self._status.update(text)

    def note(self, text: str) -> None:
        """What happens now, cut to one line; off a terminal nothing, the log has it."""
        if self._status is not None:
            room = max(20, self._console.width - len(self._step) - 6)
            self._status.update(f"{self._step}: {text[:room]}")

    def count(self, what: str, done: int, total: int) -> None:
        """How many of `total` there are now."""
        if self._status is not None:
            self._status.update(f"{self._step}: {what} {done}/{total}")
        elif done < total and time.monotonic() - self._said > _EVERY:
            self._said = time.monotonic()
            self._print(f"  {what} {done}/{total}")

    def finish(self) -> None:
        """Ends the step, with its duration if anyone waited for it."""
        seconds = time.monotonic() - self._began
        if self._step and seconds >= 1:
            self._print(f"{self._step}: {seconds:.0f} s")
        self._step = ""

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress() -> Iterator[Progress]:
    """For the length of one command."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("") as status:
            shown = Progress(console, status)
            yield shown
            shown.finish()
    else:
        shown = Progress(console, None)
        yield shown
        shown.finish()
