"""A check: one question with a name, put to one subject.

`run` returns None where the subject passes, `Unchecked` with the reason where nobody wants to know or the
means to tell were not given on purpose, and otherwise raises an error of tinboot/formats/errors.py. It never
returns a bool, which a caller could forget to look at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, NamedTuple, TypeVar

from tinboot.formats.errors import Malformed, Mismatch, Refused, TinbootError, Unavailable

Subject_contra = TypeVar("Subject_contra", contravariant=True)

#: What decides, when several fail: the most fundamental.
ORDER = (Malformed, Mismatch, Refused, Unavailable)


class Unchecked(NamedTuple):
    reason: str


class Check(Generic[Subject_contra]):
    """`row`: of the table of checks in docs/verify.md; None for signatures, which it takes for granted."""

    __slots__ = ("id", "meaning", "passed", "row", "run")

    def __init__(
        self, id: str, row: int | None, meaning: str, run: Callable[[Subject_contra], Unchecked | None]
    ) -> None:
        self.id = id
        self.row = row
        self.meaning = meaning
        self.run = run
        self.passed = Verdict(self, None)  # what nearly every check comes to, made once


class Verdict(NamedTuple):
    """What came of a check. `outcome` is None where it passed."""

    check: Check[Any]
    outcome: TinbootError | Unchecked | None

    @property
    def id(self) -> str:
        return self.check.id

    @property
    def row(self) -> int | None:
        return self.check.row

    @property
    def meaning(self) -> str:
        return self.check.meaning

    def fields(self) -> dict[str, object]:
        """What came of it, for JSON."""
        if self.outcome is None:
            return {"verdict": "pass"}
        if isinstance(self.outcome, Unchecked):
            return {"verdict": "unchecked", "detail": self.outcome.reason}
        error = self.outcome
        detail = {"detail": error.message, "hint": error.hint, "exit_code": error.exit_code}
        return {"verdict": "fail", **detail}


def ask(checks: Iterable[Check[Subject_contra]], subject: Subject_contra) -> tuple[Verdict, ...]:
    """Runs them all, whatever the earlier ones found."""
    verdicts = []
    for check in checks:
        outcome: TinbootError | Unchecked | None
        try:
            outcome = check.run(subject)
        except TinbootError as error:
            outcome = error
        verdicts.append(check.passed if outcome is None else Verdict(check, outcome))
    return tuple(verdicts)


def decisive(verdicts: Iterable[Verdict]) -> Verdict | None:
    """The failure that decides: the first of the most fundamental kind; None where nothing failed."""
    failed = [verdict for verdict in verdicts if verdict.outcome is not None]  # few, and some just unchecked
    for kind in ORDER if failed else ():
        for verdict in failed:
            if isinstance(verdict.outcome, kind):
                return verdict
    return None


def failure(verdict: Verdict | None) -> TinbootError | None:
    """Its error, the check's name in front."""
    if verdict is None or not isinstance(verdict.outcome, TinbootError):
        return None
    return named(verdict.id, verdict.outcome)


def unreached(checks: Iterable[Check[Any]], why: str) -> tuple[Verdict, ...]:
    """Of checks that could not be asked."""
    return tuple(Verdict(check, Unchecked(why)) for check in checks)


def require(verdicts: Iterable[Verdict]) -> None:
    """Raises the first failure, of its own class, with the check's name in front of the message."""
    for verdict in verdicts:
        if isinstance(verdict.outcome, TinbootError):
            raise named(verdict.id, verdict.outcome)


def named(check: str, error: TinbootError) -> TinbootError:
    """`error` with the check's name in front of its message."""
    return type(error)(f"{check}: {error.message}", error.hint)


def none_skipped(verdicts: Iterable[Verdict], may_be: frozenset[str]) -> None:
    """Of verdicts among which none failed: all but those in `may_be` were asked. A gap is a bug of ours."""
    for verdict in verdicts:
        if verdict.outcome is not None and verdict.id not in may_be:
            raise AssertionError(f"no check failed, and {verdict.id} was not asked")
