"""The first difference between two images: which artefact, which byte, and which file inside it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tinboot.builder import tools
from tinboot.formats import cpio
from tinboot.formats.errors import Malformed

_CHUNK = 1 << 20

#: The first bytes of a zstd frame (RFC 8878, 3.1.1): mkosi's archive, behind the nodes in front of it.
_ZSTD = b"\x28\xb5\x2f\xfd"


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
        at = first_byte(a, b)
        if at is not None:
            return Difference(name, at, _inside(name, a, b))
    return None


def first_byte(a: Path, b: Path) -> int | None:
    """Offset of the first byte that differs, or the shorter one's length; None if they are the same."""
    at = 0
    with a.open("rb") as left, b.open("rb") as right:
        while True:
            x, y = left.read(_CHUNK), right.read(_CHUNK)
            if x != y:
                return at + _differ(x, y)
            if not x:
                return None
            at += len(x)


def _differ(x: bytes, y: bytes) -> int:
    return next((i for i, (p, q) in enumerate(zip(x, y, strict=False)) if p != q), min(len(x), len(y)))


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
        try:
            return _first_entry(_entries(a), _entries(b))
        except Malformed as error:
            return error.message
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
    front, magic, rest = data.partition(_ZSTD)
    unpacked = subprocess.run(
        [*tools.tool("zstd"), "-dc"], input=magic + rest, capture_output=True, check=False
    )
    if unpacked.returncode:
        raise Malformed(f"{initrd} cannot be unpacked: {unpacked.stderr.decode(errors='replace').strip()}")
    return {entry.path: entry for entry in (*cpio.read(front), *cpio.read(unpacked.stdout))}


def _first_entry(a: dict[str, cpio.Entry], b: dict[str, cpio.Entry]) -> str:
    for path in sorted(a.keys() | b.keys()):
        if path not in a or path not in b:
            return f"{path} is in one only"
        if a[path].mode != b[path].mode:
            return f"{path} has mode {a[path].mode:o} and {b[path].mode:o}"
        if a[path].rdev != b[path].rdev:
            return f"{path} is the device {a[path].rdev} and {b[path].rdev}"
        if a[path].data != b[path].data:
            return f"{path} from byte {_differ(a[path].data, b[path].data)} on"
    return "the same members: order, times, padding or compression"


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
        elif left.is_file() and (at := first_byte(left, right)) is not None:
            return f"{name} from byte {at} on"
    return "the same files: the file system's own structures"
