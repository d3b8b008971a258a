"""The README's words are the program's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from tinboot.cli.main import COMMANDS, cli
from tinboot.formats.halt import REASONS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def test_help_is_the_programs() -> None:
    shown = CliRunner().invoke(cli, ["--help"], prog_name="tinboot", terminal_width=80, max_content_width=80)
    assert shown.exit_code == 0
    assert f"```text\n{shown.stdout.rstrip()}\n```" in README


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_that_fits(name: str) -> None:
    shown = CliRunner().invoke(cli, [name, "--help"], prog_name="tinboot", terminal_width=80)
    assert shown.exit_code == 0, shown.output
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(targets) > 10
    assert [t for t in targets if not (ROOT / t).exists()] == []


def test_the_halt_line_shown_could_be_real() -> None:
    assert set(re.findall(r'"reason":"([a-z-]+)"', README)) <= set(REASONS)


def test_folders_of_the_table_exist() -> None:
    table = README[README.index("| folder |") : README.index("enforces who may import")]
    folders = re.findall(r"`([a-z-]+/(?:[a-z]+/)?)`", table)
    assert len(folders) >= 9
    assert [f for f in folders if not (ROOT / f).is_dir()] == []
