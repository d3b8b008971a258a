"""HTTP/1.1 as a proxy speaks it to a server behind it, with a bound on everything (RFC 9112).

One thread a connection, at most `CONNECTIONS`; http.server would take as long to import as numpy does.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import NamedTuple

CONNECTIONS = 32
_HEAD, _BODY = 16 << 10, 256 << 10  # bytes
_IDLE = 75.0  # seconds that a connection may be silent
_LINGER = 2.0  # seconds, when the last answer was sent

#: Twice in a head they would end the body in two places.
_LENGTHS = (b"content-length", b"transfer-encoding")

_PHRASES = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
}


class Request(NamedTuple):
    """`path`: without its query."""

    method: str
    path: str
    body: bytes


#: Status and JSON.
Answer = Callable[[Request], tuple[int, bytes]]


class Refused(Exception):
    """A request that cannot be answered; the connection ends behind the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def serve(listener: socket.socket, answer: Answer) -> None:
    """For ever. A connection beyond the bound waits in the listener's queue."""
    free = threading.BoundedSemaphore(CONNECTIONS)
    while True:
        free.acquire()
        try:
            connection, _ = listener.accept()
        except OSError:
            free.release()
            continue
        threading.Thread(target=_converse, args=(connection, answer, free), daemon=True).start()


def _converse(connection: socket.socket, answer: Answer, free: threading.BoundedSemaphore) -> None:
    try:
        with connection, connection.makefile("rb") as reader:
            connection.settimeout(_IDLE)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            goes_on = True
            while goes_on:
                goes_on = _exchange(connection, reader, answer)
            _linger(connection)
    except (OSError, ValueError):
        pass  # went away, or was silent for too long
    finally:
        free.release()


def _linger(connection: socket.socket) -> None:
    """RFC 9112, section 9.6: closed at once with bytes unread, the last answer could be lost."""
    connection.shutdown(socket.SHUT_WR)
    connection.settimeout(_LINGER)
    left = _BODY
    while left > 0 and (data := connection.recv(1 << 16)):
        left -= len(data)


def _exchange(connection: socket.socket, reader: socket.SocketIO, answer: Answer) -> bool:
    """One request and its answer; whether another may follow."""
    try:
        found = _request(connection, reader)
        if found is None:
            return False
        request, goes_on = found
        status, body = answer(request)
    except Refused as error:
        status, body, goes_on = error.status, b'{"error":{"message":"%s"}}' % str(error).encode(), False
    head = (
        f"HTTP/1.1 {status} {_PHRASES[status]}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: {'keep-alive' if goes_on else 'close'}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    return goes_on


def _request(connection: socket.socket, reader: socket.SocketIO) -> tuple[Request, bool] | None:
    """None where the client is done."""
    left = _HEAD
    line = reader.readline(left)
    if not line:
        return None
    words = line.split()
    if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
        raise Refused(400, "no HTTP/1.1 request")
    headers: dict[bytes, bytes] = {}
    while True:
        left -= len(line)
        line = reader.readline(max(left, 1))
        if not line.endswith(b"\n"):
            raise Refused(400, "its head is cut off, or too large")
        if line in (b"\r\n", b"\n"):
            break
        name, colon, value = line.partition(b":")
        name = name.lower()
        if not colon or (name in headers and name in _LENGTHS):
            raise Refused(400, "its head is damaged")
        headers[name] = value.strip()
    if headers.get(b"expect", b"").lower() == b"100-continue":
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = _body(reader, headers)
    path = words[1].partition(b"?")[0].decode("latin-1")
    goes_on = words[2] == b"HTTP/1.1" and headers.get(b"connection", b"").lower() != b"close"
    return Request(words[0].decode("latin-1"), path, body), goes_on


def _body(reader: socket.SocketIO, headers: dict[bytes, bytes]) -> bytes:
    """RFC 9112, section 6: in chunks, or of the length that is told."""
    length = headers.get(b"content-length")
    coding = headers.get(b"transfer-encoding")
    if coding is None:
        return _exactly(reader, _number(length or b"0", 10))
    if length is not None or coding.lower() != b"chunked":
        raise Refused(400, "its length is told twice, or not at all")
    body = b""
    while size := _number(reader.readline(256).partition(b";")[0].strip(), 16):
        body += _exactly(reader, size, len(body))
        if reader.read(2) != b"\r\n":
            raise Refused(400, "a chunk without its end")
    while (line := reader.readline(1024)) not in (b"\r\n", b"\n"):  # trailers, of no meaning here
        if not line.endswith(b"\n"):
            raise Refused(400, "its end is cut off")
    return body


def _number(text: bytes, base: int) -> int:
    if not text.isalnum() or len(text) > 16:
        raise Refused(400, "a length that is no number")
    try:
        return int(text, base)
    except ValueError:
        raise Refused(400, "a length that is no number") from None


def _exactly(reader: socket.SocketIO, size: int, before: int = 0) -> bytes:
    if before + size > _BODY:
        raise Refused(413, f"more than {_BODY} bytes")
    data = reader.read(size)
    if len(data) != size:
        raise Refused(400, "its body is cut off")
    return data
