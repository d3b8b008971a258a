"""Disks as a hostile host would attach them: made from bytes, or a copy of a good one with changes.

    changed(root, folder, Flip(4096), Resize(-512))    a copy, two changes applied in order
    Flip(4096).apply(copy)                             the same under a running machine

Copies are whole files (150 MB take 0.15 s, a fiftieth of a boot) and clones where the file system can:
unlike an overlay they have exactly the size that is asked for and can change under a running machine.
"""

from __future__ import annotations

import itertools
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tinboot.formats import configdisk


@dataclass(frozen=True, slots=True)
class Flip:
    """One bit of the byte at `offset` (negative: from the end) becomes the other."""

    offset: int
    bit: int = 0

    def apply(self, disk: Path) -> None:
        with disk.open("r+b", buffering=0) as file:
            at = _position(disk, self.offset)
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1 << self.bit]))


@dataclass(frozen=True, slots=True)
class Write:
    """`data` at `offset` (negative: from the end), within the disk."""

    offset: int
    data: bytes

    def apply(self, disk: Path) -> None:
        at = _position(disk, self.offset)
        if at + len(self.data) > disk.stat().st_size:
            raise ValueError(f"{len(self.data)} bytes at {at} end behind {disk}: use Append")
        with disk.open("r+b", buffering=0) as file:
            file.seek(at)
            file.write(self.data)


@dataclass(frozen=True, slots=True)
class Append:
    """`data` behind the last byte."""

    data: bytes

    def apply(self, disk: Path) -> None:
        with disk.open("ab") as file:
            file.write(self.data)


@dataclass(frozen=True, slots=True)
class Resize:
    """`by` bytes longer (zeros) or, if negative, shorter."""

    by: int

    def apply(self, disk: Path) -> None:
        size = disk.stat().st_size + self.by
        if size < 0:
            raise ValueError(f"{disk} has {disk.stat().st_size} bytes, {-self.by} cannot be cut off")
        with disk.open("r+b") as file:
            file.truncate(size)


Change = Flip | Write | Append | Resize


def changed(good: Path, folder: Path, *changes: Change) -> Path:
    """A new file in `folder` with the bytes of `good`, `changes` applied in order."""
    copy = _new(folder, good.name)
    subprocess.run(["cp", "--reflink=auto", "--sparse=auto", "--", good, copy], check=True)
    copy.chmod(0o600)
    for change in changes:
        change.apply(copy)
    return copy


def from_bytes(data: bytes, folder: Path, name: str = "disk") -> Path:
    """A new file in `folder`. QEMU shows whole sectors: it fills up the last one with zeros."""
    disk = _new(folder, name)
    disk.write_bytes(data)
    return disk


def config_disk(config: bytes, folder: Path) -> Path:
    """The disk that a proper launcher makes of `config` (formats/configdisk.py), whatever `config` says."""
    return from_bytes(configdisk.pad(config), folder, "config")


def _position(disk: Path, offset: int) -> int:
    size = disk.stat().st_size
    at = offset if offset >= 0 else size + offset
    if not 0 <= at < size:
        raise ValueError(f"byte {offset} is not on {disk}, which has {size}")
    return at


def _new(folder: Path, name: str) -> Path:
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(path for each in names if not (path := folder / each).exists())
