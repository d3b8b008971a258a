"""What stands between the driver's modules and NVML: device nodes, and the daemon that keeps GPUs awake.

A GPU in confidential computing makes one session with its driver after each reset. When the last client
leaves, the session is gone and the GPU with it; so the daemon is the first client, and outlives the gate.
"""

from __future__ import annotations

import os
import select
import signal
import stat
import time
from typing import TYPE_CHECKING, NamedTuple

from tinboot.formats.halt import Refusal

if TYPE_CHECKING:
    from os import PathLike

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
    pid_file: str | PathLike[str] = "/run/nvidia-persistenced/nvidia-persistenced.pid"


def make_nodes(devices: str, gpus: int, folder: str | PathLike[str]) -> None:
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
        _make(f"{folder}/nvidiactl", driver, _CONTROL_MINOR)
        for index in range(gpus):
            _make(f"{folder}/nvidia{index}", driver, index)
    if _UNIFIED_MEMORY in majors:
        _make(f"{folder}/nvidia-uvm", majors[_UNIFIED_MEMORY], 0)


class Starting:
    """The daemon on its way: initialising GPUs takes seconds, in which others may do something else."""

    def __init__(self, daemon: Daemon) -> None:
        """Raises `Refusal` gpu-persistenced."""
        null = [(os.POSIX_SPAWN_OPEN, number, "/dev/null", os.O_RDWR, 0) for number in range(3)]
        words = (daemon.program, *daemon.options)
        self._daemon = daemon
        try:
            self.pid = os.posix_spawn(daemon.program, words, os.environ, file_actions=null)
        except OSError as error:
            raise Refusal("gpu-persistenced", f"{daemon.program}: {error.strerror}") from error

    def finish(self, seconds: float) -> None:
        """Returns once it has initialised the GPUs and holds them. Raises `Refusal` gpu-persistenced.

        One that hangs in the kernel cannot be killed, so nobody waits for its end.
        """
        program, pid_file = self._daemon.program, self._daemon.pid_file
        if not _ended(self.pid, time.monotonic() + seconds):
            os.kill(self.pid, signal.SIGKILL)
            raise Refusal("gpu-persistenced", f"{program} was not up within {seconds:g} s")
        if status := os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]):
            raise Refusal("gpu-persistenced", f"{program} ended with status {status}")
        try:
            with open(pid_file, encoding="ascii") as file:
                os.kill(int(file.read()), 0)
        except (OSError, ValueError) as error:
            raise Refusal("gpu-persistenced", f"{program} does not run: {error}") from error


def _ended(pid: int, deadline: float) -> bool:
    process = os.pidfd_open(pid)
    try:
        ready, _, _ = select.select([process], [], [], max(0.0, deadline - time.monotonic()))
    finally:
        os.close(process)
    return bool(ready)


def _make(path: str, major: int, minor: int) -> None:
    """For everybody, as the driver's own program makes them: who may use a GPU, a container's devices say."""
    if os.path.lexists(path):
        os.unlink(path)
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(major, minor))
    os.chmod(path, 0o666)  # noqa: S103 - see above
