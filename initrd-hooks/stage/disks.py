"""Disks as sysfs shows them. A serial is the host's word: a hint where to look, never a proof."""

from __future__ import annotations

import os
from typing import NamedTuple

from tinboot.formats.halt import Refusal

_SECTOR = 512  # sysfs counts a disk's length in these, whatever its own sectors are


class Disk(NamedTuple):
    """`name` as the kernel has it (vda), `number` as MAJOR:MINOR, `size` in bytes, `node` its path."""

    name: str
    number: str
    serial: str
    size: int
    read_only: bool
    node: str


def names(sys: str) -> list[str]:
    """Every block device but partitions, sorted."""
    return sorted(os.listdir(f"{sys}/block"))


def scan(sys: str, dev: str) -> list[Disk]:
    """Every block device that has a serial, sorted by name: virtio disks have one."""
    found = []
    for name in names(sys):
        folder = f"{sys}/block/{name}"
        serial = _serial(f"{folder}/serial")
        if serial:
            size = int(read(f"{folder}/size")) * _SECTOR
            read_only = read(f"{folder}/ro") != "0"
            found.append(Disk(name, read(f"{folder}/dev"), serial, size, read_only, f"{dev}/{name}"))
    return found


def find(disks: list[Disk], serial: str, kind: str) -> Disk:
    """The one disk with `serial`; `kind` (config, root or volume) begins the refusal's reason."""
    found = [disk for disk in disks if disk.serial == serial]
    if not found:
        there = ", ".join(f"{disk.name}={disk.serial}" for disk in disks) or "no disk at all"
        raise Refusal(f"{kind}-missing", f"no disk has the serial {serial}: {there}")
    if len(found) > 1:
        raise Refusal(f"{kind}-duplicate", f"{', '.join(d.name for d in found)} have the serial {serial}")
    return found[0]


def pread(disk: Disk, length: int, offset: int) -> bytes:
    """Exactly `length` bytes; a short read goes on, the end of the disk is an OSError."""
    fd = os.open(disk.node, os.O_RDONLY)
    try:
        data = b""
        while len(data) < length:
            more = os.pread(fd, length - len(data), offset + len(data))
            if not more:
                raise OSError(f"{disk.node} ends at byte {offset + len(data)}, wanted {offset + length}")
            data += more
        return data
    finally:
        os.close(fd)


def read(path: str) -> str:
    """A sysfs attribute without its newline."""
    with open(path, encoding="utf-8", errors="backslashreplace") as file:
        return file.read().strip()


def _serial(path: str) -> str:
    try:
        return read(path)
    except OSError:  # no such attribute, or a device that does not answer: no disk of ours
        return ""
