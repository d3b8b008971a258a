"""Heads of requests: what is taken, what is refused and with which status; and bytes of all kinds."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tinboot.guest import http_request
from tinboot.guest.http_request import MAX_HEAD, MAX_TARGET, Rejected, Request

GET = b"GET / HTTP/1.1\r\nHost: a"


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (GET, Request("GET", "/", None, False)),
        (b"HEAD /a/b?c=d HTTP/1.1\r\nhost:a", Request("HEAD", "/a/b", "c=d", False)),
        (b"GET /? HTTP/1.1\r\nHost: a", Request("GET", "/", "", False)),
        (b"GET /a?b?c HTTP/1.1\r\nHost: a", Request("GET", "/a", "b?c", False)),
        (b"GET /%2e%2E/a HTTP/1.1\r\nHost: a", Request("GET", "/%2e%2E/a", None, False)),
        (b"GET //a HTTP/1.1\r\nHost: a", Request("GET", "//a", None, False)),
        (b"GET https://h.example:443/a?b HTTP/1.1\r\nHost: a", Request("GET", "/a", "b", False)),
        (b"GET / HTTP/1.0", Request("GET", "/", None, True)),
        (b"GET / HTTP/1.2\r\nHost: a", Request("GET", "/", None, False)),
        (GET + b"\r\nConnection: keep-alive, Close", Request("GET", "/", None, True)),
        (GET + b"\r\nContent-Length: 0", Request("GET", "/", None, False)),
        (GET + b"\r\nX: \xe4 \t b  \r\nX:\r\nY: ", Request("GET", "/", None, False)),
        (b"BREW / HTTP/1.1\r\nHost: ", Request("BREW", "/", None, False)),
    ],
)
def test_taken(head: bytes, expected: Request) -> None:
    assert http_request.parse(head) == expected


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"", 400),
        (b"GET /", 400),
        (b"GET  / HTTP/1.1\r\nHost: a", 400),
        (b"GET / HTTP/1.1 \r\nHost: a", 400),
        (b" GET / HTTP/1.1\r\nHost: a", 400),
        (b"\r\nGET / HTTP/1.1\r\nHost: a", 400),
        (b"GET\t/ HTTP/1.1\r\nHost: a", 400),
        (b"G(T / HTTP/1.1\r\nHost: a", 400),
        (b"GET / http/1.1\r\nHost: a", 400),
        (b"GET / HTTP/1.11\r\nHost: a", 400),
        (b"GET / HTTP/1.1\nHost: a", 400),
        (b"GET / HTTP/1.1\r\nHost: a\nX: b", 400),
        (b"GET / HTTP/1.1\r\nHost: a\rX: b", 400),
        (b"GET /\x00 HTTP/1.1\r\nHost: a", 400),
        (b"GET /\xe4 HTTP/1.1\r\nHost: a", 400),
        (b"GET /a#b HTTP/1.1\r\nHost: a", 400),
        (b"GET a HTTP/1.1\r\nHost: a", 400),
        (b"GET * HTTP/1.1\r\nHost: a", 400),
        (b"GET ftp://a/ HTTP/1.1\r\nHost: a", 400),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a", 400),
        (b"GET / HTTP/1.1", 400),
        (GET + b"\r\nhOST: a", 400),
        (b"GET / HTTP/1.0\r\nHost: a\r\nHost: a", 400),
        (b"GET / HTTP/1.1\r\nHost : a", 400),
        (GET + b"\r\n folded", 400),
        (GET + b"\r\n: nameless", 400),
        (GET + b"\r\nno colon", 400),
        (GET + b"\r\nX: \x00", 400),
        (GET + b"\r\nX: \x7f", 400),
        (GET + b"\r\nContent-Length: 0\r\nContent-Length: 0", 400),
        (GET + b"\r\nContent-Length: 0, 0", 400),
        (GET + b"\r\nContent-Length: +1", 400),
        (GET + b"\r\nContent-Length: -1", 400),
        (GET + b"\r\nContent-Length: 0x1", 400),
        (GET + b"\r\nContent-Length:", 400),
        (GET + b"\r\nContent-Length: 0\r\nTransfer-Encoding: chunked", 400),
        (GET + b"\r\nContent-Length: 1", 413),
        (GET + b"\r\nContent-Length: " + b"9" * 19, 413),
        (GET + b"\r\nContent-Length: " + b"9" * 20, 400),
        (GET + b"\r\nTransfer-Encoding: chunked", 413),
        (GET + b"\r\nTransfer-Encoding: identity", 413),
        (b"GET /" + b"a" * MAX_TARGET + b" HTTP/1.1\r\nHost: a", 414),
        (b"GET / HTTP/2.0\r\nHost: a", 505),
        (b"PRI * HTTP/2.0", 505),
    ],
)
def test_refused(head: bytes, status: int) -> None:
    with pytest.raises(Rejected) as rejected:
        http_request.parse(head)
    assert rejected.value.status == status


def test_heads_are_cut_one_after_another() -> None:
    received = bytearray(b"one\r\n\r\ntwo\r\n\r\nthr")
    assert http_request.cut(received) == b"one"
    assert http_request.cut(received) == b"two"
    assert http_request.cut(received) is None
    assert received == b"thr"


@pytest.mark.parametrize(
    ("received", "status"),
    [
        (b"a" * (MAX_TARGET + 1), 414),
        (b"GET / HTTP/1.1\n" + b"a" * MAX_TARGET, 414),
        (b"GET / HTTP/1.1\r\n" + b"a" * MAX_HEAD, 431),
        (b"GET / HTTP/1.1\r\n" + b"a" * MAX_HEAD + b"\r\n\r\n", 431),
    ],
)
def test_floods(received: bytes, status: int) -> None:
    with pytest.raises(Rejected) as rejected:
        http_request.cut(bytearray(received))
    assert rejected.value.status == status


@given(st.binary(max_size=300) | st.binary(max_size=60).map(GET.__add__))
@example(GET + b"\r\nX: " + b"a " * 4000)
def test_fuzz(head: bytes) -> None:
    try:
        found = http_request.parse(head)
    except Rejected:
        return
    assert found.path.startswith("/")
    assert head.startswith(found.method.encode())
    assert b"\n" not in head.replace(b"\r\n", b"")


@given(st.lists(st.binary(max_size=400), max_size=40))
def test_what_is_kept_is_bounded(parts: list[bytes]) -> None:
    received = bytearray()
    for part in parts:
        received += part
        try:
            while http_request.cut(received) is not None:
                pass
        except Rejected:
            return
        assert len(received) < MAX_HEAD
