"""Evidence for a caller's nonce: one collection at a time, in a process that can be given up.

The PSP serves all guests of its host, which slows a guest down that asks too often, and a GPU makes a report
in about a second. So callers are held to `Limits.rate`: who comes beyond it, or beyond the short queue, is
told when to come again. A device that hangs costs its deadline once: while the process that waits for it
cannot be ended, nothing else is started, and everybody is told at once that there is no evidence.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tinboot.guest.attended import Work, begin
from tinboot.guest.http_response import Response, problem

#: Bytes that a process may say: a document of eight GPUs takes 500,000.
_LIMIT = 4 << 20
_GRACE = 2.0  # seconds for a killed process to be gone
_LOOK = 0.01  # seconds between two looks whether it is


class Limits(NamedTuple):
    """`rate`: collections a second, `burst` of them at once. `deadline` and `patience`: seconds for one, and
    for it and its wait in the queue together.
    """

    rate: float = 2
    burst: int = 8
    queue: int = 8
    deadline: float = 30
    patience: float = 60


def limits(gpus: int) -> Limits:
    """Five seconds more for each GPU, as the gate allows (gpu_gate.py): NVML may take turns."""
    deadline = Limits().deadline + 5 * gpus
    return Limits(deadline=deadline, patience=2 * deadline)


class _Job(NamedTuple):
    ticket: int
    work: Work
    until: float


class _Running(NamedTuple):
    job: _Job
    process: int
    pipe: int
    deadline: float
    said: bytearray


class Collector:
    """`Work` of the server: `ask` takes a request in, `step` answers. `result` of a process: a document."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._tickets = itertools.count(1)
        self._queue: deque[_Job] = deque()
        self._running: _Running | None = None
        self._ended: dict[int, float] = {}  # processes that were killed, and when
        self._tokens, self._counted = float(limits.burst), clock()

    def ask(self, work: Work) -> Response | int:
        """A ticket, or that it is too much: 429. `work` runs in the process and returns the document."""
        now = self._clock()
        full = min(self._tokens + (now - self._counted) * self._limits.rate, self._limits.burst)
        self._tokens, self._counted = full, now
        if self._tokens < 1 or len(self._queue) >= self._limits.queue:
            wait = math.ceil((1 - self._tokens) / self._limits.rate)
            return problem(429, Retry_After=str(max(1, wait)))
        self._tokens -= 1
        job = _Job(next(self._tickets), work, now + self._limits.patience)
        self._queue.append(job)
        return job.ticket

    def drop(self, ticket: int) -> None:
        """Whoever asked has gone. What runs already goes on: no device is left in the middle of a call."""
        self._queue = deque(job for job in self._queue if job.ticket != ticket)

    def descriptor(self) -> int:
        return -1 if self._running is None else self._running.pipe

    def due(self) -> float:
        if self._running is not None:
            return min(self._running.deadline, min((job.until for job in self._queue), default=math.inf))
        return self._clock() + _LOOK if self._queue else math.inf

    def step(self, readable: bool) -> Iterator[tuple[int, Response]]:
        now = self._clock()
        if self._running is not None:
            answer = self._hear(self._running) if readable else None
            if answer is None and self._running.deadline <= now:
                answer = self._failed(f"{_pending(self._running.said)} did not come back in time")
            if answer is not None:
                ticket = self._running.job.ticket
                self._end(self._running)
                yield ticket, answer
        while self._queue and self._queue[0].until <= now:
            yield self._queue.popleft().ticket, self._failed("the queue did not move in time")
        if self._running is None and self._queue:
            yield from self._next(now)

    def _next(self, now: float) -> Iterator[tuple[int, Response]]:
        """Starts what has waited longest, unless an earlier process is still there."""
        for process in list(self._ended):
            if os.waitpid(process, os.WNOHANG) != (0, 0):
                del self._ended[process]
        if any(now - since >= _GRACE for since in self._ended.values()):
            while self._queue:
                yield self._queue.popleft().ticket, self._failed("a call of the driver still hangs")
        elif not self._ended:
            job = self._queue.popleft()
            process, pipe = begin(job.work)
            self._running = _Running(job, process, pipe, now + self._limits.deadline, bytearray())

    def _hear(self, running: _Running) -> Response | None:
        """An answer, once the process has ended."""
        data = os.read(running.pipe, 1 << 16)
        running.said.extend(data)
        if len(running.said) > _LIMIT:
            return self._failed("the collecting process says too much")
        if data:
            return None
        *_, last = running.said.rstrip(b"\n").split(b"\n")
        try:
            message = json.loads(last)
        except ValueError:
            message = {}
        if isinstance(message.get("result"), str):
            return Response(200, message["result"].encode())
        why = message.get("failed") or ": ".join(message.get("refused", ["it ended without a word"]))
        return self._failed(why)

    def _end(self, running: _Running) -> None:
        os.close(running.pipe)
        os.kill(running.process, signal.SIGKILL)
        self._ended[running.process] = self._clock()
        self._running = None

    @staticmethod
    def _failed(why: str) -> Response:
        """What went wrong is for the console; who asked learns that there is nothing."""
        print(f"tinboot-attestation: no evidence: {why[:400]}", file=sys.stderr, flush=True)
        return problem(503, "no evidence at this time", Retry_After="5")


def _pending(said: bytearray) -> str:
    """The call of which the process said last that it begins."""
    begun = [line for line in said.split(b"\n") if line.startswith(b'{"begin"')]
    return str(json.loads(begun[-1])["begin"][1]) if begun else "the CPU's report"
