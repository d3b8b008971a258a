"""HTTP/1.1 messages (RFC 9110, RFC 9112), read strictly: what could be taken for two things is refused.

Lines end with CR LF; no folded lines, no bare CR or NUL; a body's length is given once, one way. Heads come
whole, bodies in pieces as they arrive. Nothing here reads from a socket.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Protocol

from tinboot.formats.errors import Malformed

#: Bytes of a head with the empty line that ends it: more than HAProxy can hold (tune.bufsize).
HEAD_LIMIT = 32 << 10
_FIELDS = 100

END = b"\r\n\r\n"

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110, 5.6.2
_REQUEST = re.compile(rb"(" + _TOKEN + rb") (/[\x21-\x7e]*|\*) HTTP/1\.1")  # origin-form, asterisk-form
_RESPONSE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[\t ]*([\t\x20-\x7e\x80-\xff]*)")  # RFC 9110, 5.5
_NUMBER = re.compile(r"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[\t ]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")  # RFC 9112, 7.1
_LINE_LIMIT = 1024  # of a chunk's size with its extensions
_TRAILER_LIMIT = 8 << 10

#: Of one connection, not of the message (RFC 9110, 7.6.1), and what says where a body ends.
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)

Fields = tuple[tuple[str, str], ...]
Buffer = bytes | memoryview


class Request(NamedTuple):
    """`fields`: name in lower case and value, in order; latin-1, as bytes are in HTTP."""

    method: str
    target: str
    fields: Fields


class Response(NamedTuple):
    status: int
    reason: str
    fields: Fields


def parse_request(head: bytes) -> Request:
    """`head` ends with its empty line. Raises `Malformed`."""
    first, fields = _lines(head)
    match = _REQUEST.fullmatch(first)
    if match is None:
        raise Malformed(f"the request line is {first[:80]!r}")
    return Request(match[1].decode(), match[2].decode(), fields)


def parse_response(head: bytes) -> Response:
    """The same for a response."""
    first, fields = _lines(head)
    match = _RESPONSE.fullmatch(first)
    if match is None:
        raise Malformed(f"the status line is {first[:80]!r}")
    return Response(int(match[1]), (match[2] or b"").decode("latin-1"), fields)


def _lines(head: bytes) -> tuple[bytes, Fields]:
    if len(head) > HEAD_LIMIT:
        raise Malformed(f"the head has more than {HEAD_LIMIT} bytes")
    first, *lines = head.removesuffix(END).split(b"\r\n")
    if len(lines) > _FIELDS:
        raise Malformed(f"{len(lines)} header fields, expected at most {_FIELDS}")
    fields = []
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise Malformed(f"{line[:80]!r} is no header field")
        fields.append((match[1].decode().lower(), match[2].decode("latin-1").rstrip("\t ")))
    return first, tuple(fields)


def values(fields: Fields, name: str) -> list[str]:
    """Of every field with that name, which is in lower case."""
    return [value for field, value in fields if field == name]


def end_to_end(fields: Fields, *without: str) -> Fields:
    """Those that a proxy passes on: none of this connection, none that frames the body, and not `without`."""
    named = {option.strip().lower() for value in values(fields, "connection") for option in value.split(",")}
    dropped = _HOP_BY_HOP | named | {"content-length", *without}
    return tuple(field for field in fields if field[0] not in dropped)


class Body(Protocol):
    """A body as it arrives."""

    @property
    def ended(self) -> bool: ...
    def feed(self, data: Buffer) -> list[memoryview]:
        """What of the body is in `data`. Raises `Malformed`, also for bytes after its end."""
        ...

    def finish(self) -> None:
        """The connection has ended. Raises `Malformed` before the body did."""
        ...


def request_body(request: Request) -> Body:
    """RFC 9112, 6.3. Raises `Malformed` where it is not clear."""
    return _framed(request.fields) or Counted(0)


def response_body(method: str, response: Response) -> Body:
    """RFC 9112, 6.3: `method` of the request that it answers."""
    framed = _framed(response.fields)
    if method == "HEAD" or response.status < 200 or response.status in {204, 304}:
        return Counted(0)
    return framed or UntilClosed()


def _framed(fields: Fields) -> Body | None:
    codings, lengths = values(fields, "transfer-encoding"), values(fields, "content-length")
    if codings and lengths:
        raise Malformed("Transfer-Encoding and Content-Length in one head")
    if codings:
        if [coding.lower() for coding in codings] != ["chunked"]:
            raise Malformed(f"Transfer-Encoding is {', '.join(codings)[:80]!r}, expected 'chunked'")
        return Chunked()
    if not lengths:
        return None
    if len(lengths) > 1 or not _NUMBER.fullmatch(lengths[0]):
        raise Malformed(f"Content-Length is {', '.join(lengths)[:80]!r}, expected one number")
    return Counted(int(lengths[0]))


class Counted:
    """A body of as many bytes as its head says."""

    def __init__(self, length: int) -> None:
        self._left = length

    @property
    def ended(self) -> bool:
        return self._left == 0

    def feed(self, data: Buffer) -> list[memoryview]:
        if len(data) > self._left:
            raise Malformed(f"{len(data) - self._left} bytes after the end of the body")
        self._left -= len(data)
        return [memoryview(data)]

    def finish(self) -> None:
        if self._left:
            raise Malformed(f"the connection ended {self._left} bytes before the body did")


class UntilClosed:
    """A body that ends with its connection."""

    ended = False

    def feed(self, data: Buffer) -> list[memoryview]:
        return [memoryview(data)]

    def finish(self) -> None:
        self.ended = True


class Chunked:
    """A body in chunks (RFC 9112, 7.1). Extensions and trailers are passed over."""

    def __init__(self) -> None:
        self.ended = False
        self._left = 0  # of the chunk, and the line end behind it
        self._line = b""  # of what is not data, so far
        self._trailers = 0  # bytes of them; -1: the last chunk is still to come
        self._last = False

    def feed(self, data: Buffer) -> list[memoryview]:
        parts: list[memoryview] = []
        view = memoryview(data)
        while view:
            if self.ended:
                raise Malformed(f"{len(view)} bytes after the end of the body")
            if self._left > 2:
                part = view[: self._left - 2]
                parts.append(part)
                self._left -= len(part)
                view = view[len(part) :]
            else:
                line = bytes(view[:_LINE_LIMIT])
                line = line[: line.find(b"\n") + 1 or len(line)]
                self._line += line
                view = view[len(line) :]
                self._judge(self._line)
        return parts

    def _judge(self, line: bytes) -> None:
        """`line`, which may not be whole: the end of a chunk's data, a size, or a trailer."""
        whole = line.endswith(b"\n")
        if self._left:
            if not b"\r\n".startswith(line):
                raise Malformed(f"a chunk is followed by {line[:20]!r}")
            self._left -= 2 if whole else 0
        elif self._last:
            self._trailers += len(line) if whole else 0
            if self._trailers + len(line) > _TRAILER_LIMIT:
                raise Malformed(f"more than {_TRAILER_LIMIT} bytes of trailers")
            if whole and line != b"\r\n" and not _FIELD.fullmatch(line.removesuffix(b"\r\n")):
                raise Malformed(f"{line[:80]!r} is no trailer")
            self.ended = line == b"\r\n"
        elif len(line) > _LINE_LIMIT:
            raise Malformed(f"a chunk's size takes more than {_LINE_LIMIT} bytes")
        elif whole:
            match = _CHUNK.fullmatch(line)
            if match is None:
                raise Malformed(f"a chunk's size is {line[:20]!r}")
            size = int(match[1], 16)
            self._left, self._last = (size + 2, False) if size else (0, True)
        if whole:
            self._line = b""

    def finish(self) -> None:
        if not self.ended:
            raise Malformed("the connection ended before the last chunk")


def chunk(data: bytes) -> tuple[bytes, bytes, bytes]:
    """One chunk, in parts. `data` is not empty, which would be the last one."""
    return b"%x\r\n" % len(data), data, b"\r\n"


LAST_CHUNK = b"0\r\n\r\n"
