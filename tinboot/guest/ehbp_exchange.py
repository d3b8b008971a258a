"""One request through the gateway: opened for the workload, its response sealed for the client, both at once.

    client ──frames──► opened ──body──► workload
           ◄──frames── sealed ◄──body──

Nothing of a request reaches the workload before its first frame was authenticated: a request for another key,
or that is none, is answered here (SPEC.md, 5.2 and 5.4.2). After that the connections end where something is
wrong, in the middle of a chunk, so that neither side takes a part for the whole.

One request a connection: what follows it is never read, so there is no second request to smuggle.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import time
from typing import NamedTuple, Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tinboot.ehbp import messages
from tinboot.ehbp.messages import Answer, Limits, Sealer
from tinboot.formats.errors import Malformed, Mismatch, Refused, TinbootError, Unavailable
from tinboot.guest import http1
from tinboot.guest.outgoing import Outgoing

_KEY_FIELD, _NONCE_FIELD = messages.ENCAPSULATED_KEY.lower(), messages.RESPONSE_NONCE.lower()

#: Bytes of one read; as a rule less than a Unix socket holds.
_READ = 128 << 10

#: Bytes on their way to one side, beyond which the other side is not read.
_HIGH = 256 << 10

#: Seconds in which what the client went on sending after the end of the response is thrown away.
_LINGER = 2.0

_REASONS = {400: "Bad Request", 413: "Content Too Large", 502: "Bad Gateway"}
_REASONS |= {422: "Unprocessable Content", 503: "Service Unavailable"}


class Patience(NamedTuple):
    """Seconds: for a head, for the first frame, for the workload's accepting, and without a byte moved."""

    head: float = 10.0
    first: float = 120.0
    connect: float = 5.0
    idle: float = 3600.0


class Settings(NamedTuple):
    """`upstream`: address and port of the workload. `response_limit`: bytes of plaintext."""

    private: X25519PrivateKey
    upstream: tuple[str, int]
    limits: Limits = Limits()
    response_limit: int = 8 << 30
    patience: Patience = Patience()


class Memory(Protocol):
    """What all requests together may hold beyond their `_HIGH`."""

    def hold(self, before: int, now: int) -> None:
        """One request held `before` bytes and holds `now`. Raises `Busy` where that is too much."""
        ...


class Busy(Unavailable):
    """All requests together hold as much as they may."""


class Ended(Exception):
    """The exchange is over and nobody is to be told: a side went away, or stood still for too long."""


#: SPEC.md, 5.4.2: no more than that it was the request's fault, or not.
_STATUS = ((Busy, 503), (Unavailable, 502), (Refused, 413), (TinbootError, 400))


