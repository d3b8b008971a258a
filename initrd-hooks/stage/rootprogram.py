"""Runs a module of the verified root before the hand-over: chrooted, with a deadline, its answer bounded.

No other interpreter starts for it. This one is the root's own, of the same package (docs/adr/0011), and a
fork of it has nothing to read and to set up before the module's first line.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from stage.kernel import MS_BIND, MS_NODEV, MS_NOSUID, MS_REC, Kernel
from stage.places import Places

ENVIRONMENT = {"HOME": "/tmp", "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/usr/sbin"}
RESULT = 3  # the descriptor on which it answers
_LAST_DESCRIPTOR = 1 << 20  # fs.nr_open, the most a process may have

#: What the runner adds to the interpreter's path, and what it imported from there: not the root's.
_OUR_FOLDER, _OURS = "/usr/lib/tinboot", ("stage", "tinboot", "yaml")


class Overdue(Exception):
    """It did not end by its deadline, and was killed with all that it started in its session."""


class Unusable(Exception):
    """It could not be started, ended with another status than 0, or said too much."""


class Program:
    """A module of the verified root in a process of its own: imported at once, its `main` called when asked.

    Its mounts are its own: the root that is handed over later is as it was. What it leaves running stays, and
    can load no kernel module, as nothing of that root can. At the context's end it is killed, where it runs.
    """

    def __init__(self, kernel: Kernel, places: Places, module: str) -> None:
        self._module = module
        asked, self._tell = os.pipe()
        self._reader, writer = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            _become(kernel, places, module, asked, writer)
        os.close(asked)
        os.close(writer)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._reader)
        if self._tell >= 0:
            os.close(self._tell)
        if self._child:
            _kill(self._child)

    def ask(self, given: bytes, seconds: float, limit: int) -> bytes:
        """What it writes on `RESULT`, at most `limit` bytes. Its input: `given`, less than a pipe holds."""
        try:  # noqa: SIM105 - contextlib would be one more file
            os.write(self._tell, given)
        except BrokenPipeError:
            pass  # it has ended already, and its status says so
        os.close(self._tell)
        self._tell = -1
        data = _read(self._child, self._reader, time.monotonic() + seconds, limit)
        status = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])
        self._child = 0
        if status:
            raise Unusable(f"{self._module} ended with status {status}")
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


def _become(kernel: Kernel, places: Places, module: str, asked: int, writer: int) -> NoReturn:
    status = 127
    try:
        os.setsid()
        enter(kernel, places)
        null = os.open("/dev/null", os.O_RDWR)
        high = os.dup(writer), os.dup(asked)  # out of the way of 0 to 3
        for target, source in ((0, high[1]), (1, null), (2, null), (RESULT, high[0])):
            os.dup2(source, target)
        os.closerange(RESULT + 1, _LAST_DESCRIPTOR)
        kernel.forgo_modules()
        os.setpriority(os.PRIO_PROCESS, 0, 0)
        os.environ.clear()  # words of the kernel command line may have come in
        os.environ.update(ENVIRONMENT)
        main = load(module)
        status = 1
        main()
        status = 0
    finally:
        os._exit(status)


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


def load(module: str) -> Callable[[], None]:
    """`main` of `module`, as the verified root has it."""
    leave()
    __import__(module)
    main: Callable[[], None] = sys.modules[module].main
    return main


def leave() -> None:
    """What is imported from here on is the verified root's."""
    gc.disable()  # a process of seconds: collecting takes a tenth of its imports
    sys.path[:] = [folder for folder in sys.path if folder != _OUR_FOLDER]
    sys.path_importer_cache.clear()
    for name in [name for name in sys.modules if name.partition(".")[0] in _OURS]:
        del sys.modules[name]
