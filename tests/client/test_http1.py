"""One stream, a request after the other: what an answer is, and when the stream takes another request."""

from __future__ import annotations

from typing import NamedTuple

import h11
import httpcore
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinboot.client.http1 import Connection, Head, NoHttp

HEAD = b"HTTP/1.1 200 OK\r\n"
ANSWER = HEAD + b"Content-Length: 2\r\n\r\nhi"


def over(*parts: bytes) -> tuple[Connection, list[bytes]]:
    """What it reads, and what it wrote."""
    stream = httpcore.MockStream([*parts])
    written: list[bytes] = []
    stream.write = lambda buffer, timeout=None: written.append(buffer)  # type: ignore[method-assign]  # overheard
    return Connection(stream), written


def answered(connection: Connection) -> tuple[int, bytes]:
    connection.ask("/x?y=z", "guest.example")
    return connection.head().status, b"".join(connection.parts())


def test_one_after_the_other() -> None:
    connection, written = over(ANSWER, ANSWER)
    for _ in range(2):
        assert answered(connection) == (200, b"hi")
        assert connection.renew()
    asked = b"GET /x?y=z HTTP/1.1\r\nHost: guest.example\r\n"
    assert written == 2 * [asked + b"Accept-Encoding: identity\r\nUser-Agent: tinboot\r\n\r\n"]


def test_in_any_pieces() -> None:
    connection, _ = over(*(bytes((one,)) for one in ANSWER))
    assert answered(connection) == (200, b"hi")


def test_informational_answers_are_passed_over() -> None:
    connection, _ = over(b"HTTP/1.1 103 Early Hints\r\n\r\n" + ANSWER)
    assert answered(connection) == (200, b"hi")


@pytest.mark.parametrize(
    "raw",
    [
        HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        ANSWER + ANSWER,  # the second was not asked for
    ],
)
def test_takes_no_other_request(raw: bytes) -> None:
    connection, _ = over(raw)
    assert answered(connection) == (200, b"hi")
    assert not connection.renew()


def test_nor_before_the_answer_is_read() -> None:
    connection, _ = over(ANSWER)
    connection.ask("/", "guest.example")
    assert connection.head().status == 200
    assert not connection.renew()


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        CHUNKED + b"2\r\nhi\r\n0\r\n\r\n",
        CHUNKED + b"1\r\nh\r\n01;x=y\r\ni\r\n0\r\nX: y\r\n\r\n",
        HEAD.replace(b" OK", b"") + b"content-length:2 \r\n\r\nhi",
    ],
)
def test_each_way_to_say_how_long_it_is(raw: bytes) -> None:
    connection, _ = over(raw, ANSWER)
    for _ in range(2):
        assert answered(connection) == (200, b"hi")
        assert connection.renew()


def test_a_body_to_the_connections_end() -> None:
    connection, _ = over(HEAD + b"\r\nh", b"i")
    assert answered(connection) == (200, b"hi")
    assert not connection.renew()


def test_no_body() -> None:
    connection, _ = over(b"HTTP/1.1 204 x\r\nContent-Length: 2\r\n\r\n")
    assert answered(connection) == (204, b"")
    assert connection.renew()


def test_values_of_one_name_are_put_together() -> None:
    connection, _ = over(HEAD + b"X-Y: a\r\nContent-Length: 0\r\nx-y:\t\xe9 b \r\n\r\n")
    connection.ask("/", "guest.example")
    assert connection.head() == Head(200, {"x-y": "a, \xe9 b", "content-length": "0"})


