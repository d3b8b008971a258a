"""The config's `volumes`: places to write, in memory, made once before the first container starts."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

from tinboot.formats.config import Config
from tinboot.guest import workload_units

NOSUID, NODEV, NOEXEC = 2, 4, 8  # include/uapi/linux/mount.h, MS_*

#: Of the machine's memory, at most; a volume that nobody fills takes none.
_SIZE = "50%"


def tmpfs(target: Path, flags: int, options: str) -> None:
    """mount(2). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(target), b"tmpfs", ctypes.c_ulong(flags), options.encode()):
        raise OSError(ctypes.get_errno(), f"{target} cannot be mounted")


def mount(
    config: Config,
    folder: Path = Path(workload_units.VOLUMES),
    make: Callable[[Path, int, str], None] = tmpfs,
) -> None:
    """Raises OSError. What is mounted already, by a supervisor before this one, stays as it is."""
    folder.mkdir(mode=0o711, exist_ok=True)  # crun passes through it as the container's root
    for volume in config.volumes:
        target = folder / volume.name
        target.mkdir(exist_ok=True)
        if not target.is_mount():
            owner = owner_of(config, volume.name, volume.owner)
            flags = NOSUID | NODEV | (0 if volume.exec else NOEXEC)
            make(target, flags, f"size={_SIZE},mode=0755,uid={owner},gid={owner}")


def owner_of(config: Config, name: str, owner: int) -> int:
    """`owner` as the machine numbers the users of the containers that have the volume."""
    for container in config.containers:
        if any(volume == name for volume, _ in container.volumes):
            return workload_units.identity(config, container) + owner
    return owner
