"""A gateway between a client and a workload, all of them scripted, over sockets of this machine alone."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tinboot.ehbp import hpke, messages
from tinboot.ehbp.messages import Limits
from tinboot.guest import http1
from tinboot.guest.ehbp_exchange import Exchange, Patience, Settings
from tinboot.guest.ehbp_gateway import Shared

PRIVATE = X25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = hpke.raw(PRIVATE.public_key())

#: Seconds after which a test fails, rather than hang.
GIVE_UP = 20.0

Workload = Callable[[socket.socket], None]


class Received(NamedTuple):
    """A request as the workload sees it, or a response as the client does. `whole`: its body ended."""

    head: http1.Request | http1.Response
    body: bytes
    whole: bool


class World:
    """A context manager. `seen`: what workloads of `answering` received, in order."""

    def __init__(
        self,
        workload: Workload | None = None,
        *,
        limits: Limits = messages.Limits(),  # noqa: B008 - a value
        response_limit: int = 1 << 30,
        patience: Patience = Patience(),  # noqa: B008 - a value
        memory: int = 1 << 30,
    ) -> None:
        self.seen: list[Received] = []
        self.shared = Shared(memory)
        self._workload = workload or self.answering()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.settings = Settings(PRIVATE, self._listener.getsockname(), limits, response_limit, patience)
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(GIVE_UP)
        assert not any(thread.is_alive() for thread in self._threads)

    def stop_workload(self) -> None:
        """Nobody listens there any more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def connect(self) -> socket.socket:
        """The client's end of a connection whose other end the gateway serves."""
        client, ours = socket.socketpair()
        client.settimeout(GIVE_UP)

        def serve() -> None:
            with ours:
                Exchange(ours, self.settings, self.shared).run()

        self._start(serve)
        return client

    def ask(self, raw: bytes, *, end: bool = False) -> bytes:
        """Everything that comes back to `raw`, after which the client says that it is the `end`."""
        with self.connect() as client:
            sending = threading.Thread(target=_send, args=(client, raw, end))
            sending.start()
            data = receive_all(client)
            sending.join(GIVE_UP)
        return data

    def answering(self, response: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") -> Workload:
        """A workload that reads the whole request and gives this response."""

        def work(connection: socket.socket) -> None:
            self.seen.append(receive_request(connection))
            connection.sendall(response)

        return work

    def _start(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(GIVE_UP)
            self._start(lambda connection=connection: self._serve(connection))  # type: ignore[misc]  # bound now

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(ConnectionError):
            self._workload(connection)


def _send(to: socket.socket, raw: bytes, end: bool) -> None:
    with contextlib.suppress(OSError):
        to.sendall(raw)
        if end:
            to.shutdown(socket.SHUT_WR)


def receive_all(connection: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 18):
            data += part
    return data


def receive_head(connection: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while http1.END not in data:
        part = connection.recv(1 << 16)
        if not part:
            raise ConnectionResetError(f"it ended after {data!r}")
        data += part
    head, _, rest = data.partition(http1.END)
    return head + http1.END, rest


def receive_request(connection: socket.socket) -> Received:
    head, rest = receive_head(connection)
    request = http1.parse_request(head)
    body = http1.request_body(request)
    data = b"".join(map(bytes, body.feed(rest))) if rest else b""
    while not body.ended and (part := connection.recv(1 << 18)):
        data += b"".join(map(bytes, body.feed(part)))
    return Received(request, data, body.ended)


def parse_response(raw: bytes, method: str = "POST") -> Received:
    """The body as it is on the wire; that of a connection that was cut is not whole."""
    head, _, rest = raw.partition(http1.END)
    response = http1.parse_response(head + http1.END)
    body = http1.response_body(method, response)
    data = b"".join(map(bytes, body.feed(rest))) if rest else b""
    return Received(response, data, body.ended)


def render_request(
    header: str | None, body: bytes, *fields: str, method: str = "POST", counted: bool = False
) -> bytes:
    """As a proxy sends it: `body` in chunks of 16 KiB, or `counted`."""
    lines = [f"{method} /v1/embeddings HTTP/1.1", "Host: guest", *fields]
    if header is not None:
        lines.append(f"ehbp-encapsulated-key: {header}")
    if counted:
        lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join((*lines, "", "")).encode() + body
    lines.append("Transfer-Encoding: chunked")
    chunks = b"".join(b"".join(http1.chunk(body[at : at + 16384])) for at in range(0, len(body), 16384))
    return "\r\n".join((*lines, "", "")).encode() + chunks + http1.LAST_CHUNK


def opened(exchange: messages.Exchange, response: Received) -> bytes:
    """The plaintext of a sealed response."""
    (nonce,) = http1.values(response.head.fields, "ehbp-response-nonce")
    opener = exchange.response(nonce, messages.Limits())
    found = b"".join(opener.feed(response.body))
    if response.whole:
        opener.finish()
    return found