class Exchange:
    """Of one connection, which is closed by whoever opened it."""

    def __init__(self, client: socket.socket, settings: Settings, memory: Memory) -> None:
        self._client = client
        self._settings = settings
        self._memory = memory
        self._held = 0
        self._up, self._down = Outgoing(), Outgoing()
        self._sealer: Sealer | None = None
        self._left = settings.response_limit
        self._room = memoryview(bytearray(_READ))  # for what was read last, of either side

    def run(self) -> None:
        """To its end, whatever that is; raises nothing that a peer can bring about."""
        try:
            self._client.settimeout(self._settings.patience.head)
            head, rest = self._head()
            self._request = http1.parse_request(head)
            self._body = http1.request_body(self._request)
            self._answer = self._opened()
            first = self._first(rest)
            self._relay(first)
        except (Ended, OSError):
            pass
        except TinbootError as error:
            self._refuse(error)
        finally:
            self._memory.hold(self._held, 0)

    def _head(self) -> tuple[bytes, bytes]:
        """Of the request, and what came behind it."""
        data = b""
        deadline = time.monotonic() + self._settings.patience.head
        while (end := data.find(http1.END)) < 0:
            if len(data) > http1.HEAD_LIMIT:
                raise Malformed(f"the head has more than {http1.HEAD_LIMIT} bytes")
            data += self._receive(deadline)
        end += len(http1.END)
        return data[:end], data[end:]

    def _receive(self, deadline: float) -> memoryview:
        self._client.settimeout(max(0.001, deadline - time.monotonic()))
        return self._read_client()

    def _read_client(self) -> memoryview:
        """What there is, until the next read. Raises `Ended`."""
        data = self._room[: self._client.recv_into(self._room)]
        if not data:
            raise Ended
        return data

    def _opened(self) -> Answer:
        headers = http1.values(self._request.fields, _KEY_FIELD)
        if len(headers) != 1:
            raise Malformed(f"{messages.ENCAPSULATED_KEY} stands {len(headers)} times, expected once")
        return Answer(self._settings.private, headers[0], self._settings.limits)

    def _first(self, rest: bytes) -> list[bytes]:
        """What the first frames hold; nothing if there is no body. After that the workload may know of it."""
        deadline = time.monotonic() + self._settings.patience.first
        if http1.values(self._request.fields, "expect") and not self._body.ended:
            self._client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")  # RFC 9110, 10.1.1: or it may never come
        found = self._open(rest) if rest else []
        while not self._body.ended and not self._answer.request.opened:
            found = self._open(self._receive(deadline))
        if self._answer.request.opened:
            self._sealer = self._answer.response(nonce := os.urandom(messages.NONCE_LENGTH))
            self._nonce = nonce.hex()
        return found

    def _open(self, data: http1.Buffer) -> list[bytes]:
        opener = self._answer.request
        found = [whole for part in self._body.feed(data) for whole in opener.feed(part)]
        if self._body.ended:
            opener.finish()
        self._account()
        return found

    def _account(self) -> None:
        """Raises `Busy`."""
        now = max(0, self._answer.request.held + self._up.size + self._down.size - _HIGH)
        if now != self._held:
            self._memory.hold(self._held, now)
            self._held = now

    def _relay(self, first: list[bytes]) -> None:
        try:
            upstream = socket.create_connection(self._settings.upstream, self._settings.patience.connect)
        except OSError as error:
            raise Unavailable(f"the workload takes no connection: {error}") from error
        with upstream:
            upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for side in (self._client, upstream):
                side.setblocking(False)
            self._upstream = upstream
            self._response: http1.Response | None = None
            self._heard = b""  # of the response's head
            self._answered: http1.Body = http1.UntilClosed()
            self._send_head()
            self._send_up(first)
            self._turn()
        self._linger()

    def _send_head(self) -> None:
        request = self._request
        fields = http1.end_to_end(request.fields, _KEY_FIELD, _NONCE_FIELD, "expect")
        framing = ("transfer-encoding", "chunked") if self._sealer else ("content-length", "0")
        lines = [f"{request.method} {request.target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in (*fields, framing, ("connection", "close"))]
        self._up.add("\r\n".join((*lines, "", "")).encode("latin-1"))

    def _send_up(self, parts: list[bytes]) -> None:
        for part in parts:
            if part:
                self._up.add(*http1.chunk(part))
        if self._body.ended and self._sealer:
            self._up.add(http1.LAST_CHUNK)

    def _turn(self) -> None:
        """Until the client has the whole response: whatever can be read or written, as it can."""
        poll = select.poll()
        poll.register(self._client, 0)
        asked = {self._client.fileno(): 0}
        self._deaf = False  # whether the workload reads no more
        while not self._answered.ended or self._down.size:
            for side, wanted in ((self._client, self._of_client()), (self._upstream, self._of_upstream())):
                number = side.fileno()
                if asked.get(number, 0) == wanted:
                    continue
                asked[number] = wanted
                # of the workload only what is asked for: that it hung up is seen by who reads to the end
                if wanted or side is self._client:
                    poll.register(side, wanted)
                else:
                    poll.unregister(side)
            ready = dict(poll.poll(self._settings.patience.idle * 1000))
            if not ready:
                raise Ended
            self._move(ready.get(self._client.fileno(), 0), ready.get(self._upstream.fileno(), 0))
            self._account()

    def _of_client(self) -> int:
        reading = not self._body.ended and self._up.size < _HIGH
        return (select.POLLIN if reading else 0) | (select.POLLOUT if self._down.size else 0)

    def _of_upstream(self) -> int:
        reading = not self._answered.ended and self._down.size < _HIGH
        return (select.POLLIN if reading else 0) | (select.POLLOUT if self._up.size else 0)

    def _move(self, client: int, upstream: int) -> None:
        """Reads what there is, and writes as much as goes: as a rule all that was just read."""
        if client & (select.POLLHUP | select.POLLERR):
            raise Ended  # nobody is there for the rest
        if upstream & (select.POLLIN | select.POLLHUP | select.POLLERR) and not self._answered.ended:
            self._from_upstream()
        if client & select.POLLIN and not self._body.ended:
            found = self._open(self._read_client())
            if not self._deaf:
                self._send_up(found)
        if self._down.size:
            self._down.send(self._client)
        if self._up.size:
            try:
                self._up.send(self._upstream)
            except (BrokenPipeError, ConnectionResetError):  # it may have answered all the same
                self._deaf, self._up = True, Outgoing()

    def _from_upstream(self) -> None:
        try:
            data: http1.Buffer = self._room[: self._upstream.recv_into(self._room)]
            if not data:
                self._answered.finish()
            if self._response is None:
                data = self._begin(data)
            if data and self._response is not None:
                self._send_down(self._answered.feed(data))
        except (Malformed, ConnectionError) as error:
            raise Unavailable(f"the workload's response: {error}") from error
        if self._answered.ended:
            self._down.add(http1.LAST_CHUNK if self._chunked else b"")

    def _begin(self, data: http1.Buffer) -> bytes:
        """Takes in of the response's head what came; returns what is behind it."""
        if not data:
            raise Malformed("the connection ended before it")
        self._heard += data
        while (end := self._heard.find(http1.END)) >= 0:
            end += len(http1.END)
            response, rest = http1.parse_response(self._heard[:end]), self._heard[end:]
            if response.status >= 200:
                self._response = response
                self._answered = http1.response_body(self._request.method, response)
                self._tell(response)
                return rest
            if response.status == 101:
                raise Malformed("it switches to a protocol that nobody asked for")
            self._heard = rest  # RFC 9110, 15.2: what came first is of no interest
        if len(self._heard) > http1.HEAD_LIMIT:
            raise Malformed(f"its head has more than {http1.HEAD_LIMIT} bytes")
        return b""

    def _tell(self, response: http1.Response) -> None:
        self._chunked = not (self._request.method == "HEAD" or response.status in {204, 304})
        fields = http1.end_to_end(response.fields, _KEY_FIELD, _NONCE_FIELD)
        own = [("transfer-encoding", "chunked")] if self._chunked else []
        if self._sealer:
            own.append((_NONCE_FIELD, self._nonce))
        lines = [f"HTTP/1.1 {response.status} {response.reason}"]
        lines += [f"{name}: {value}" for name, value in (*fields, *own, ("connection", "close"))]
        self._down.add("\r\n".join((*lines, "", "")).encode("latin-1"))

    def _send_down(self, parts: list[memoryview]) -> None:
        self._left -= sum(map(len, parts))
        if self._left < 0:
            raise Unavailable(f"the response has more than {self._settings.response_limit} bytes")
        for part in parts if self._chunked else ():
            if part:
                self._down.add(*http1.chunk(self._sealer.seal(part) if self._sealer else bytes(part)))

    def _refuse(self, error: TinbootError) -> None:
        """Tells the client, where it was told nothing yet; sealed as soon as that is possible."""
        if self._down.begun:
            return
        if isinstance(error, Mismatch) and not self._answer.request.opened:
            status, body = messages.MISMATCH_STATUS, messages.MISMATCH
        else:
            status = next(status for kind, status in _STATUS if isinstance(error, kind))
            body = json.dumps({"type": "about:blank", "title": _REASONS[status], "status": status}).encode()
        lines = [f"HTTP/1.1 {status} {_REASONS[status]}", f"content-type: {messages.PROBLEM_MEDIA_TYPE}"]
        lines += ["cache-control: no-store", "connection: close", "transfer-encoding: chunked"]
        if self._sealer:  # whose numbers may be at frames that nobody will see
            nonce = os.urandom(messages.NONCE_LENGTH)
            lines.append(f"{_NONCE_FIELD}: {nonce.hex()}")
            body = self._answer.response(nonce).seal(body)
        head = "\r\n".join((*lines, "", "")).encode("latin-1")
        with contextlib.suppress(OSError):
            self._client.settimeout(_LINGER)
            self._client.sendall(b"".join((head, *http1.chunk(body), http1.LAST_CHUNK)))
            self._linger()

    def _linger(self) -> None:
        """A socket closed with bytes unread resets the connection, and what was just written is lost."""
        self._client.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + _LINGER
        with contextlib.suppress(Ended):
            while time.monotonic() < deadline:
                self._receive(deadline)