NO_ANSWERS = [
    (b"", "no answer, or half of one"),
    (HEAD, "half of one"),
    (HEAD + b"Content-Length: 3\r\n\r\nhi", "within its answer"),
    (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "another protocol"),
    (b"HTTP/2 200 OK\r\n\r\n", "begins with b'HTTP/2 200 OK'"),
    (b"ICY 200 OK\r\n\r\n", "begins with"),
    (b"HTTP/1.1 099 x\r\n\r\n", "begins with"),
    (b"\r\n" + ANSWER, "begins with"),
    (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi\r\n\r\n", "begins with"),
    (HEAD + b"X : y\r\n\r\n", "header field b'X : y'"),
    (HEAD + b"X: y\r\n folded\r\n\r\n", "header field b' folded'"),
    (HEAD + b"X: y\nContent-Length: 2\r\n\r\nhi", "header field"),
    (HEAD + b"X: \0\r\n\r\n", "header field"),
    (HEAD + b": y\r\n\r\n", "header field"),
    (HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi", "length '2, 2'"),
    (HEAD + b"Content-Length: +2\r\n\r\nhi", r"length '\+2'"),
    (HEAD + b"Content-Length:\r\n\r\nhi", "length ''"),
    (HEAD + b"Content-Length: 1" + b"0" * 15 + b"\r\n\r\nhi", "length '1000"),
    (HEAD + b"Content-Length: \xb2\r\n\r\nhi", "length"),
    (
        HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        "no length beside",
    ),
    (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "expected chunked"),
    (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "transfer coding"),
    (CHUNKED + b"2\r\nhi0\r\n\r\n", "longer than it says"),
    (CHUNKED + b"-2\r\nhi\r\n0\r\n\r\n", "without its length"),
    (CHUNKED + b" 2\r\nhi\r\n0\r\n\r\n", "without its length"),
    (CHUNKED + b"2\nhi\r\n0\r\n\r\n", "without its length"),
    (CHUNKED + b"2\r\nhi\r\n", "half of one"),
    (CHUNKED + b"0\r\nno trailer\r\n\r\n", "trailers"),
    (CHUNKED + b"0\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", "trailers"),
    (CHUNKED + b"0;" + b"x" * 200_000, "more than 102400 bytes"),
    (HEAD + b"X: " + b"y" * 200_000, "more than 102400 bytes"),
]


@pytest.mark.parametrize(("raw", "said"), NO_ANSWERS)
def test_what_is_no_answer(raw: bytes, said: str) -> None:
    connection, _ = over(raw)
    with pytest.raises(NoHttp, match=said):
        answered(connection)


@pytest.mark.parametrize("target", ["", "x", "/a b", "/x\r\nHost: y", "/\xe9"])
def test_what_cannot_be_asked_for(target: str) -> None:
    connection, written = over()
    with pytest.raises(NoHttp, match="cannot be asked for"):
        connection.ask(target, "guest.example")
    assert written == []


class Whole(NamedTuple):
    status: int
    fields: dict[str, str]
    body: bytes
    again: bool


def as_h11_reads(raw: bytes) -> Whole:
    """Raises h11's `RemoteProtocolError`."""
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=100 << 10)
    http.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    http.send(h11.EndOfMessage())
    http.receive_data(raw)
    head, body = None, b""
    while not isinstance(event := http.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            http.receive_data(b"")
        elif isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif not isinstance(event, h11.InformationalResponse):
            raise h11.RemoteProtocolError("ended")
    assert head is not None
    fields: dict[str, str] = {}
    for name, value in head.headers:
        text = value.decode("latin-1")
        known = name.decode()
        fields[known] = f"{fields[known]}, {text}" if known in fields else text
    again = http.their_state is h11.DONE and not http.trailing_data[0]
    return Whole(head.status_code, fields, body, again)


def as_we_read(raw: bytes, at: int) -> Whole:
    """In two pieces."""
    connection, _ = over(*(piece for piece in (raw[:at], raw[at:]) if piece))
    connection.ask("/", "x")
    status, fields = connection.head()
    body = b"".join(connection.parts())
    return Whole(status, fields, body, connection.renew())


PIECES = (
    *("HTTP/1.1 200 OK\r\n", "HTTP/1.0 200 OK\r\n", "HTTP/1.1 204 x\r\n", "HTTP/1.1 100 x\r\n\r\n"),
    *("Content-Length: 2\r\n", "Content-Length: 0\r\n", "Transfer-Encoding: chunked\r\n", "X:  y \r\n"),
    *("Connection: close\r\n", "Connection: x, keep-alive\r\n", "Connection: Close, x\r\n", "\r\n", "hi"),
    *("2\r\nhi\r\n", "0\r\n", "2;x\r\n", "a", " ", "\t", ":", "\n", "\0", "\xe9", "\x7f", ";", "00"),
)


@settings(max_examples=2000)
@given(st.lists(st.sampled_from(PIECES), max_size=8), st.integers(0, 99))
def test_what_is_read_is_what_h11_reads(pieces: list[str], at: int) -> None:
    raw = "".join(["HTTP/1.1 200 OK\r\n", *pieces]).encode("latin-1")
    try:
        found = as_we_read(raw, 0)
    except NoHttp:
        with pytest.raises(NoHttp):
            as_we_read(raw, at)
        return
    theirs = as_h11_reads(raw)
    assert found == theirs._replace(again=found.again)
    assert theirs.again or not found.again
    in_pieces = as_we_read(raw, at)  # what was not asked for may not have come yet
    assert in_pieces == found._replace(again=in_pieces.again)
