"""The first difference between two images: which artefact, which byte, and which file inside it."""

from __future__ import annotations

import filecmp
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tinboot.builder import tools
from tinboot.formats import cpio

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Difference:
    """`byte`: offset in the artefact. `inside`: path and what differs, "" where it cannot be told."""

    artefact: str
    byte: int
    inside: str

    def __str__(self) -> str:
        inside = f"; inside: {self.inside}" if self.inside else ""
        return f"{self.artefact} differs from byte {self.byte} on{inside}"


def first_difference(one: Path, other: Path) -> Difference | None:
    """Compares every file of two image folders, in name order; None if all are the same."""
    for name in sorted({p.name for p in one.iterdir()} | {p.name for p in other.iterdir()}):
        a, b = one / name, other / name
        if not a.exists() or not b.exists():
            return Difference(name, 0, f"only in {(one if a.exists() else other)}")
        if not filecmp.cmp(a, b, shallow=False):
            return Difference(name, first_byte(a, b), _inside(name, a, b))
    return None


def first_byte(a: Path, b: Path) -> int:
    """Offset of the first byte that differs, or the shorter one's length."""
    at = 0
    with a.open("rb") as left, b.open("rb") as right:
        while True:
            x, y = left.read(_CHUNK), right.read(_CHUNK)
            if x != y:
                same = next((i for i, (p, q) in enumerate(zip(x, y, strict=False)) if p != q), None)
                return at + (min(len(x), len(y)) if same is None else same)
            if not x:
                return at
            at += len(x)


def report(one: Path, other: Path, difference: Difference) -> str:
    """What diffoscope says of the artefact, where it is installed; else ""."""
    if shutil.which("diffoscope") is None:
        return ""
    result = subprocess.run(
        ["diffoscope", "--text", "-", one / difference.artefact, other / difference.artefact],
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout


def _inside(name: str, a: Path, b: Path) -> str:
    if name == "initrd":
        return _first_entry(_entries(a), _entries(b))
    if name == "root":
        with tempfile.TemporaryDirectory() as folder:
            trees = [Path(folder) / "one", Path(folder) / "other"]
            for image, tree in zip((a, b), trees, strict=True):
                command = [*tools.tool("fsck.erofs"), f"--extract={tree}", str(image)]
                if subprocess.run(command, capture_output=True, check=False).returncode:
                    return f"{image} is no file system that fsck.erofs reads"
            return _first_file(*trees)
    return ""


def _entries(initrd: Path) -> dict[str, cpio.Entry]:
    """All members, of both archives: the nodes in front and mkosi's compressed one."""
    data = initrd.read_bytes()
    start = data.index(b"\x28\xb5\x2f\xfd")  # a zstd frame (RFC 8878, 3.1.1)
    unpacked = subprocess.run(
        [*tools.tool("zstd"), "-dc"], input=data[start:], stdout=subprocess.PIPE, check=True
    ).stdout
    return {entry.path: entry for entry in (*cpio.read(data[:start].rstrip(b"\0")), *cpio.read(unpacked))}


def _first_entry(a: dict[str, cpio.Entry], b: dict[str, cpio.Entry]) -> str:
    for path in sorted(a.keys() | b.keys()):
        if path not in a or path not in b:
            return f"{path} is in one only"
        if a[path].mode != b[path].mode:
            return f"{path} has mode {a[path].mode:o} and {b[path].mode:o}"
        if a[path] != b[path]:
            at = next(
                (i for i, (p, q) in enumerate(zip(a[path].data, b[path].data, strict=False)) if p != q),
                min(len(a[path].data), len(b[path].data)),
            )
            return f"{path} from byte {at} on"
    return "the same members: order, padding or compression"


def _first_file(a: Path, b: Path) -> str:
    for name in sorted({p.relative_to(t).as_posix() for t in (a, b) for p in t.rglob("*")}):
        left, right = a / name, b / name
        there = [path.is_symlink() or path.exists() for path in (left, right)]
        if not all(there):
            return f"{name} is in one only"
        modes = [path.lstat().st_mode for path in (left, right)]
        if modes[0] != modes[1]:
            return f"{name} has mode {modes[0]:o} and {modes[1]:o}"
        if left.is_symlink():
            if left.readlink() != right.readlink():
                return f"{name} points to {left.readlink()} and {right.readlink()}"
        elif left.is_file() and not filecmp.cmp(left, right, shallow=False):
            return f"{name} from byte {first_byte(left, right)} on"
    return "the same files: the file system's own structures"
