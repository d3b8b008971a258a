"""What a way to the PSP gives, and how it can fail. "There is none" and "it said no" are different errors.

EvidenceError
├── NoDevice       the kernel offers no such interface, or no PSP stands behind it
├── Busy           the host did not let the request through until the deadline
├── DeviceError    the PSP, the VMM or the kernel refused the request
└── BadAnswer      the answer is too large, too short, or not what was asked for
"""

from __future__ import annotations

from typing import NamedTuple


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


class DeviceError(EvidenceError):
    """The same request would be refused again."""


class BadAnswer(EvidenceError):
    """The device misbehaves: nothing that it says is used."""
