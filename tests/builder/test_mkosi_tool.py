"""Which mkosi builds images: fetched whole or not at all, and checked again each time it is used."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

import pytest

from tinboot.builder import archive, mkosi_tool, places
from tinboot.builder.mkosi import Mkosi
from tinboot.formats.errors import Unavailable

MODULE = "usr/lib/python3/dist-packages/mkosi/__main__.py"


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror in a folder, with a small package at the pinned path; its hash is pinned."""
    tree = tmp_path / "tree"
    (tree / MODULE).parent.mkdir(parents=True)
    (tree / MODULE).write_text("print('mkosi 27.1')\n")
    (tree / "usr/bin").mkdir()
    (tree / "usr/bin/mkosi-sandbox").symlink_to("mkosi")
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(
        "Package: mkosi\nVersion: 27.1-1\nArchitecture: all\nMaintainer: A <a@example>\nDescription: x\n"
    )
    for path in tree.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
    root = tmp_path / "mirror"
    package = root / mkosi_tool.PINNED_PATH
    package.parent.mkdir(parents=True)
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, package], check=True, capture_output=True)
    monkeypatch.setattr(mkosi_tool, "PINNED_SHA256", hashlib.sha256(package.read_bytes()).hexdigest())
    monkeypatch.setenv(archive.variable("debian"), f"file:{root}")
    return root


def run(tool: Mkosi) -> str:
    done = subprocess.run(
        [*tool.command, "--version"], env=tool.environment, check=True, capture_output=True, text=True
    )
    return done.stdout


def test_pins_agree_with_the_recipes() -> None:
    text = (places.REPOSITORY / "mkosi.conf").read_text()
    minimum = re.search(r"^MinimumVersion=(.*)$", text, re.MULTILINE)
    assert minimum is not None
    assert minimum[1] == ".".join(map(str, mkosi_tool.MINIMUM))
    assert mkosi_tool.parse_version(f"mkosi {mkosi_tool.PINNED_VERSION}\n") == mkosi_tool.MINIMUM
    assert f"_{mkosi_tool.PINNED_VERSION}-" in mkosi_tool.PINNED_PATH


def test_fetched_once(mirror: Path, tmp_path: Path) -> None:
    assert run(mkosi_tool.pinned_mkosi(tmp_path / "build")) == "mkosi 27.1\n"
    (mirror / mkosi_tool.PINNED_PATH).unlink()
    assert run(mkosi_tool.pinned_mkosi(tmp_path / "build")) == "mkosi 27.1\n"
    assert sorted(path.name for path in (tmp_path / "build").iterdir()) == [
        ".mkosi.lock",
        "cache",
        "mkosi-27.1",
    ]
    assert not list((tmp_path / "build").rglob("*.pyc"))


@pytest.mark.parametrize(
    "damage", ["changed", "missing", "added", "mode", "link", "file for link", "link for file"]
)
def test_a_damaged_tree_is_replaced(mirror: Path, tmp_path: Path, damage: str) -> None:
    build = tmp_path / "build"
    mkosi_tool.pinned_mkosi(build)
    module = build / "mkosi-27.1" / MODULE
    link = build / "mkosi-27.1/usr/bin/mkosi-sandbox"
    match damage:
        case "changed":
            module.write_text("print('mkosi 99')\n")
        case "missing":
            module.unlink()
        case "added":
            module.with_name("extra.py").touch()
        case "mode":
            module.chmod(0o600)
        case "link":
            link.unlink()
            link.symlink_to("elsewhere")
        case "file for link":
            link.unlink()
            link.write_text("mkosi")
        case "link for file":
            content = tmp_path / "content"
            content.write_bytes(module.read_bytes())
            module.unlink()
            module.symlink_to(content)
    deb = next((build / "cache").iterdir())
    assert not mkosi_tool.same_as_package(deb, build / "mkosi-27.1")
    assert run(mkosi_tool.pinned_mkosi(build)) == "mkosi 27.1\n"
    assert mkosi_tool.same_as_package(deb, build / "mkosi-27.1")


def test_a_damaged_package_is_fetched_again(mirror: Path, tmp_path: Path) -> None:
    cached = tmp_path / "build/cache" / mkosi_tool.PINNED_PATH.rpartition("/")[2]
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"half of it")
    assert run(mkosi_tool.pinned_mkosi(tmp_path / "build")) == "mkosi 27.1\n"


def test_another_package_is_refused(mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mkosi_tool, "PINNED_SHA256", "0" * 64)
    with pytest.raises(Unavailable, match="pinned SHA-256") as refused:
        mkosi_tool.pinned_mkosi(tmp_path / "build")
    assert "TINBOOT_DEBIAN_MIRROR" in refused.value.hint
    assert {path.name for path in (tmp_path / "build").rglob("*")} == {".mkosi.lock", "cache"}


def test_a_disk_that_is_full(mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin/dpkg-deb"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\n[ "$1" = -x ] && exit 2\nexec /usr/bin/dpkg-deb "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    with pytest.raises(Unavailable, match="dpkg-deb cannot unpack"):
        mkosi_tool.pinned_mkosi(tmp_path / "build")
    assert {path.name for path in (tmp_path / "build").iterdir()} == {".mkosi.lock", "cache"}


def test_a_build_folder_that_is_a_file(mirror: Path, tmp_path: Path) -> None:
    (tmp_path / "build").touch()
    with pytest.raises(Unavailable, match="build"):
        mkosi_tool.pinned_mkosi(tmp_path / "build")


def test_no_debian_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(archive.variable("debian"), raising=False)
    monkeypatch.setattr(archive, "ETC_APT", tmp_path)
    monkeypatch.setattr(archive, "read_sources", list)
    with pytest.raises(Unavailable, match="no mkosi") as refused:
        mkosi_tool.pinned_mkosi(tmp_path / "build")
    assert "install mkosi" in refused.value.hint
    assert "TINBOOT_DEBIAN_MIRROR" in refused.value.hint


@pytest.mark.parametrize(
    ("printed", "status", "taken"),
    [
        ("mkosi 27.1", 0, True),
        ("mkosi 28", 0, True),
        ("mkosi 27", 0, False),
        ("mkosi 25.3", 0, False),
        ("mkosi 28~devel", 0, False),
        ("mkosi 27.1", 1, False),
        ("", 0, False),
    ],
)
def test_an_installed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: str, status: int, taken: bool
) -> None:
    program = tmp_path / "mkosi"
    program.write_text(f"#!/bin/sh\necho '{printed}'\nexit {status}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    tool = mkosi_tool.installed_mkosi()
    assert (tool is not None) == taken
    if tool is not None:
        assert tool.command == (str(program),)
        assert tool.version == printed.removeprefix("mkosi ")


def test_none_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert mkosi_tool.installed_mkosi() is None
