"""`tinboot rebuild`: what it prints, and exit code 4 with the first difference."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_reference import write

from tinboot.builder import gpu_reference, prepare, rebuild, recipe
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

    def twice(wanted: recipe.Recipe, *_: object) -> Iterator[rebuild.Built]:
        if wanted.reference is not None:
            wanted.reference.write(folders[0].with_name("written"))
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


def test_with_reference_values(builds: tuple[Path, Path], tmp_path: Path) -> None:
    """They are part of what is built, as they were read."""
    pinned, written = write(tmp_path / "pinned"), tmp_path / "written"
    written.mkdir()
    words = ["--distribution", "debian", "--gpu-reference-values", str(pinned)]
    result = CliRunner().invoke(command.command, words)
    assert result.exit_code == 0, result.output
    assert gpu_reference.read(written) == gpu_reference.read(pinned)


def test_reference_values_that_were_changed(
    builds: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before anything is fetched or built."""
    monkeypatch.delattr(prepare, "toolchain")
    pinned = write(tmp_path / "pinned")
    next(pinned.glob("rims/*.xml")).write_text("altered")
    words = ["--distribution", "debian", "--gpu-reference-values", str(pinned)]
    assert isinstance(CliRunner().invoke(command.command, words).exception, Mismatch)
    result = CliRunner().invoke(command.command, [*words[:-1], str(tmp_path / "none")])
    assert isinstance(result.exception, Unavailable)
    assert "tinboot gpu pin" in result.exception.hint


def test_without_a_lock(builds: tuple[Path, Path]) -> None:
    result = CliRunner().invoke(command.command, ["--distribution", "ubuntu"])
    assert isinstance(result.exception, Unavailable)
    assert "tinboot lock --distribution ubuntu" in result.exception.hint
