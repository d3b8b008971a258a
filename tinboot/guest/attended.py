"""Work in a process that can be given up, every call of it with a deadline of its own.

A driver that hangs cannot be interrupted: its caller is. The process says over a pipe what it is about to
call and when that came back, one JSON object a line; several threads may.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from tinboot.formats.halt import Refusal

_LIMIT = 1 << 20  # bytes of everything that the process says
_LAST_DESCRIPTOR = 1 << 20  # fs.nr_open, the most a process may have


class Overdue(Exception):
    """`name` of the call that did not come back, `seconds` that it had."""

    def __init__(self, name: str, seconds: float) -> None:
        super().__init__(f"{name} did not come back within {seconds:g} s")
        self.name = name
        self.seconds = seconds


class Broken(Exception):
    """The process ended without a result, or said too much; or raised what is not a `Refusal`."""


class Attendance:
    """What the work tells of itself, in the process that does it."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    @contextmanager
    def call(self, name: str) -> Iterator[None]:
        """Around one call: it may take as long as its name is given."""
        number = next(self._numbers)
        self.say({"begin": [number, name]})
        try:
            yield
        finally:
            self.say({"end": number})

    def say(self, message: dict[str, object]) -> None:
        data = memoryview(json.dumps(message).encode() + b"\n")
        with self._lock:
            while data:
                data = data[os.write(self._pipe, data) :]


#: What is done in the process: its result is a JSON value.
Work = Callable[[Attendance], object]


def attend(
    work: Work,
    seconds: Callable[[str], float],
    between: float = 30.0,
    meanwhile: Callable[[], None] = lambda: None,
) -> object:
    """The JSON value that `work` returns. `seconds` of a call by its name; `between` calls, and at the end.
    `meanwhile` runs here once the work has begun; what it takes, deadlines are longer.

    Raises the `Refusal` that `work` raises, `Overdue` and `Broken`.
    """
    child, reader = begin(work)
    try:
        meanwhile()
        return _hear(reader, seconds, between)
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, os.WNOHANG)  # and no wait for it: it may hang in the kernel


def begin(work: Work) -> tuple[int, int]:
    """The process, and the pipe from which it is heard, for whoever attends to it in another way: lines of
    `{"begin":[number,name]}` and `{"end":number}`, the last of `result`, `refused` or `failed`.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _do(writer, work)
    os.close(writer)
    return child, reader


def _hear(reader: int, seconds: Callable[[str], float], between: float) -> object:
    pending: dict[int, tuple[float, str]] = {}  # by number: deadline, name
    deadline, heard, rest = time.monotonic() + between, 0, b""
    while True:
        until, name = min(pending.values(), default=(deadline, "the next call"))
        ready, _, _ = select.select([reader], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            raise Overdue(name, seconds(name) if pending else between)
        data = os.read(reader, 65536)
        heard += len(data)
        if not data or heard > _LIMIT:
            raise Broken(f"it ended without a result, {heard} bytes said" if not data else "it says too much")
        *lines, rest = (rest + data).split(b"\n")
        now = time.monotonic()
        for line in lines:
            message = json.loads(line)
            if "begin" in message:
                number, name = message["begin"]
                pending[number] = (now + seconds(name), name)
            elif "end" in message:
                pending.pop(message["end"], None)
                deadline = now + between
            elif "result" in message:
                return message["result"]
            elif "refused" in message:
                raise Refusal(*message["refused"])
            else:
                raise Broken(message["failed"])


def _do(pipe: int, work: Work) -> NoReturn:
    """In the process: whatever happens, it is said, and nothing of the caller's runs on in it, or is open."""
    try:
        os.closerange(3, pipe)
        os.closerange(pipe + 1, _LAST_DESCRIPTOR)
        attendance = Attendance(pipe)
        try:
            last: dict[str, object] = {"result": work(attendance)}
        except Refusal as refusal:
            last = {"refused": [refusal.reason, refusal.detail]}
        except BaseException as error:  # a bug, told by name
            last = {"failed": f"{type(error).__name__}: {error}"}
        attendance.say(last)
    finally:
        os._exit(0)
