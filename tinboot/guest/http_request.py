"""The head of an HTTP/1.1 request, by RFC 9112, as strictly as that allows; bodies are never taken.

Behind the proxy only what the proxy wrote is read here, but nothing depends on that: whatever is not exactly
a request is refused with a status, and what two readers could understand in two ways is refused above all.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_HEAD = 8 << 10  # bytes of request line and header fields
MAX_TARGET = 2 << 10  # bytes of the request target

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110, 5.6.2
_END = b"\r\n\r\n"
_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")  # RFC 9112, 3
#: RFC 9112, 5: no space before the colon, no folded line. RFC 9110, 5.5: what a value may hold.
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[ \t]*((?:[\x21-\x7e\x80-\xff][ \t]*)*)")
_ORIGIN = re.compile(rb"(?:https?://[^/?#]+)?(/[^?#]*)(?:\?([^#]*))?", re.I)  # RFC 9112, 3.2.1 and 3.2.2


class Request(NamedTuple):
    """`path` and `query` as they were sent, nothing decoded; `query` is None where there is no question mark.

    `last`: the connection ends with the answer.
    """

    method: str
    path: str
    query: str | None
    last: bool


class Rejected(Exception):
    """`status`: the answer to what is no request, or one that nobody here takes; the connection ends."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def cut(received: bytearray) -> bytes | None:
    """Takes a whole head from the front; None where more has to come. Raises `Rejected`: 414, 431."""
    end = received.find(_END, 0, MAX_HEAD)
    if end >= 0:
        head = bytes(received[:end])
        del received[: end + len(_END)]
        return head
    line_ended = received.find(b"\r\n", 0, MAX_TARGET) >= 0
    if len(received) > MAX_TARGET and not line_ended:
        raise Rejected(414)
    if len(received) >= MAX_HEAD:
        raise Rejected(431)
    return None


def parse(head: bytes) -> Request:
    """`head` without the empty line. Raises `Rejected`: 400, 413, 414, 505."""
    line, *fields = head.split(b"\r\n")
    found = _LINE.fullmatch(line)
    if found is None:
        raise Rejected(400)
    method, target, major, minor = found.groups()
    if len(target) > MAX_TARGET:
        raise Rejected(414)
    if major != b"1":
        raise Rejected(505)
    origin = _ORIGIN.fullmatch(target)
    if origin is None:
        raise Rejected(400)
    old = minor == b"0"
    named = _fields(fields)
    _check_host(named.get(b"host", []), old)
    _check_body(named)
    words = {word.strip().lower() for value in named.get(b"connection", []) for word in value.split(b",")}
    path, query = origin.groups()
    return Request(
        method.decode(), path.decode(), None if query is None else query.decode(), old or b"close" in words
    )


def _fields(lines: list[bytes]) -> dict[bytes, list[bytes]]:
    """By name in lower case."""
    named: dict[bytes, list[bytes]] = {}
    for line in lines:
        found = _FIELD.fullmatch(line)
        if found is None:
            raise Rejected(400)
        name, value = found.groups()
        named.setdefault(name.lower(), []).append(value.rstrip(b" \t"))
    return named


def _check_host(values: list[bytes], old: bool) -> None:
    """RFC 9112, 3.2: one, and not none but for HTTP/1.0."""
    if len(values) > 1 or not (values or old):
        raise Rejected(400)


def _check_body(named: dict[bytes, list[bytes]]) -> None:
    """RFC 9112, 6: a length that is said twice, or in two ways, says where a smuggled request begins."""
    lengths, codings = named.get(b"content-length", []), named.get(b"transfer-encoding", [])
    if len(lengths) > 1 or (lengths and codings):
        raise Rejected(400)
    if lengths and not re.fullmatch(rb"[0-9]{1,19}", lengths[0]):
        raise Rejected(400)
    if codings or (lengths and int(lengths[0])):
        raise Rejected(413)
