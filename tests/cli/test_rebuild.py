"""`tinboot rebuild`: what it prints, and exit code 4 with the first difference."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tinboot.builder import prepare, rebuild
from tinboot.builder.mkosi import Mkosi
from tinboot.cli import rebuild as command
from tinboot.formats.errors import Mismatch, Unavailable


@pytest.fixture
def builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two image folders that the command takes for its builds."""
    folders = tmp_path / "one", tmp_path / "other"
    for folder in folders:
        folder.mkdir()
        (folder / "kernel").write_bytes(b"kernel")

    def twice(*_: object) -> Iterator[rebuild.Built]:
        for folder, mask in zip(folders, ("022", "077"), strict=True):
            yield rebuild.Built(folder, {"umask": mask})

    chain = prepare.Toolchain(Mkosi(("false",), {}, "27.1", ""), tmp_path, tmp_path, tmp_path)
    monkeypatch.setattr(prepare, "toolchain", lambda *_: chain)
    monkeypatch.setattr(rebuild, "twice", twice)
    return folders


def test_the_same(builds: tuple[Path, Path]) -> None:
    result = CliRunner().invoke(command.command, ["--distribution", "debian"])
    assert result.exit_code == 0, result.output
    conditions, artefact, end = result.stdout.splitlines()
    assert conditions.split() == ["umask", "022", "077"]
    assert artefact == f"{hashlib.sha256(b'kernel').hexdigest()}  kernel"
    assert end == "two builds, the same bytes"


def test_a_difference(builds: tuple[Path, Path]) -> None:
    (builds[1] / "kernel").write_bytes(b"kerNel")
    result = CliRunner().invoke(command.command, ["--distribution", "debian"])
    assert isinstance(result.exception, Mismatch)
    assert result.exception.message == "the builds differ: kernel differs from byte 3 on"
    assert "same bytes" not in result.output
    assert "077" in result.stdout


def test_without_a_lock(builds: tuple[Path, Path]) -> None:
    result = CliRunner().invoke(command.command, ["--distribution", "ubuntu"])
    assert isinstance(result.exception, Unavailable)
    assert "tinboot lock --distribution ubuntu" in result.exception.hint
