"""HTTP/1.1 for questions without a body: strictly what RFC 9112 has, so that there is one way to read it.

The bytes are the host's, and may be anything: a head and the lines of chunks are bounded here, bodies by who
reads them, time by the stream. What h11 does not take, this does not (tests/client/test_http1.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from httpcore import NetworkStream

_MOST = 100 << 10  # bytes of a head; of a chunk's line, or of all trailers
_PIECE = 64 << 10  # bytes that are read at once

_TARGET = re.compile(r"/[!-~]*")
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [\t -~\x80-\xff]*)?")  # chapter 4
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t -~\x80-\xff]*)")  # RFC 9110, 5.1 and 5.5
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t -~\x80-\xff]*)?")  # 7.1
_LENGTH = re.compile(r"[0-9]{1,15}")

_SWITCHING, _NO_CONTENT, _NOT_MODIFIED = 101, 204, 304


class NoHttp(Exception):
    """What came is no answer."""


class Head(NamedTuple):
    """`fields`: names in lower case; of a name that is there again, the values with commas between them."""

    status: int
    fields: dict[str, str]


class Connection:
    """A question after the other over `stream`. `ask`, `head`, all of `parts`, `renew`, and again."""

    def __init__(self, stream: NetworkStream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._length: int | None = None  # of the body; None: chunked, or to the connection's end
        self._chunked = False
        self._lasts = False  # whether the host takes another question, once the body is read

    def ask(self, target: str, authority: str) -> None:
        """Raises `NoHttp` for a target that is none."""
        if not _TARGET.fullmatch(target):
            raise NoHttp(f"{target[:80]!r} cannot be asked for")
        self._stream.write(
            f"GET {target} HTTP/1.1\r\nHost: {authority}\r\n"
            "Accept-Encoding: identity\r\nUser-Agent: tinboot\r\n\r\n".encode()
        )

    def head(self) -> Head:
        """Passes over the informational ones."""
        while True:
            minor, found = _read(self._until(b"\r\n\r\n"))
            if found.status == _SWITCHING:
                raise NoHttp("another protocol, which nobody asked for")
            if found.status >= 200:
                break
        self._frame(minor, found)
        return found

    def parts(self) -> Iterator[bytes]:
        """Of the body."""
        if self._length is not None:
            yield from self._take(self._length)
            self._length = 0
        elif self._chunked:
            yield from self._chunks()
            self._length = 0
        else:
            while self._buffer or self._more():
                yield self._pop(len(self._buffer))

    def renew(self) -> bool:
        """Whether it takes another question: the body was read, and nothing came that was not asked for."""
        return self._lasts and self._length == 0 and not self._buffer

    @property
    def ended(self) -> bool:
        """Whether the host has ended it, or said something unasked."""
        return bool(self._stream.get_extra_info("is_readable"))

    def close(self) -> None:
        self._stream.close()

    def _frame(self, minor: bytes, head: Head) -> None:
        """Chapter 6.3: how long the body is. What could be read in two ways is refused."""
        length, coding = head.fields.get("content-length"), head.fields.get("transfer-encoding")
        if coding is not None and (coding.lower() != "chunked" or length is not None or minor == b"0"):
            raise NoHttp(f"transfer coding {coding[:80]!a}, expected chunked and no length beside it")
        if length is not None and not _LENGTH.fullmatch(length):
            raise NoHttp(f"length {length[:80]!a}")
        self._chunked = coding is not None
        self._length = None if length is None else int(length)
        if head.status in {_NO_CONTENT, _NOT_MODIFIED}:
            self._length = 0
        options = {option.strip() for option in head.fields.get("connection", "").lower().split(",")}
        self._lasts = minor == b"1" and "close" not in options

    def _chunks(self) -> Iterator[bytes]:
        while True:
            line = _CHUNK.fullmatch(self._until(b"\r\n"))
            if line is None:
                raise NoHttp("a chunk without its length")
            if not (size := int(line[1], 16)):
                break
            yield from self._take(size)
            if b"".join(self._take(2)) != b"\r\n":
                raise NoHttp("a chunk that is longer than it says")
        left = _MOST
        while trailer := self._until(b"\r\n"):
            left -= len(trailer) + 2
            if left < 0 or not _FIELD.fullmatch(trailer):
                raise NoHttp("trailers that are none, or too many")

    def _take(self, size: int) -> Iterator[bytes]:
        while size:
            if not self._buffer and not self._more():
                raise NoHttp("the host has ended the connection within its answer")
            piece = self._pop(min(size, len(self._buffer)))
            size -= len(piece)
            yield piece

    def _until(self, mark: bytes) -> bytes:
        """What comes before `mark`."""
        seen = 0
        while (at := self._buffer.find(mark, max(0, seen - len(mark) + 1))) < 0:
            seen = len(self._buffer)
            if seen > _MOST:
                raise NoHttp(f"a head or a line of more than {_MOST} bytes")
            if not self._more():
                raise NoHttp("the host has ended the connection, and there was no answer, or half of one")
        found = self._pop(at)
        self._pop(len(mark))
        return found

    def _more(self) -> bool:
        """False at the connection's end."""
        data = self._stream.read(_PIECE)
        self._buffer += data
        return bool(data)

    def _pop(self, size: int) -> bytes:
        found = bytes(self._buffer[:size])
        del self._buffer[:size]
        return found


def _read(head: bytes) -> tuple[bytes, Head]:
    """With the digit behind HTTP/1."""
    first, *lines = head.split(b"\r\n")
    status = _STATUS.fullmatch(first)
    if status is None:
        raise NoHttp(f"an answer that begins with {first[:40]!r}")
    fields: dict[str, str] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise NoHttp(f"the header field {line[:40]!r}")
        name, value = field[1].decode().lower(), field[2].strip(b" \t").decode("latin-1")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return status[1], Head(int(status[2]), fields)
