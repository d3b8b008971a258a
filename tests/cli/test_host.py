"""`tinboot host check` as a person and as a program see it, on a machine that cannot run SNP guests."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tinboot.cli import host
from tinboot.host import check
from tinboot.host.machine import Finding, Machine, Status


@pytest.fixture(autouse=True)
def _empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        host, "observe", lambda memory, firmware, _: Machine(tmp_path, None, None, memory, firmware)
    )
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("FORCE_COLOR", raising=False)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(host.command, ["check", *arguments])


def test_table_fits_80_columns_and_names_every_check() -> None:
    result = run()
    assert result.exit_code == 5
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    names = [line.split()[0] for line in lines[1:-2] if not line.startswith(" ")]
    assert len(names) == len(check.CHECKS)
    assert re.fullmatch(r"0 ok, \d+ missing, \d+ cannot tell", lines[-1])
    assert "\x1b" not in result.stdout


def test_no_word_is_cut() -> None:
    words = set(run().stdout.split())
    for finding in check.run(Machine(Path("/nonexistent"), None, None, 16384)):
        assert set(finding.remedy.split()) | set(finding.found.split()) <= words


def test_json() -> None:
    result = run("--json")
    assert result.exit_code == 5
    records = json.loads(result.stdout)
    assert [set(record) for record in records] == [{"check", "status", "found", "remedy"}] * len(records)
    assert {record["status"] for record in records} == {"missing", "cannot tell"}


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ([Status.OK], 0),
        ([Status.OK, Status.UNKNOWN], 6),
        ([Status.UNKNOWN, Status.MISSING], 5),
    ],
)
def test_exit_code(monkeypatch: pytest.MonkeyPatch, statuses: list[Status], code: int) -> None:
    findings = [Finding(f"check-{at}", status, "found") for at, status in enumerate(statuses)]
    monkeypatch.setattr(check, "run", lambda _: findings)
    assert run().exit_code == code


def test_memory_is_bounded() -> None:
    assert run("--memory", "1").exit_code == 2
