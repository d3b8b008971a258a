"""The evidence server's connections: one thread, one poll(2), and a bound for everything.

Requests are answered at once, or later by `Work`, which is polled beside the connections. What a caller can
hold: one of `Limits.connections`, 8 KiB of a head, one answer; each for a time that nothing it sends extends.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import sys
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from tinboot.guest import http_request, http_response
from tinboot.guest.http_request import Rejected, Request
from tinboot.guest.http_response import Response, problem

#: Names an answer that is to come.
Ticket = int

Handler = Callable[[Request], Response | Ticket]

_YOUNG = 2.0  # seconds


class Work(Protocol):
    """What gives answers later."""

    def descriptor(self) -> int:
        """To be polled for reading; -1 for none."""

    def due(self) -> float:
        """When `step` wants to be called at the latest, on the monotonic clock; infinity for never."""

    def step(self, readable: bool) -> Iterable[tuple[Ticket, Response]]:
        """Goes on without waiting; answers that are there now."""

    def drop(self, ticket: Ticket) -> None:
        """Nobody waits for it any more."""


class Limits(NamedTuple):
    """Seconds: `idle` before a request begins, `request` from its first byte to its end, `answer` until the
    whole answer is taken.
    """

    connections: int = 256
    idle: float = 60
    request: float = 10
    answer: float = 30


class _Connection:
    """Reads, until a request is there; waits, where it has a `ticket`; sends, what is `left` of an answer."""

    __slots__ = ("closed", "deadline", "head", "last", "left", "received", "socket", "ticket")

    def __init__(self, accepted: socket.socket, deadline: float) -> None:
        self.socket = accepted
        self.deadline = deadline
        self.received = bytearray()
        self.left: list[memoryview] = []  # of an answer that others may be sent, too: no copy of it
        self.ticket: Ticket | None = None
        self.head = self.last = self.closed = False

    @property
    def reads(self) -> bool:
        return self.ticket is None and not self.left and not self.closed

    @property
    def idle(self) -> bool:
        return self.reads and not self.received


class Server:
    """`listener`: a listening stream socket, which becomes non-blocking."""

    def __init__(self, listener: socket.socket, handler: Handler, work: Work, limits: Limits) -> None:
        listener.setblocking(False)
        self._listener, self._handler, self._work, self._limits = listener, handler, work, limits
        self._connections: dict[int, _Connection] = {}
        self._waiting: dict[Ticket, _Connection] = {}
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)
        self._worked = -1  # the descriptor of `work` that is polled

    def serve(self) -> None:
        """Does not return."""
        while True:
            self.turn()

    def turn(self) -> None:
        """Waits for one event or deadline, and does all that it makes possible."""
        events = dict(self._poll.poll(self._patience()))
        for descriptor, happened in events.items():
            if descriptor in self._connections:
                self._attend(self._connections[descriptor], happened)
        for ticket, response in self._work.step(self._worked in events):
            if (connection := self._waiting.pop(ticket, None)) is not None:
                connection.ticket = None
                self._answer(connection, response)
                self._proceed(connection)
        self._follow_work()
        self._expire()
        if self._listener.fileno() in events:  # last, as it gives numbers out again that stand in `events`
            self._accept()

    def _follow_work(self) -> None:
        descriptor = self._work.descriptor()
        if descriptor != self._worked:
            if self._worked >= 0:
                self._poll.unregister(self._worked)
            if descriptor >= 0:
                self._poll.register(descriptor, select.POLLIN)
            self._worked = descriptor

    def _patience(self) -> float | None:
        """Milliseconds until the next deadline."""
        until = min((c.deadline for c in self._connections.values()), default=math.inf)
        until = min(until, self._work.due())
        return None if until == math.inf else max(0.0, math.ceil((until - time.monotonic()) * 1000))

    def _accept(self) -> None:
        for _ in range(self._limits.connections):
            try:
                accepted, _ = self._listener.accept()
            except OSError:  # no more of them, or that one has gone
                return
            accepted.setblocking(False)
            if len(self._connections) >= self._limits.connections and not self._evict():
                self._turn_away(accepted)
            else:
                self._connections[accepted.fileno()] = _Connection(accepted, self._until(self._limits.idle))
                self._poll.register(accepted, select.POLLIN)

    def _turn_away(self, accepted: socket.socket) -> None:
        busy = problem(503, Retry_After="1")
        with contextlib.suppress(OSError), accepted:
            accepted.send(http_response.head(busy, time.time(), last=True) + busy.body)  # its buffer is empty

    def _evict(self) -> bool:
        """The connection that idles the longest makes room, as HTTP allows at any time (RFC 9112, 9.3); but
        none whose first request may be on its way.
        """
        least = self._until(self._limits.idle - _YOUNG)
        idle = [c for c in self._connections.values() if c.idle and c.deadline < least]
        if idle:
            self._close(min(idle, key=lambda c: c.deadline))
        return bool(idle)

    def _attend(self, connection: _Connection, happened: int) -> None:
        if connection.ticket is not None or happened & (select.POLLERR | select.POLLNVAL):
            self._close(connection)  # while it waits, nothing is polled for but its end
        elif connection.left:
            self._send(connection)
            self._proceed(connection)
        else:
            self._receive(connection)

    def _receive(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(http_request.MAX_HEAD)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(connection)
            return
        if not connection.received:
            connection.deadline = self._until(self._limits.request)
        connection.received += data
        self._proceed(connection)

    def _proceed(self, connection: _Connection) -> None:
        """Takes one request after another, as long as each is there as a whole and answered."""
        while connection.reads and connection.received:
            try:
                head = http_request.cut(connection.received)
                if head is None:
                    return
                request = http_request.parse(head)
            except Rejected as rejected:
                self._end_with(connection, rejected.status)
                return
            connection.head, connection.last = request.method == "HEAD", request.last
            answer = self._ask(request)
            if isinstance(answer, Response):
                self._answer(connection, answer)
            else:
                connection.ticket, connection.deadline = answer, math.inf  # `work` has its own deadlines
                self._waiting[answer] = connection
                self._poll.modify(connection.socket, select.POLLRDHUP)

    def _ask(self, request: Request) -> Response | Ticket:
        try:
            return self._handler(request)
        except BaseException as error:  # a bug, of which no caller learns, and which ends nobody's connection
            print(f"tinboot-attestation: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            return problem(500)

    def _end_with(self, connection: _Connection, status: int) -> None:
        connection.head, connection.last = False, True
        self._answer(connection, problem(status))

    def _answer(self, connection: _Connection, response: Response) -> None:
        text = http_response.head(response, time.time(), last=connection.last)
        connection.left = [memoryview(text)]
        if response.body and not connection.head:
            connection.left.append(memoryview(response.body))
        connection.deadline = self._until(self._limits.answer)
        self._poll.modify(connection.socket, select.POLLOUT)
        self._send(connection)

    def _send(self, connection: _Connection) -> None:
        try:
            sent = connection.socket.sendmsg(connection.left)
        except BlockingIOError:
            return
        except OSError:
            self._close(connection)
            return
        while connection.left and sent >= len(connection.left[0]):
            sent -= len(connection.left.pop(0))
        if connection.left:
            connection.left[0] = connection.left[0][sent:]
        elif connection.last:
            self._close(connection)
        else:
            self._poll.modify(connection.socket, select.POLLIN)
            begun = bool(connection.received)
            connection.deadline = self._until(self._limits.request if begun else self._limits.idle)

    def _expire(self) -> None:
        now = self._until(0)
        for connection in [c for c in self._connections.values() if c.deadline <= now]:
            if connection.left or connection.idle:
                self._close(connection)
            else:
                self._end_with(connection, 408)

    @staticmethod
    def _until(seconds: float) -> float:
        return time.monotonic() + seconds

    def _close(self, connection: _Connection) -> None:
        if connection.ticket is not None:
            del self._waiting[connection.ticket]
            self._work.drop(connection.ticket)
        del self._connections[connection.socket.fileno()]
        self._poll.unregister(connection.socket)
        connection.socket.close()
        connection.left, connection.closed = [], True
