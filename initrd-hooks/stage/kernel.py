"""The system calls that Python's standard library lacks, and those that only PID 1 of a guest may make.

One object carries them through runner and hooks. Numbers are x86-64's.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from typing import NoReturn

# include/uapi/linux/mount.h
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384

_FINIT_MODULE = 313  # arch/x86/entry/syscalls/syscall_64.tbl
_NEW_MOUNTS = 0x20000  # include/uapi/linux/sched.h: CLONE_NEWNS
_CAPBSET_DROP = 24  # include/uapi/linux/prctl.h: PR_CAPBSET_DROP
_SYS_MODULE = 16  # include/uapi/linux/capability.h: CAP_SYS_MODULE
_POWER_OFF = 0x4321FEDC  # include/uapi/linux/reboot.h
_RESTART = 0x01234567


class Kernel:
    """Every method raises OSError with the call's errno."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def mount(self, source: str, target: str, kind: str, flags: int, data: str = "") -> None:
        """mount(2). `flags` of MS_*, `data` as the file system takes it."""
        texts = (os.fsencode(source), os.fsencode(target), os.fsencode(kind))
        options = os.fsencode(data) if data else None
        if self._libc.mount(*texts, ctypes.c_ulong(flags), options):
            raise self._error(target)

    def load_module(self, path: str) -> None:
        """finit_module(2): no kmod, no dependency files."""
        fd = os.open(path, os.O_RDONLY)
        try:
            number, descriptor = ctypes.c_long(_FINIT_MODULE), ctypes.c_int(fd)
            if self._libc.syscall(number, descriptor, b"", ctypes.c_int(0)):
                raise self._error(path)
        finally:
            os.close(fd)

    def ioctl(self, path: str, request: int, buffer: bytearray) -> None:
        """One ioctl(2) on the device at `path`; the kernel's answer overwrites `buffer`."""
        fd = os.open(path, os.O_RDWR)
        try:
            fcntl.ioctl(fd, request, buffer, True)
        finally:
            os.close(fd)

    def block_node(self, path: str, device: int) -> None:
        """A node for a block device, readable by root alone."""
        os.mknod(path, 0o060400, device)

    def enter(self, root: str) -> None:
        """Makes the mount at `root` the process's / in place of the initrd's rootfs."""
        os.chdir(root)
        self.mount(".", "/", "", MS_MOVE)
        os.chroot(".")
        os.chdir("/")

    def own_mounts(self) -> None:
        """What this process mounts from now on, no other sees."""
        if self._libc.unshare(ctypes.c_int(_NEW_MOUNTS)):
            raise self._error("CLONE_NEWNS")

    def chroot(self, path: str) -> None:
        os.chroot(path)
        os.chdir("/")

    def forgo_modules(self) -> None:
        """What this process executes, and all that it starts, can load no kernel module any more."""
        if self._libc.prctl(_CAPBSET_DROP, ctypes.c_ulong(_SYS_MODULE), 0, 0, 0):
            raise self._error("CAP_SYS_MODULE")

    def execute(self, words: tuple[str, ...], environment: dict[str, str]) -> NoReturn:
        """Becomes the program at `words[0]`, with the priority that any program has."""
        os.setpriority(os.PRIO_PROCESS, 0, 0)
        os.execve(words[0], words, environment)  # no shell is the point

    def power_off(self) -> NoReturn:
        """Ends the machine. Where ACPI cannot: restart, and at last PID 1's death, a panic (panic=-1)."""
        for command in (_POWER_OFF, _RESTART):
            self._libc.reboot(ctypes.c_int(command))
        os._exit(1)

    @staticmethod
    def _error(path: str) -> OSError:
        number = ctypes.get_errno()
        return OSError(number, os.strerror(number), path)
