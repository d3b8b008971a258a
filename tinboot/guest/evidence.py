"""What a way to the PSP gives, and how it can fail. "There is none" and "it said no" are different errors.

EvidenceError
├── NoDevice       the kernel offers no such interface, or no PSP stands behind it
├── Busy           the host put the guest off until the deadline
├── NoAnswer       a call did not come back until the deadline
├── DeviceError    the PSP, the VMM or the kernel refused the request
└── BadAnswer      the answer is too large, too short, or not what was asked for
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

#: Seconds for which a host may put the guest off: AMD's firmware takes a few milliseconds for a report, and
#: hosts throttle guests to one in a second or two.
SECONDS = 15.0

_PAUSE, _LONGEST = 0.2, 2.0


class Evidence(NamedTuple):
    """`provider`: which interface gave it. `certificates`: the host's table, empty where it gives none."""

    provider: str
    report: bytes
    certificates: bytes


class EvidenceError(Exception):
    """The message says what happened, for a log line."""


class NoDevice(EvidenceError):
    """Try another interface."""


class Busy(EvidenceError):
    """Try later."""


class NoAnswer(EvidenceError):
    """Nothing is known: the device may have done it."""


class DeviceError(EvidenceError):
    """The same request would be refused again."""


class BadAnswer(EvidenceError):
    """The device misbehaves: nothing that it says is used."""


class Patience:
    """With a device that puts one off: ever longer pauses, and none that would end behind the deadline."""

    def __init__(
        self,
        seconds: float = SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._deadline = clock() + seconds
        self._pause = _PAUSE

    def wait(self, why: str) -> None:
        """Pauses; raises `Busy`, which says `why`, where no time is left."""
        if self._clock() + self._pause > self._deadline:
            raise Busy(f"{why}, and so it was until the deadline")
        self._sleep(self._pause)
        self._pause = min(2 * self._pause, _LONGEST)
