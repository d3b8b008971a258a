"""cpio.py against GNU cpio, in both directions, and against broken archives."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinboot.formats import cpio
from tinboot.formats.errors import Malformed

GNU = shutil.which("cpio")
needs_gnu = pytest.mark.skipif(GNU is None, reason="GNU cpio is not installed (package cpio)")
slow_programs = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)

names = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cc", "Cs"]),
    min_size=1,
    max_size=12,
).filter(lambda name: name not in (".", "..", "TRAILER!!!"))
permissions = st.integers(0, 0o7777)


@st.composite
def trees(draw: st.DrawFn, *, devices: bool = True) -> list[cpio.Entry]:
    """Directories, files, links and devices without two entries of one path, parents included."""
    directories = draw(st.lists(st.lists(names, min_size=1, max_size=3).map("/".join), max_size=4))
    entries = {path: cpio.directory(path, draw(permissions)) for path in directories}
    for entry in cpio.with_parents(entries.values()):
        entries.setdefault(entry.path, entry)
    kinds = ["file", "link", "character", "block"] if devices else ["file", "link"]
    for _ in range(draw(st.integers(0, 5))):
        above = draw(st.sampled_from(["", *(f"{path}/" for path in sorted(entries))]))
        path = above + draw(names)
        if path in entries or (above and not stat.S_ISDIR(entries[above[:-1]].mode)):
            continue
        match draw(st.sampled_from(kinds)):
            case "file":
                entries[path] = cpio.file(path, draw(st.binary(max_size=600)), draw(permissions))
            case "link":
                entries[path] = cpio.symlink(path, draw(names))
            case "character":
                numbers = st.integers(0, 255)
                entries[path] = cpio.character_device(path, draw(numbers), draw(numbers))
            case "block":
                entries[path] = cpio.block_device(path, draw(st.integers(0, 255)), draw(st.integers(0, 255)))
    return list(entries.values())


def by_path(entries: list[cpio.Entry]) -> list[cpio.Entry]:
    return sorted(entries, key=lambda entry: entry.path.encode(errors="surrogateescape"))


@given(trees())
def test_reads_what_it_writes_whatever_the_order(entries: list[cpio.Entry]) -> None:
    archive = cpio.write(entries)
    assert list(cpio.read(archive)) == by_path(entries)
    assert cpio.write(reversed(entries)) == archive
    assert cpio.write(cpio.read(archive)) == archive


@needs_gnu
@given(trees(devices=os.geteuid() == 0))
@slow_programs
def test_gnu_cpio_unpacks_what_it_writes(entries: list[cpio.Entry]) -> None:
    with tempfile.TemporaryDirectory() as name:
        subprocess.run(
            ["cpio", "-i", "-m", "--no-absolute-filenames", "--quiet"],
            input=cpio.write(entries), cwd=name, check=True, capture_output=True,
        )  # fmt: skip
        assert by_path(_on_disk(Path(name))) == by_path(entries)


@needs_gnu
@given(trees(devices=os.geteuid() == 0))
@slow_programs
def test_reads_what_gnu_cpio_writes(entries: list[cpio.Entry]) -> None:
    with tempfile.TemporaryDirectory() as name:
        _to_disk(Path(name), entries)
        listing = b"\0".join(entry.path.encode() for entry in by_path(entries))
        packed = subprocess.run(
            ["cpio", "-o", "-H", "newc", "-0", "--quiet", "--reproducible", "--owner=0:0"],
            input=listing, cwd=name, check=True, capture_output=True,
        ).stdout  # fmt: skip
    assert list(cpio.read(packed)) == by_path(entries)


@needs_gnu
def test_is_byte_for_byte_gnu_cpios_archive(tmp_path: Path) -> None:
    entries = [
        cpio.directory("a"),
        cpio.file("a/one", b"x" * 5),
        cpio.file("b", b"", 0o755),
        cpio.symlink("c", "b"),
    ]
    _to_disk(tmp_path, entries)
    for entry in reversed(entries):
        os.utime(tmp_path / entry.path, (0, 0), follow_symlinks=False)
    packed = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet", "--reproducible", "--owner=0:0"],
        input=b"a\na/one\nb\nc", cwd=tmp_path, check=True, capture_output=True,
    ).stdout  # fmt: skip
    ours = cpio.write(entries)
    # GNU cpio counts inode numbers from 0 and pads to its 512-byte record
    renumbered = packed
    for ino in reversed(range(len(entries))):
        renumbered = renumbered.replace(b"070701%08X" % ino, b"070701%08X" % (ino + 1), 1)
    assert renumbered[: len(ours)] == ours
    assert not renumbered[len(ours) :].strip(b"\0")


@given(st.lists(trees(), min_size=1, max_size=3), st.lists(st.integers(0, 700), min_size=3, max_size=3))
def test_walks_archives_with_nul_between_them(many: list[list[cpio.Entry]], gaps: list[int]) -> None:
    image = b""
    for entries, gap in zip(many, gaps, strict=False):
        image += cpio.write(entries) + bytes(4 * gap)
    found = cpio.read_all(image)
    assert [list(archive.entries) for archive in found] == [by_path(entries) for entries in many]
    assert b"".join(image[a.start : a.end] for a in found) == b"".join(map(cpio.write, many))


@given(trees(), st.data())
def test_a_cut_archive_is_malformed(entries: list[cpio.Entry], data: st.DataObject) -> None:
    archive = cpio.write(entries)
    cut = data.draw(st.integers(1, len(archive) - 1))
    with pytest.raises(Malformed, match=r"cpio byte \d+: "):
        cpio.read(archive[:cut])


@given(trees(), st.data())
def test_a_changed_byte_is_malformed_or_another_archive(
    entries: list[cpio.Entry], data: st.DataObject
) -> None:
    archive = bytearray(cpio.write(entries))
    at = data.draw(st.integers(0, len(archive) - 1))
    archive[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(Malformed):  # any other exception fails the test
        for one in cpio.read_all(bytes(archive)):
            assert cpio.read(cpio.write(one.entries)) == tuple(by_path(list(one.entries)))


SMALL = cpio.write([cpio.file("f", b"abc")])


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (b"", "byte 0: 0 archives"),
        (SMALL + SMALL, f"byte {len(SMALL)}: 2 archives"),
        (b"\0" + SMALL, "byte 1: an archive begins at a multiple of 4"),
        (b"070702" + SMALL[6:], "byte 0: b'070702', expected the magic"),
        (b"\x28\xb5\x2f\xfd\0\0", "byte 0: .*expected the magic"),
        (SMALL[:6] + b"+0000001" + SMALL[14:], "byte 6: ino is .*not 8 hex digits"),
        (SMALL[:14] + b"000_81A4" + SMALL[22:], "byte 14: mode is .*not 8 hex digits"),
        (SMALL[:54] + b"FFFFFFFF" + SMALL[62:], "byte 112: the data of b'f.*4294967295 bytes"),
        (SMALL[:94] + b"00000001" + SMALL[102:], "byte 0: a name of 1 bytes"),
        (SMALL[:94] + b"FFFFFFFF" + SMALL[102:], "byte 0: a name of 4294967295 bytes"),
        (SMALL[:102] + b"00000007" + SMALL[110:], "byte 0: a checksum of 7"),
        (SMALL[:110] + b"fg" + SMALL[112:], "byte 110: the name .* does not end at its first NUL"),
        (SMALL[:115] + b"!" + SMALL[116:], "byte 115: the padding is b'!'"),
        (SMALL[:110] + b"/" + SMALL[111:], "byte 0: '/': is not a plain relative path"),
        (SMALL[:38] + b"00000002" + SMALL[46:], "byte 0: 'f': a hard link"),
        (SMALL[:14] + b"000011A4" + SMALL[22:], "byte 0: 'f': mode 0o10644"),
        (SMALL[:14] + b"000041ED" + SMALL[22:], "byte 0: 'f': has 3 bytes of data"),
        (SMALL[:78] + b"00000001" + SMALL[86:], r"byte 0: 'f': has the device number \(1, 0\)"),
        (SMALL + b"x", f"byte {len(SMALL)}: b'x', expected the magic"),
    ],
)
def test_names_the_byte(archive: bytes, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        cpio.read(archive)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([cpio.file("a", b""), cpio.directory("a")], "'a': stands twice"),
        ([cpio.file("a/b", b"")], "'a/b': needs the directory 'a'"),
        ([cpio.file("a", b""), cpio.file("a/b", b"")], "needs the directory 'a'"),
        ([cpio.file("/a", b"")], "not a plain relative path"),
        ([cpio.file("a/../b", b"")], "not a plain relative path"),
        ([cpio.file("./a", b"")], "not a plain relative path"),
        ([cpio.file("", b"")], "not a name"),
        ([cpio.file("a\0b", b"")], "not a name"),
        ([cpio.file("TRAILER!!!", b"")], "not a name"),
        ([cpio.file("n" * 4096, b"")], "not a name"),
        ([cpio.file(".", b"")], "root and not a directory"),
        ([cpio.symlink("a", "")], "links to b''"),
        ([cpio.Entry("a", stat.S_IFIFO | 0o600)], "mode 0o10600"),
        ([cpio.character_device("a", -1, 0)], "does not fit a field"),
    ],
)
def test_writes_nothing_that_the_kernel_would_drop(entries: list[cpio.Entry], message: str) -> None:
    with pytest.raises(Malformed, match=message):
        cpio.write(entries)


def test_adds_the_missing_directories() -> None:
    entries = cpio.with_parents([cpio.directory("usr", 0o700), cpio.file("usr/lib/x/y", b"")])
    assert [(entry.path, entry.mode & 0o777) for entry in cpio.read(cpio.write(entries))] == [
        ("usr", 0o700),
        ("usr/lib", 0o755),
        ("usr/lib/x", 0o755),
        ("usr/lib/x/y", 0o644),
    ]


def _on_disk(root: Path) -> list[cpio.Entry]:
    found = []
    for path in root.rglob("*"):
        status = path.lstat()
        data = b""
        if stat.S_ISLNK(status.st_mode):
            data = os.fsencode(path.readlink())
        elif stat.S_ISREG(status.st_mode):
            data = path.read_bytes()
        device = (os.major(status.st_rdev), os.minor(status.st_rdev))
        found.append(cpio.Entry(str(path.relative_to(root)), status.st_mode, data, device))
    return found


def _to_disk(root: Path, entries: list[cpio.Entry]) -> None:
    for entry in by_path(entries):
        path = root / entry.path
        if stat.S_ISDIR(entry.mode):
            path.mkdir()
        elif stat.S_ISLNK(entry.mode):
            path.symlink_to(os.fsdecode(entry.data))
        elif stat.S_ISREG(entry.mode):
            path.write_bytes(entry.data)
        else:
            os.mknod(path, entry.mode, os.makedev(*entry.rdev))
    for entry in reversed(by_path(entries)):
        if not stat.S_ISLNK(entry.mode):
            (root / entry.path).chmod(stat.S_IMODE(entry.mode))
