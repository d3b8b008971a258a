"""One stream, a request after the other: what an answer is, and when the stream takes another request."""

from __future__ import annotations

import h11
import httpcore
import pytest

from tinboot.client.http1 import Connection

HEAD = b"HTTP/1.1 200 OK\r\n"
ANSWER = HEAD + b"Content-Length: 2\r\n\r\nhi"


def over(*parts: bytes) -> tuple[Connection, list[bytes]]:
    """What it reads, and what it wrote."""
    stream = httpcore.MockStream([*parts])
    written: list[bytes] = []
    stream.write = lambda buffer, timeout=None: written.append(buffer)  # type: ignore[method-assign]
    return Connection(stream), written


def answered(connection: Connection) -> tuple[int, bytes]:
    connection.ask("/x?y=z", "guest.example")
    return connection.head().status_code, b"".join(connection.parts())


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
    assert connection.head().status_code == 200
    assert not connection.renew()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        HEAD,
        HEAD + b"Content-Length: 3\r\n\r\nhi",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
    ],
)
def test_what_is_no_answer(raw: bytes) -> None:
    connection, _ = over(raw)
    with pytest.raises(h11.ProtocolError):
        answered(connection)
