"""Runs a program of the verified root before the hand-over: chrooted, with a deadline, its answer bounded."""

from __future__ import annotations

import os
import select
import signal
import time
from typing import NoReturn

from stage.kernel import MS_BIND, MS_NODEV, MS_NOSUID, MS_REC, Kernel
from stage.places import Places

ENVIRONMENT = {"HOME": "/tmp", "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/usr/sbin"}
RESULT = 3  # the descriptor on which it answers
_LAST_DESCRIPTOR = 1 << 20  # fs.nr_open, the most a process may have


class Overdue(Exception):
    """It did not end by its deadline, and was killed with all that it started in its session."""


class Unusable(Exception):
    """It could not be started, ended with another status than 0, or said too much."""


def run(
    kernel: Kernel, places: Places, words: tuple[str, ...], given: bytes, seconds: float, limit: int
) -> bytes:
    """What `words` wrote on `RESULT`, at most `limit` bytes. `given`, less than a pipe holds, is its input.

    Its mounts are its own: the root that is handed over later is as it was. What it left running stays, and
    can load no kernel module, as nothing of that root can.
    """
    asked, tell = os.pipe()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _become(kernel, places, words, asked, writer)
    os.close(asked)
    os.close(writer)
    try:  # noqa: SIM105 - contextlib would be one more file
        os.write(tell, given)
    except BrokenPipeError:
        pass  # it has ended already, and its status says so
    os.close(tell)
    try:
        data = _read(child, reader, time.monotonic() + seconds, limit)
    except BaseException:
        _kill(child)
        raise
    finally:
        os.close(reader)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise Unusable(f"{' '.join(words)} ended with status {status}")
    return data


def _read(child: int, reader: int, deadline: float, limit: int) -> bytes:
    """Until the child's end. That the pipe ends says nothing: what it started may hold it open."""
    os.set_blocking(reader, False)
    process = os.pidfd_open(child)
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.register(reader, select.POLLIN)
    data, ended = b"", False
    try:
        while not ended:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Overdue
            ready = [fd for fd, _ in poll.poll(left * 1000 + 1)]
            ended = process in ready
            try:
                while part := os.read(reader, 65536):
                    data += part
                    if len(data) > limit:
                        raise Unusable(f"it answered with more than {limit} bytes")
                if reader in ready:
                    poll.unregister(reader)
            except BlockingIOError:
                pass
    finally:
        os.close(process)
    return data


def _kill(child: int) -> None:
    """No wait for it: the machine ends, and it may hang in the kernel."""
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:  # it had no session of its own yet
        os.kill(child, signal.SIGKILL)


def _become(kernel: Kernel, places: Places, words: tuple[str, ...], asked: int, writer: int) -> NoReturn:
    try:
        os.setsid()
        enter(kernel, places)
        null = os.open("/dev/null", os.O_RDWR)
        high = os.dup(writer), os.dup(asked)  # out of the way of 0 to 3
        for target, source in ((0, high[1]), (1, null), (2, null), (RESULT, high[0])):
            os.dup2(source, target)
        os.closerange(RESULT + 1, _LAST_DESCRIPTOR)
        kernel.forgo_modules()
        kernel.execute(words, ENVIRONMENT)
    finally:
        os._exit(127)


def enter(kernel: Kernel, places: Places) -> None:
    """Makes the verified root this process's alone, with the devices that it will have and room to write."""
    kernel.own_mounts()
    for source in (places.dev, places.proc, places.sys, places.run):
        target = places.sysroot + source.removeprefix(places.root)
        kernel.mount(source, target, "", MS_BIND | MS_REC)
    for folder in ("tmp", "var"):
        kernel.mount("tmpfs", f"{places.sysroot}/{folder}", "tmpfs", MS_NOSUID | MS_NODEV, "size=64m")
    os.symlink("/run", f"{places.sysroot}/var/run")
    kernel.chroot(places.sysroot)
