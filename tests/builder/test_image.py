"""An image is made whole, once for each state of its recipe, from locked packages alone."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fakemkosi import fake

from tinboot.builder import image, places, prepare, recipe, stopping
from tinboot.builder.mkosi import Mkosi
from tinboot.formats.errors import Refused, Unavailable

#: Says what it was called with, and fails: what follows is tested with the real mkosi (tests/image).
FAIL = """
with open(Path(sys.argv[0]).with_name("calls"), "a") as calls:
    calls.write(json.dumps(sys.argv) + "\\n")
Path(option["output-directory"], "half").write_text("x")
say("‣ not today")
sys.exit(1)
"""


def build(
    tmp_path: Path, tool: Mkosi, repository: Path = places.REPOSITORY, profile: str = "release"
) -> image.Image:
    wanted = recipe.Recipe(repository, "debian", profile)
    python = tmp_path / "python"
    (python / "nv-verifier").mkdir(parents=True, exist_ok=True)
    (python / "pynvml.py").touch()
    chain = prepare.Toolchain(tool, tmp_path / "tools", tmp_path / "debs", python)
    return image.build(wanted, chain, tmp_path / "images", lambda _: None)


def listing(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "images").iterdir()}


def test_a_failed_build_leaves_its_log_alone(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="mkosi ended with status 1") as refused:
        build(tmp_path, fake(tmp_path / "mkosi", FAIL))
    assert listing(tmp_path) == {"debian-release.log", ".debian-release.lock"}
    assert str(tmp_path / "images/debian-release.log") in refused.value.hint


@pytest.mark.parametrize("profile", ["release", "debug"])
def test_mkosi_gets_no_network_and_only_these_packages(tmp_path: Path, profile: str) -> None:
    with pytest.raises(Unavailable):
        build(tmp_path, fake(tmp_path / "mkosi", FAIL), profile=profile)
    (words,) = (tmp_path / "calls").read_text().splitlines()
    for option in (f"--package-directory={tmp_path / 'debs'}", f"--tools-tree={tmp_path / 'tools'}"):
        assert f'"{option}"' in words
    assert ('"--profile=debug"' in words) == (profile == "debug")
    assert "mirror" not in words


@pytest.mark.parametrize("name", ["with space", "a:b", "a,b", "a%b"])
def test_paths_that_mkosi_would_split(tmp_path: Path, name: str) -> None:
    place = tmp_path / name
    place.mkdir()
    with pytest.raises(Refused, match="mkosi cannot take") as refused:
        build(place, Mkosi(("false",), {}, "27.1", ""))
    assert "TINBOOT_BUILD" in refused.value.hint


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(image, "_complete", full)
    monkeypatch.setattr(image, "_run", lambda *_: None)
    with pytest.raises(Unavailable, match=r"no space left on the file system of .*/images"):
        build(tmp_path, Mkosi(("false",), {}, "27.1", ""))
    assert listing(tmp_path) == {".debian-release.lock"}


def test_a_signal_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise stopping.Stopped(15)

    monkeypatch.setattr(image, "_run", lambda *_: None)
    monkeypatch.setattr(image, "_complete", stop)
    with pytest.raises(stopping.Stopped):
        build(tmp_path, Mkosi(("false",), {}, "27.1", ""))
    assert listing(tmp_path) == {".debian-release.lock"}


@pytest.fixture
def finished(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Images without mkosi; the list has one entry for each that was made."""
    made: list[str] = []

    def complete(wanted: recipe.Recipe, _made: Path, folder: Path) -> None:
        made.append(wanted.name)
        folder.mkdir()
        (folder / "root").write_text("root")
        digest = hashlib.sha256(b"root").hexdigest()
        verity = {"root_hash": "a", "salt": "b", "blocks": 3}
        fields = {"verity": verity, "packages": [], "files": {"root": digest}}
        (folder / "image.json").write_text(json.dumps(fields))

    monkeypatch.setattr(image, "_run", lambda *_: None)
    monkeypatch.setattr(image, "_complete", complete)
    return made


@pytest.fixture
def checkout(tmp_path: Path) -> Callable[[str], Path]:
    """A checkout whose recipe has a given line in it."""

    def make(line: str) -> Path:
        folder = tmp_path / f"checkout-{line}"
        (folder / "packages").mkdir(parents=True)
        shutil.copy(places.REPOSITORY / "packages/debian.lock", folder / "packages")
        (folder / "mkosi.conf").write_text(line)
        return folder

    return make


def test_from_the_cache(tmp_path: Path, finished: list[str], checkout: Callable[[str], Path]) -> None:
    tool = Mkosi(("false",), {}, "27.1", "")
    first = build(tmp_path, tool, checkout("one"))
    assert build(tmp_path, tool, checkout("one ".strip() + "-")) != first
    assert finished == ["debian-release"] * 2
    assert build(tmp_path, tool, tmp_path / "checkout-one") == first
    assert len(finished) == 2
    build(tmp_path, tool, tmp_path / "checkout-one", "debug")
    assert finished[2:] == ["debian-debug"]


@pytest.mark.parametrize("damage", ["written to", "gone", "list cut", "list gone"])
def test_one_that_was_changed_is_made_again(
    tmp_path: Path, finished: list[str], checkout: Callable[[str], Path], damage: str
) -> None:
    tool = Mkosi(("false",), {}, "27.1", "")
    folder = build(tmp_path, tool, checkout("one")).folder
    match damage:
        case "written to":
            (folder / "root").write_text("rooT")
        case "gone":
            (folder / "root").unlink()
        case "list cut":
            (folder / "image.json").write_text("{")
        case "list gone":
            (folder / "image.json").unlink()
    assert build(tmp_path, tool, tmp_path / "checkout-one").folder == folder
    assert (folder / "root").read_text() == "root"
    assert len(finished) == 2


def test_a_few_are_kept(tmp_path: Path, finished: list[str], checkout: Callable[[str], Path]) -> None:
    tool = Mkosi(("false",), {}, "27.1", "")
    first = build(tmp_path, tool, checkout("0"))
    for number in range(1, 7):
        build(tmp_path, tool, checkout(str(number)))
        build(tmp_path, tool, tmp_path / "checkout-0")  # in use: the last to go
    kept = {path for path in (tmp_path / "images").iterdir() if path.is_dir()}
    assert len(kept) == 4
    assert first.folder in kept
    assert len(finished) == 7
