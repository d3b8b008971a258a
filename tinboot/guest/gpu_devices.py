"""What stands between the driver's modules and NVML: device nodes, and the daemon that keeps GPUs awake.

A GPU in confidential computing makes one session with its driver after each reset. When the last client
leaves, the session is gone and the GPU with it; so the daemon is the first client, and outlives the gate.
"""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from typing import NamedTuple

from tinboot.formats.halt import Refusal

#: Minors of the driver's own device (NVIDIA open-gpu-kernel-modules, nv-frontend.h); GPUs count from 0.
_CONTROL_MINOR = 255

#: Names in /proc/devices: of the driver, and of its unified memory.
_DRIVER, _UNIFIED_MEMORY = ("nvidia-frontend", "nvidia"), "nvidia-uvm"


class Daemon(NamedTuple):
    """nvidia-persistenced(1): its program, and the file in which it leaves its process id.

    `options`: of unified memory, too, the session is kept, which it does by default not do and only can in
    confidential computing of single GPUs.
    """

    program: str = "/usr/bin/nvidia-persistenced"
    options: tuple[str, ...] = ("--uvm-persistence-mode",)
    pid_file: Path = Path("/run/nvidia-persistenced/nvidia-persistenced.pid")


def make_nodes(devices: str, gpus: int, folder: Path) -> None:
    """Below `folder`, as `devices`, the text of /proc/devices, numbers them; none where no driver is there.

    Otherwise udev or a setuid program of the driver's does this.
    """
    majors = {}
    for line in devices.partition("Block devices:")[0].splitlines():
        number, _, name = line.strip().partition(" ")
        if number.isdigit():
            majors[name] = int(number)
    driver = next((majors[name] for name in _DRIVER if name in majors), None)
    if driver is not None:
        _make(folder / "nvidiactl", driver, _CONTROL_MINOR)
        for index in range(gpus):
            _make(folder / f"nvidia{index}", driver, index)
    if _UNIFIED_MEMORY in majors:
        _make(folder / "nvidia-uvm", majors[_UNIFIED_MEMORY], 0)


def start_daemon(daemon: Daemon, seconds: float) -> None:
    """Returns once it has initialised the GPUs and holds them. Raises `Refusal` gpu-persistenced.

    One that hangs in the kernel cannot be killed, so nobody waits for its end.
    """
    null = subprocess.DEVNULL
    try:
        started = subprocess.Popen([daemon.program, *daemon.options], stdin=null, stdout=null, stderr=null)
        status = started.wait(seconds)
    except OSError as error:
        raise Refusal("gpu-persistenced", f"{daemon.program}: {error.strerror}") from error
    except subprocess.TimeoutExpired:
        started.kill()
        raise Refusal("gpu-persistenced", f"{daemon.program} was not up within {seconds:g} s") from None
    if status:
        raise Refusal("gpu-persistenced", f"{daemon.program} ended with status {status}")
    try:
        pid = int(daemon.pid_file.read_text("ascii"))
        os.kill(pid, 0)
    except (OSError, ValueError) as error:
        raise Refusal("gpu-persistenced", f"{daemon.program} does not run: {error}") from error


def _make(path: Path, major: int, minor: int) -> None:
    """For everybody, as the driver's own program makes them: who may use a GPU, a container's devices say."""
    path.unlink(missing_ok=True)
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(major, minor))
    path.chmod(0o666)
