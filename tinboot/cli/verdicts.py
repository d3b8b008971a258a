"""Prints what checks came to: what failed first, then what nobody looked at, then what passed; 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

import click

from tinboot.formats.errors import TinbootError
from tinboot.verify.checks import Unchecked, Verdict

WIDTH = 80
INDENT = " " * 7

_MARKS = {"fail": ("FAIL", "red"), "unchecked": ("open", "yellow"), "pass": ("ok", "green")}


def show(verdicts: Iterable[Verdict]) -> None:
    by_kind: dict[str, list[Verdict]] = {"fail": [], "unchecked": [], "pass": []}
    for verdict in verdicts:
        outcome = verdict.outcome
        kind = "pass" if outcome is None else "unchecked" if isinstance(outcome, Unchecked) else "fail"
        by_kind[kind].append(verdict)
    for verdict in by_kind["fail"]:
        _item("fail", f"{verdict.id}: {verdict.outcome}")
        if isinstance(verdict.outcome, TinbootError) and verdict.outcome.hint:
            click.echo(wrapped(INDENT + verdict.outcome.hint))
    for verdict in by_kind["unchecked"]:
        if isinstance(verdict.outcome, Unchecked):
            _item("unchecked", f"{verdict.id}: {verdict.outcome.reason}")
    if by_kind["pass"]:
        _item("pass", ", ".join(verdict.id for verdict in by_kind["pass"]))


def wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent=INDENT, break_on_hyphens=False)


def _item(kind: str, text: str) -> None:
    mark, colour = _MARKS[kind]
    lines = wrapped(f"{mark:5}{text}")
    click.echo(click.style(lines[:5], fg=colour, bold=kind == "fail") + lines[5:])
