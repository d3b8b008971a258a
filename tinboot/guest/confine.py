"""Runs a program that may do nothing but compute: `confine.py DESCRIPTOR PROGRAM ARGUMENTS...`.

Standard input, output and error, and as descriptor 3 the one given, are its only ways in and out. It has no
network, no host name and no IPC of the machine's, sees its own processes alone, opens no device (those of
GPUs are everybody's), is nobody (65534) without privileges or a way back to them, and writes only to a small
file system of its own, which is gone when it ends. Whatever of that cannot be had ends this program instead:
exit code 125, and the reason on standard error.

Linux: unshare(2), namespaces(7), user_namespaces(7), mount_setattr(2), prctl(2), setrlimit(2). Standard
library only: it is started as a file, `python3 -I -S -B confine.py`, and imports nothing of tinboot.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys
from pathlib import Path
from typing import NoReturn

NOBODY = 65534
REFUSED = 125

#: Where its own file system lies over what stands there; its working directory.
HOME = "/run"
HOME_BYTES = 8 << 20

#: Measured: 45 MiB resident, one thread beside the main one, 20 KiB written.
LIMITS = (
    (resource.RLIMIT_AS, 512 << 20),
    (resource.RLIMIT_NPROC, 64),  # of all processes of nobody: as many GPUs may be verified at once
    (resource.RLIMIT_NOFILE, 64),
    (resource.RLIMIT_FSIZE, 4 << 20),
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_CPU, 30),
)

# include/uapi/linux/sched.h
_CLONE_NEWNS = 0x00020000
_CLONE_NEWUTS = 0x04000000
_CLONE_NEWIPC = 0x08000000
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWPID = 0x20000000
_CLONE_NEWNET = 0x40000000

# include/uapi/linux/mount.h
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_PRIVATE = 1, 2, 4, 8, 1 << 18
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_ATTR = struct.Struct("=4Q")  # struct mount_attr: to set, to clear, propagation, user namespace

_MOUNT_SETATTR = 442  # arch/x86/entry/syscalls/syscall_64.tbl
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000  # include/uapi/linux/fcntl.h

# include/uapi/linux/prctl.h
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}{arguments}: {os.strerror(code)}")


def _separate(privileged: bool) -> None:
    """Namespaces of its own, in which the next child is the first process."""
    uid, gid = os.geteuid(), os.getegid()
    flags = _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWUTS | _CLONE_NEWPID | _CLONE_NEWNS
    _call("unshare", flags if privileged else flags | _CLONE_NEWUSER)
    if not privileged:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{NOBODY} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{NOBODY} {gid} 1")
    _take_back_mounts()
    options = f"size={HOME_BYTES},nr_inodes=64,mode=0700,uid={NOBODY},gid={NOBODY}".encode()
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    _call("mount", b"tmpfs", HOME.encode(), b"tmpfs", ctypes.c_ulong(flags), options)


def _take_back_mounts() -> None:
    """Of all that is mounted it gets copies: private, nothing in them to write to, to open as a device."""
    attributes = _ATTR.pack(_ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV, 0, _MS_PRIVATE, 0)
    where = ctypes.c_int(_AT_FDCWD), b"/", ctypes.c_uint(_AT_RECURSIVE)
    _call("syscall", ctypes.c_long(_MOUNT_SETATTR), *where, attributes, ctypes.c_size_t(_ATTR.size))


def _own_processes() -> None:
    """In the first process of the namespace: /proc shows no other one's."""
    flags = ctypes.c_ulong(_MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    _call("mount", b"proc", b"/proc", b"proc", flags, None)


def _become_nobody(privileged: bool) -> None:
    """Nothing in between may fail halfway: each step that is refused raises."""
    for limit, value in LIMITS:
        resource.setrlimit(limit, (value, value))
    if privileged:
        os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    zero = ctypes.c_ulong(0)
    _call("prctl", _PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero)
    # after the change of user, which takes it back
    _call("prctl", _PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), zero, zero, zero)


def main(answer: int, command: list[str]) -> NoReturn:
    """Ends as the program does; 128 and more: the number of the signal that ended it.

    SIGTERM ends the program and all that it started, and then this.
    """
    try:
        privileged = os.geteuid() == 0
        _separate(privileged)
        child = os.fork()
        if child == 0:
            _own_processes()
            os.chdir(HOME)
            os.dup2(answer, 3)
            os.closerange(4, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
            _become_nobody(privileged)
            os.umask(0o077)
            os.execve(command[0], command, dict(os.environ))  # noqa: S606 - that is what it is for
    except (OSError, ValueError) as error:
        print(f"confine: {error}", file=sys.stderr, flush=True)
        os._exit(REFUSED)
    os.close(answer)
    # its end is that of every process in its namespace: whoever waits for this one finds none of them
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGKILL))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
