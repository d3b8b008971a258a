"""Signals that end the program as Ctrl-C does: everything unwinds, so that nothing is left behind."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(KeyboardInterrupt):
    """A signal asked the program to end; `signum` says which. Like Ctrl-C it unwinds everything."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


@contextmanager
def stoppable() -> Iterator[None]:
    """Turns SIGINT, SIGTERM and SIGHUP into `Stopped`, so that temporary files are cleaned up."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers, and only it receives them
        return

    def stop(signum: int, _frame: FrameType | None) -> None:
        raise Stopped(signum)

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [(s, signal.signal(s, stop)) for s in signals if signal.getsignal(s) is not signal.SIG_IGN]
    try:
        yield
    finally:
        for signum, handler in before:
            signal.signal(signum, handler)
