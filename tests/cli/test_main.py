"""`tinboot` itself: its commands, and what becomes of errors and signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tinboot.builder.stopping import Stopped
from tinboot.cli import main
from tinboot.formats import errors


def tinboot(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from tinboot.cli.main import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_has_its_help(name: str) -> None:
    result = CliRunner().invoke(main.cli, [name, "--help"])
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: cli {name}")


def test_help_lists_them_in_the_order_of_the_line() -> None:
    result = CliRunner().invoke(main.cli, ["--help"])
    listed = [line.split()[0] for line in result.output.split("Commands:")[1].splitlines() if line.strip()]
    assert listed == list(main.COMMANDS)


def test_help_loads_no_command() -> None:
    code = (
        "import sys\nfrom tinboot.cli.main import cli\n"
        "try:\n    cli(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([name for name in sys.modules if name.startswith('tinboot.cli.')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['tinboot.cli.main']"


@pytest.mark.parametrize("arguments", [["nothing"], ["build"], ["build", "a", "b"], ["build", "--what"]])
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    done = tinboot(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: ")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """A command `setup` that raises what the list holds."""
    raised: list[BaseException] = []

    @click.command()
    def command() -> None:
        raise raised[0]

    monkeypatch.setattr("tinboot.cli.setup.command", command)
    monkeypatch.setattr(sys, "argv", ["tinboot", "setup"])
    return raised


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.Malformed("what", "do"), 3),
        (errors.Mismatch("what", "do"), 4),
        (errors.Refused("what", "do"), 5),
        (errors.Unavailable("what", "do"), 6),
    ],
)
def test_errors_have_a_line_a_hint_and_a_code(
    failing: list[BaseException], error: errors.TinbootError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    failing.append(error)
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == code
    assert capsys.readouterr() == ("", "error: what\nhint: do\n")


def test_without_a_hint_there_is_one_line(
    failing: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    failing.append(errors.Refused("what"))
    with pytest.raises(SystemExit):
        main.main()
    assert capsys.readouterr().err == "error: what\n"


def test_a_bug_is_a_traceback(failing: list[BaseException]) -> None:
    failing.append(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        main.main()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_one_line(
    failing: list[BaseException], signum: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    failing.append(Stopped(signum))
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == 128 + signum
    assert capsys.readouterr() == ("", f"stopped by {signum.name}; nothing was left behind\n")


def test_a_real_signal_reaches_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    @click.command()
    def command() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            (tmp_path / "cleaned").touch()

    monkeypatch.setattr("tinboot.cli.setup.command", command)
    result = CliRunner().invoke(main.cli, ["setup"])
    assert result.exit_code == 128 + signal.SIGTERM
    assert (tmp_path / "cleaned").exists()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
