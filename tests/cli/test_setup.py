"""`tinboot setup`: its steps in order, one line each, and the end at the first that fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from tinboot.builder import namespaces
from tinboot.cli import setup
from tinboot.cli.progress import Progress
from tinboot.formats.errors import Unavailable


def test_prints_a_line_a_step_on_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(shown: Progress, distribution: str) -> str:
        return f"made for {distribution}"

    monkeypatch.setattr(setup, "STEPS", {"first": step, "second": step})
    result = CliRunner().invoke(setup.command, ["--distribution", "ubuntu"])
    assert result.exit_code == 0
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if "made" in line]
    assert lines == ["setup: first: made for ubuntu", "setup: second: made for ubuntu"]


def test_ends_at_the_first_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def failing(shown: Progress, distribution: str) -> str:
        ran.append(distribution)
        raise Unavailable("no such thing", "get one")

    monkeypatch.setattr(setup, "STEPS", {"first": failing, "second": failing})
    result = CliRunner().invoke(setup.command, ["--distribution", "debian"])
    assert isinstance(result.exception, Unavailable)
    assert ran == ["debian"]


def test_an_old_qemu_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "qemu"
    program.write_text("#!/bin/sh\necho 'QEMU emulator version 6.2.0 (Debian)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("TINBOOT_QEMU", str(program))
    monkeypatch.setattr(setup, "STEPS", {"QEMU": setup.check_qemu})
    result = CliRunner().invoke(setup.command, ["--distribution", "debian"])
    assert isinstance(result.exception, Unavailable)
    assert "6.2" in result.exception.message


@pytest.mark.parametrize(("user", "remedy"), [(0, "CAP_SYS_ADMIN"), (1000, "run as root")])
def test_forbidden_namespaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int, remedy: str
) -> None:
    program = tmp_path / "unshare"
    program.write_text("#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: user)
    with pytest.raises(Unavailable, match="Operation not permitted") as refused:
        namespaces.check()
    assert remedy in refused.value.hint
