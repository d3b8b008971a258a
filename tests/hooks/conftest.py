from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakeguest import Guest

#: What the runner and 90-handover set in their own process.
CHANGED = (signal.SIGINT, signal.SIGALRM, signal.SIGPIPE, signal.SIGXFSZ)


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path)


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """The hand-over resets signals for whatever it executes; here that would be the test runner itself."""
    before = {number: signal.getsignal(number) for number in CHANGED}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
