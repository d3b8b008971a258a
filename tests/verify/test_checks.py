"""Checks: all of them are asked, and the first that fails is raised."""

from __future__ import annotations

import pytest

from tinboot.formats.errors import Malformed, Refused
from tinboot.verify.checks import Check, Unchecked, ask, named, require


def passes(_: str) -> None:
    """Nothing to say."""


def open_(subject: str) -> Unchecked:
    return Unchecked(f"{subject} is of no interest")


def refuses(subject: str) -> None:
    raise Refused(f"{subject} is refused", "take another")


def malformed(_: str) -> None:
    raise Malformed("offset 0x0: nothing there")


def crashes(_: str) -> None:
    raise ZeroDivisionError


CHECKS = (
    Check("passes", 1, "it passes", passes),
    Check("open", 2, "nobody asks", open_),
    Check("refuses", 3, "it refuses", refuses),
    Check("malformed", None, "it cannot be read", malformed),
)


def test_all_are_asked() -> None:
    verdicts = ask(CHECKS, "x")
    assert [(verdict.id, verdict.row) for verdict in verdicts] == [(check.id, check.row) for check in CHECKS]
    passed, unchecked, refused, broken = (verdict.outcome for verdict in verdicts)
    assert passed is None
    assert unchecked == Unchecked("x is of no interest")
    assert isinstance(refused, Refused)
    assert isinstance(broken, Malformed)


def test_the_first_failure_is_raised_by_its_name_and_class() -> None:
    with pytest.raises(Refused, match=r"^refuses: x is refused$") as raised:
        require(ask(CHECKS, "x"))
    assert raised.value.hint == "take another"
    require(ask(CHECKS[:2], "x"))
    assert isinstance(named("a", Malformed("b")), Malformed)


def test_a_bug_is_no_verdict() -> None:
    with pytest.raises(ZeroDivisionError):
        ask((Check("crashes", 1, "", crashes),), "x")
