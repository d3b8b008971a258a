"""The one error tree of everything outside the initrd, and the exit code each branch has.

    TinbootError                what was found, then what to do about it
    ├── Malformed       3       an input that cannot be read as what it should be
    ├── Mismatch        4       a hash, signature or endorsement that does not hold
    ├── Refused         5       well-formed and genuine, but against the policy or the schema's rules
    └── Unavailable     6       "cannot tell": a tool, a file, the network or space is missing

Exit code 0 is success, 1 a bug (a traceback), 2 wrong usage (click). "No" and "cannot tell" are
different answers: nothing may turn an `Unavailable` into a verdict.
"""

from __future__ import annotations


class TinbootError(Exception):
    """`message` says what was got and what was expected, with file and line; `hint` is the remedy."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Malformed(TinbootError):
    """Exit code 3."""

    exit_code = 3


class Mismatch(TinbootError):
    """Exit code 4."""

    exit_code = 4


class Refused(TinbootError):
    """Exit code 5."""

    exit_code = 5


class Unavailable(TinbootError):
    """Exit code 6."""

    exit_code = 6
