"""The bill of materials is a function of dpkg's status file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tinboot.builder import places, sbom
from tinboot.builder.recipe import Recipe
from tinboot.formats.errors import Unavailable

STATUS = """Package: bash
Status: install ok installed
Priority: required
Section: shells
Installed-Size: 7177
Maintainer: A <a@example>
Architecture: amd64
Version: 5.2.37-2+b10
Description: shell

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Maintainer: A <a@example>
Version: 1
Description: removed
"""
RECIPE = Recipe(places.REPOSITORY, "debian", "release")


def make(folder: Path, name: str) -> bytes:
    (folder / "status").write_text(STATUS)
    sbom.write(folder / "status", folder / name, RECIPE, "root")
    return (folder / name).read_bytes()


def test_lists_what_is_installed(tmp_path: Path) -> None:
    document = json.loads(make(tmp_path, "a"))
    assert document["bomFormat"] == "CycloneDX"
    found = {(component["name"], component["version"]) for component in document["components"]}
    assert ("bash", "5.2.37-2+b10") in found
    assert "gone" not in {name for name, _ in found}
    assert document["metadata"]["component"]["name"] == "tinboot-debian-release-root"


def test_the_same_each_time(tmp_path: Path) -> None:
    assert make(tmp_path, "a") == make(tmp_path, "b")


def test_a_failure_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho no debsbom >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(Unavailable, match="debsbom made no SBOM of root: no debsbom"):
        make(tmp_path, "a")
    assert not (tmp_path / "a").exists()
