"""Progress: plain lines off a terminal, on standard error; none of it on standard output."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tinboot.cli import progress
from tinboot.cli.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("tinboot.cli.progress.time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def shown() -> tuple[Progress, io.StringIO]:
    text = io.StringIO()
    return Progress(Console(file=text, width=60), None), text


Shown = tuple[Progress, io.StringIO]


def test_steps_and_their_time(clock: list[float], shown: Shown) -> None:
    lines, text = shown
    lines.step("Fetching")
    clock[0] += 0.4
    lines.step("Building [bold]")  # no markup: names of a user stand in it
    clock[0] += 12
    lines.finish()
    lines.finish()
    assert text.getvalue().splitlines() == ["Fetching …", "Building [bold] …", "Building [bold]: 12 s"]


def test_notes_are_for_terminals(clock: list[float], shown: Shown) -> None:
    lines, text = shown
    lines.note("what mkosi does")
    assert text.getvalue() == ""


def test_counts_come_now_and_then(clock: list[float], shown: Shown) -> None:
    lines, text = shown
    lines.step("Fetching")
    for done in range(50):
        lines.count("debian", done, 50)
        clock[0] += 1
    lines.count("debian", 50, 50)
    said = text.getvalue().splitlines()
    assert said[:3] == ["Fetching …", "  debian 0/50", "  debian 11/50"]
    assert len(said) == 6


def test_long_lines_are_not_broken(clock: list[float], shown: Shown) -> None:
    lines, text = shown
    lines.step("x" * 200)
    assert text.getvalue() == "x" * 200 + " …\n"


def test_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress() as lines:
        lines.step("Fetching")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "Fetching …\n")


def test_on_a_terminal_notes_are_cut_to_the_line() -> None:
    text = io.StringIO()
    console = Console(file=text, width=40, force_terminal=True, color_system=None)
    with console.status("") as status:
        lines = Progress(console, status)
        lines.step("Building")
        lines.note("n" * 100)
        assert status.status == "Building: " + "n" * 26
        lines.count("debian", 3, 50)
        assert status.status == "Building: debian 3/50"
