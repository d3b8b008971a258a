"""docs/verify.md is held to the code: every check, every field of a policy, every option."""

from __future__ import annotations

import re
from pathlib import Path

from tinboot.cli import verify
from tinboot.verify import binding, chain, platform
from tinboot.verify.policy import Policy

PAGE = (Path(__file__).parents[2] / "docs/verify.md").read_text("utf-8")

REGISTRY = (
    *((check.id, check.row, check.meaning) for check in chain.CHECKS),
    *((check.id, check.row, check.meaning) for check in binding.CHECKS),
    *((check.id, check.row, check.meaning) for check in platform.CHECKS),
)


def test_every_check_stands_there_with_row_and_meaning() -> None:
    table = PAGE.partition("| check | row | what it asks |")[2]
    shown = re.findall(r"^\| `([a-z0-9-]+)` \| ([0-9]+|-) \| (.+) \|$", table, re.MULTILINE)
    expected = [(name, "-" if row is None else str(row), meaning) for name, row, meaning in REGISTRY]
    assert shown == expected


def test_every_row_has_a_check_and_every_check_a_name_of_its_own() -> None:
    assert {row for _, row, _ in REGISTRY if row is not None} == set(range(1, 37))
    assert len({name for name, _, _ in REGISTRY}) == len(REGISTRY)


def test_every_field_of_a_policy_is_explained() -> None:
    section = PAGE.partition("## Policies")[2].partition("## Floors")[0]
    named = set(re.findall(r"`([a-z_]+)`", section))
    assert set(Policy._fields) - {"name", "date", "changed"} <= named


def test_every_option_is_one_of_the_command() -> None:
    named = set(re.findall(r"--[a-z][a-z-]*", PAGE))
    options = {option for param in verify.report.params for option in param.opts}
    assert named <= options
