"""The config's `volumes`: places to write, in memory, made once before the first container starts."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from tinboot.formats.config import Config
from tinboot.guest import workload_units

_NOSUID, _NODEV, _NOEXEC = 2, 4, 8  # include/uapi/linux/mount.h, MS_*

#: Of the machine's memory, at most; a volume that nobody fills takes none.
_SIZE = "50%"


def mount(config: Config, folder: Path = Path(workload_units.VOLUMES)) -> None:
    """Raises OSError. What is mounted already, by a supervisor before this one, stays as it is."""
    libc = ctypes.CDLL(None, use_errno=True)
    folder.mkdir(mode=0o711, exist_ok=True)  # crun passes through it as the container's root
    for volume in config.volumes:
        target = folder / volume.name
        target.mkdir(exist_ok=True)
        if target.is_mount():
            continue
        flags = _NOSUID | _NODEV | (0 if volume.exec else _NOEXEC)
        options = f"size={_SIZE},mode=0755"
        if libc.mount(b"tmpfs", os.fsencode(target), b"tmpfs", ctypes.c_ulong(flags), options.encode()):
            raise OSError(ctypes.get_errno(), f"the volume {volume.name} cannot be mounted")
        owner = owner_of(config, volume.name, volume.owner)
        os.chown(target, owner, owner)


def owner_of(config: Config, name: str, owner: int) -> int:
    """`owner` as the machine numbers the users of the first container that has the volume."""
    for container in config.containers:
        if any(volume == name for volume, _ in container.volumes):
            return workload_units.identity(config, container) + owner
    return owner
