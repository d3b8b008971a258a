"""What is kept in build/: the newest, and by one writer at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinboot.builder import cache, places
from tinboot.formats.errors import Unavailable


def folder(parent: Path, name: str, age: int) -> Path:
    path = parent / name
    path.mkdir()
    (path / "file").touch()
    os.utime(path, (1000 - age, 1000 - age))
    return path


def test_the_newest_stay(tmp_path: Path) -> None:
    for age in range(5):
        folder(tmp_path, f"debian-release-{age:016x}", age)
    others = ("debian-debug-0000000000000000", "debian-release-x", "debian-release-00000000000000000")
    for name in others:
        folder(tmp_path, name, 900)
    (tmp_path / "debian-release.log").touch()
    cache.used(tmp_path / f"debian-release-{4:016x}")
    cache.prune(tmp_path, "debian-release", 2)
    kept = {f"debian-release-{age:016x}" for age in (0, 4)}
    assert {path.name for path in tmp_path.iterdir()} == {*kept, *others, "debian-release.log"}


def test_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    folder(tmp_path, ".tools-0123456789abcdef.a1b2.partial", 0)
    other = folder(tmp_path, ".debian-release-0123456789abcdef.a1b2.partial", 0)
    (tmp_path / "tools").symlink_to("tools-0123456789abcdef")
    cache.prune(tmp_path, "tools", 1)
    assert {path.name for path in tmp_path.iterdir()} == {"tools", other.name}


def test_the_second_waits_and_says_so(tmp_path: Path) -> None:
    """The child takes the lock as soon as we give it back, and not before."""
    code = (
        "import sys; from pathlib import Path; from tinboot.builder import cache\n"
        "with cache.alone(Path(sys.argv[1]), lambda text: print(text, flush=True)):\n"
        "    print('in', flush=True)\n"
    )
    said: list[str] = []
    with cache.alone(tmp_path / "new/.lock", said.append):
        process = subprocess.Popen(
            [sys.executable, "-c", code, tmp_path / "new/.lock"],
            cwd=places.REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline().startswith("waiting for another command")
    with process:
        assert process.stdout.readline() == "in\n"
    assert said == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="file"), cache.alone(tmp_path / "file/.lock", print):
        pass
