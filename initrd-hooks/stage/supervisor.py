"""Watches the worker: what it says, how long it takes, how it ends."""

from __future__ import annotations

import json
import os
import select
import signal
import time

from stage import console
from stage.kernel import Kernel
from stage.places import Places
from stage.worker import RUNNER, work
from tinboot.formats.bootlog import Passed, passed_line
from tinboot.formats.halt import Halt

#: Seconds a step may take. A hook takes well under one; emulation on a busy machine is 20 times slower.
DEFAULT_DEADLINE = 30
DEADLINES = {
    RUNNER: 60,  # loads a dozen kernel modules
    "30-volumes": 90,  # up to 24 disks
    "40-gpu": 600,  # up to 8 GPUs; the hook holds its gate to less where there are fewer
}


class Ended(Exception):
    """The boot is over, and why."""

    def __init__(self, halt: Halt) -> None:
        super().__init__(halt)
        self.halt = halt


class _Watch:
    """What the worker has told so far."""

    def __init__(self) -> None:
        self.passed: list[Passed] = []
        self.done = False
        self._rest = b""
        self.begin(RUNNER)

    def begin(self, step: str) -> None:
        self.step = step
        self.seconds = DEADLINES.get(step, DEFAULT_DEADLINE)
        self.deadline = time.monotonic() + self.seconds

    def end(self, reason: str, detail: str) -> Ended:
        return Ended(Halt(self.step, reason, detail))

    def hear(self, data: bytes) -> None:
        """Takes what came through the pipe; raises `Ended` on a refusal."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "begin" in message:
                self.begin(message["begin"])
            elif "passed" in message:
                self.passed.append(Passed(**message["passed"]))
                console.say(passed_line(self.passed[-1]))
            elif "refused" in message:
                raise self.end(*message["refused"])
            elif "done" in message:
                self.done = True


def supervise(kernel: Kernel, places: Places, hooks: list[str], started: float) -> list[Passed]:
    """Forks the worker, returns what `hooks` verified once all passed; raises `Ended` otherwise."""
    reader, writer = os.pipe()
    worker = os.fork()
    if worker == 0:
        os.close(reader)
        work(kernel, places, hooks, writer, started)
    os.close(writer)
    watch = _Watch()
    try:
        _follow(watch, worker, reader)
    except BaseException:
        os.kill(worker, signal.SIGKILL)  # and no wait for it: the machine ends, it may hang in the kernel
        raise
    finally:
        os.close(reader)
    _judge(watch, os.waitpid(worker, 0)[1])
    return watch.passed


def _follow(watch: _Watch, worker: int, reader: int) -> None:
    """Until the worker's end; raises `Ended` on a refusal and past a deadline."""
    os.set_blocking(reader, False)
    process = os.pidfd_open(worker)
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.register(reader, select.POLLIN)
    try:
        ended = False
        while not ended:
            left = watch.deadline - time.monotonic()
            if left <= 0:
                raise watch.end("hook-timeout", f"not finished after {watch.seconds} s")
            ready = [fd for fd, _ in poll.poll(left * 1000 + 1)]
            # The pipe is emptied after the worker's end was seen: no word of it is lost. That the pipe ends
            # says nothing: a child of a hook may hold it open, a hook may have closed it.
            ended = process in ready
            if not _empty(watch, reader) and reader in ready:
                poll.unregister(reader)
    finally:
        os.close(process)


def _empty(watch: _Watch, reader: int) -> bool:
    """Hears all that is in the pipe now; False once it has no writer left."""
    try:
        while data := os.read(reader, 65536):
            watch.hear(data)
    except BlockingIOError:
        return True
    return False


def _judge(watch: _Watch, status: int) -> None:
    if os.WIFSIGNALED(status):
        name = signal.strsignal(os.WTERMSIG(status)) or "unknown"
        raise watch.end("hook-killed", f"by signal {os.WTERMSIG(status)}, {name}")
    code = os.WEXITSTATUS(status)
    if code or not watch.done:
        raise watch.end("hook-exited", f"with status {code} and without a result")
