"""The first difference is named: artefact, byte, and what inside it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tinboot.builder import compare, initrd, tools
from tinboot.formats import cpio

Pair = tuple[Path, Path]


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    folders = tmp_path / "one", tmp_path / "other"
    for folder in folders:
        folder.mkdir()
    return folders


def initrd_of(*entries: cpio.Entry) -> bytes:
    archive = cpio.write(cpio.with_parents(entries))
    packed = subprocess.run([*tools.tool("zstd"), "-qc"], input=archive, stdout=subprocess.PIPE, check=True)
    front = cpio.write(initrd.NODES)
    return front + bytes(-len(front) % 512) + packed.stdout


def test_the_same(pair: Pair) -> None:
    for folder in pair:
        (folder / "kernel").write_bytes(b"k" * 3_000_000)
    assert compare.first_difference(*pair) is None


def test_the_first_in_name_order(pair: Pair) -> None:
    for number, folder in enumerate(pair):
        (folder / "root.cdx.json").write_text(str(number))
        (folder / "kernel").write_bytes(b"k" * 2_500_000 + bytes([number]) + b"k")
    found = compare.first_difference(*pair)
    assert found == compare.Difference("kernel", 2_500_000, "")
    assert str(found) == "kernel differs from byte 2500000 on"


def test_one_that_is_longer(pair: Pair) -> None:
    (pair[0] / "kernel").write_bytes(b"kk")
    (pair[1] / "kernel").write_bytes(b"kkk")
    assert compare.first_difference(*pair) == compare.Difference("kernel", 2, "")


def test_one_that_is_missing(pair: Pair) -> None:
    (pair[1] / "kernel").write_bytes(b"k")
    assert compare.first_difference(*pair) == compare.Difference("kernel", 0, f"only in {pair[1]}")


@pytest.mark.parametrize(
    ("changed", "inside"),
    [
        (cpio.file("usr/a", b"abcdXf"), "usr/a from byte 4 on"),
        (cpio.file("usr/a", b"abcdef!"), "usr/a from byte 6 on"),
        (cpio.file("usr/a", b"abcdef", 0o755), "usr/a has mode 100644 and 100755"),
        (cpio.file("usr/b", b"abcdef"), "usr/a is in one only"),
    ],
)
def test_inside_an_initrd(pair: Pair, changed: cpio.Entry, inside: str) -> None:
    (pair[0] / "initrd").write_bytes(initrd_of(cpio.file("usr/a", b"abcdef")))
    (pair[1] / "initrd").write_bytes(initrd_of(changed))
    found = compare.first_difference(*pair)
    assert found is not None
    assert (found.artefact, found.inside) == ("initrd", inside)
    assert str(found).endswith(f"; inside: {inside}")


def test_an_initrd_that_is_none(pair: Pair) -> None:
    (pair[0] / "initrd").write_bytes(initrd_of(cpio.file("a", b"a")))
    (pair[1] / "initrd").write_bytes(b"nothing")
    found = compare.first_difference(*pair)
    assert found is not None
    assert found.byte == 0
    assert "cannot be unpacked" in found.inside


def write(path: str, text: str) -> Callable[[Path], object]:
    return lambda tree: (tree / path).write_text(text)


def remode(tree: Path) -> None:
    (tree / "usr/file").chmod(0o600)


def relink(tree: Path) -> None:
    (tree / "link").unlink()
    (tree / "link").symlink_to("elsewhere")


@pytest.mark.parametrize(
    ("change", "inside"),
    [
        (write("usr/file", "fiXe"), "usr/file from byte 2 on"),
        (write("usr/more", ""), "usr/more is in one only"),
        (remode, "usr/file has mode 100644 and 100600"),
        (relink, "link points to usr and elsewhere"),
    ],
)
def test_inside_a_root(pair: Pair, tmp_path: Path, change: Callable[[Path], object], inside: str) -> None:
    tree = tmp_path / "tree"
    (tree / "usr").mkdir(parents=True)
    (tree / "usr/file").write_text("file")
    (tree / "usr/file").chmod(0o644)
    (tree / "link").symlink_to("usr")
    make = [*tools.tool("mkfs.erofs"), "--quiet", "-T0", "--all-root"]
    subprocess.run([*make, str(pair[0] / "root"), str(tree)], check=True, capture_output=True)
    change(tree)
    subprocess.run([*make, str(pair[1] / "root"), str(tree)], check=True, capture_output=True)
    found = compare.first_difference(*pair)
    assert found is not None
    assert (found.artefact, found.inside) == ("root", inside)


def test_a_root_that_is_none(pair: Pair) -> None:
    (pair[0] / "root").write_bytes(bytes(8192))
    (pair[1] / "root").write_bytes(bytes(8191) + b"x")
    found = compare.first_difference(*pair)
    assert found is not None
    assert found.byte == 8191
    assert "no file system" in found.inside


def test_diffoscope_is_asked_where_it_is(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    difference = compare.Difference("kernel", 0, "")
    assert compare.report(*pair, difference) == ""
    (tmp_path / "diffoscope").write_text('#!/bin/sh\necho "$@"\nexit 1\n')
    (tmp_path / "diffoscope").chmod(0o755)
    said = compare.report(*pair, difference)
    assert said == f"--text - {pair[0] / 'kernel'} {pair[1] / 'kernel'}\n"
