"""HTTP/1.1 read strictly: one meaning, or refused; bodies however they are cut."""

from __future__ import annotations

import http.client
import io
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats.errors import Malformed
from tinboot.guest import http1
from tinboot.guest.http1 import Chunked, Counted, Request, Response, UntilClosed

GET = b"GET /v1/models?a=b HTTP/1.1\r\nHost: guest\r\nX-Y:\t a b \r\n\r\n"


def request(*fields: str, line: str = "POST / HTTP/1.1") -> bytes:
    return "\r\n".join((line, *fields, "", "")).encode("latin-1")


def read(body: http1.Body, data: bytes, at: list[int]) -> bytes:
    edges = [0, *sorted(i % (len(data) + 1) for i in at), len(data)]
    return b"".join(bytes(part) for a, b in pairwise(edges) for part in body.feed(data[a:b]))


def test_a_request() -> None:
    found = http1.parse_request(GET)
    assert found == Request("GET", "/v1/models?a=b", (("host", "guest"), ("x-y", "a b")))
    assert http1.values(found.fields, "host") == ["guest"]
    assert http1.parse_request(request(line="OPTIONS * HTTP/1.1")).target == "*"


def test_a_response() -> None:
    assert http1.parse_response(b"HTTP/1.0 404 Not  Found\r\nA: \r\n\r\n") == Response(
        404, "Not  Found", (("a", ""),)
    )
    assert http1.parse_response(b"HTTP/1.1 200\r\n\r\n") == Response(200, "", ())
    assert http1.parse_response(b"HTTP/1.1 200 \r\n\r\n").reason == ""
    assert http1.parse_response("HTTP/1.1 200 é\r\nX: ü\r\n\r\n".encode("latin-1")).fields == (("x", "ü"),)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "GET /",
        "GET  / HTTP/1.1",
        "GET / HTTP/1.0",
        "GET / HTTP/1.1 ",
        "GET / HTTP/2",
        "GET / http/1.1",
        "G(T / HTTP/1.1",
        "GET http://other.example/ HTTP/1.1",
        "CONNECT other.example:443 HTTP/1.1",
        "GET /\xa0 HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /\x00 HTTP/1.1",
        " GET / HTTP/1.1",
    ],
)
def test_no_request_line(line: str) -> None:
    with pytest.raises(Malformed, match="the request line is"):
        http1.parse_request(request(line=line))


@pytest.mark.parametrize(
    "line",
    [
        "",
        "HTTP/1.1",
        "HTTP/1.1 20",
        "HTTP/1.1 2000",
        "HTTP/2 200",
        "HTTP/1.1 099",
        "200 OK",
        "HTTP/1.1 200OK",
    ],
)
def test_no_status_line(line: str) -> None:
    with pytest.raises(Malformed, match="the status line is"):
        http1.parse_response(request(line=line))


@pytest.mark.parametrize(
    "field",
    ["", "A", ": b", "A : b", " A: b", "A: b\n", "A\r: b", "A: \x00", "A: b\rC: d", "Ä: b", "A: \x7f"],
)
def test_no_field(field: str) -> None:
    with pytest.raises(Malformed, match="is no header field"):
        http1.parse_request(request("Host: guest", field, "B: c"))


def test_heads_have_bounds() -> None:
    with pytest.raises(Malformed, match="101 header fields"):
        http1.parse_request(request(*["a: b"] * 101))
    with pytest.raises(Malformed, match="more than 32768 bytes"):
        http1.parse_request(request("a: " + "b" * 32768))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_head_or_refused(data: bytes) -> None:
    for parse in (http1.parse_request, http1.parse_response):
        try:
            parse(data + http1.END)
        except Malformed:
            continue


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (["Content-Length: 1", "Transfer-Encoding: chunked"], "in one head"),
        (["Content-Length: 1", "Content-Length: 1"], "Content-Length is '1, 1'"),
        (["Content-Length: 1, 1"], "Content-Length is '1, 1'"),
        (["Content-Length: +1"], "Content-Length"),
        (["Content-Length: 0x1"], "Content-Length"),
        (["Content-Length: "], "Content-Length"),
        (["Content-Length: ²"], "Content-Length"),
        (["Content-Length: " + "1" * 19], "Content-Length"),
        (["Transfer-Encoding: gzip, chunked"], "Transfer-Encoding is 'gzip, chunked'"),
        (["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], "Transfer-Encoding"),
        (["Transfer-Encoding: identity"], "Transfer-Encoding"),
        (["Transfer-Encoding: \x0bchunked"], "Transfer-Encoding"),
    ],
)
def test_a_length_is_said_once(fields: list[str], message: str) -> None:
    raw = [(name.lower(), value.strip(" ")) for name, _, value in (f.partition(":") for f in fields)]
    with pytest.raises(Malformed, match=message):
        http1.request_body(Request("POST", "/", tuple(raw)))
    with pytest.raises(Malformed, match=message):
        http1.response_body("GET", Response(204, "", tuple(raw)))


def test_where_bodies_end() -> None:
    def of(method: str, status: int, *fields: tuple[str, str]) -> type[http1.Body]:
        return type(http1.response_body(method, Response(status, "", fields)))

    chunked, length = ("transfer-encoding", "Chunked"), ("content-length", "3")
    assert of("GET", 200) is UntilClosed
    assert of("GET", 200, chunked) is Chunked
    assert of("GET", 200, length) is Counted
    for method, status in (("HEAD", 200), ("GET", 204), ("GET", 304), ("GET", 100)):
        assert of(method, status, chunked) is Counted
        assert http1.response_body(method, Response(status, "", (length,))).ended
    assert http1.request_body(Request("GET", "/", ())).ended
    assert not http1.request_body(Request("POST", "/", (length,))).ended


@given(
    st.lists(st.binary(min_size=1, max_size=300), max_size=6),
    st.sampled_from([b"", b";a", b' ;a="b"', b"\t"]),
    st.sampled_from([b"", b"A: b\r\n", b"A: b\r\nC:\r\n"]),
    st.lists(st.integers(0, 1 << 16), max_size=10),
)
def test_chunks_however_they_are_cut(
    writes: list[bytes], extension: bytes, trailers: bytes, at: list[int]
) -> None:
    data = b"".join(b"%X%s\r\n%s\r\n" % (len(write), extension, write) for write in writes)
    data += b"000" + extension + b"\r\n" + trailers + b"\r\n"
    body = Chunked()
    assert read(body, data, at) == b"".join(writes)
    assert body.ended
    body.finish()
    with pytest.raises(Malformed, match="1 bytes after the end"):
        body.feed(b"x")


class _Socket(io.BytesIO):
    def makefile(self, *_: object) -> io.BytesIO:
        return self


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=6))
def test_chunks_of_ours_are_read_by_others(writes: list[bytes]) -> None:
    data = b"".join(b"".join(http1.chunk(write)) for write in writes) + http1.LAST_CHUNK
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    response = http.client.HTTPResponse(_Socket(head + data))  # type: ignore[arg-type]  # all it reads of one
    response.begin()
    assert response.read() == b"".join(writes)


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"g\r\n",
        b"-1\r\n",
        b"0x1\r\n",
        b"1\n",
        b" 1\r\n",
        b"1 1\r\n",
        b"1;\x00\r\n",
        b"1" * 16 + b"\r\n",
        b"1" * 1025,
        b"1;" + b"a" * 1030,
        b"1\r\nab",
        b"1\r\na\n",
        b"1\r\na\rb",
        b"0\r\n\n",
        b"0\r\nA\r\n",
        b"0\r\n A: b\r\n",
        b"0\r\n" + b"A: b\r\n" * 1400,
        b"0\r\n" + b"a" * 8193,
        b"0\r\n\r\nx",
    ],
)
def test_no_chunks(data: bytes) -> None:
    with pytest.raises(Malformed):
        Chunked().feed(data)
    body = Chunked()
    with pytest.raises(Malformed):  # noqa: PT012 - byte by byte
        for byte in data:
            body.feed(bytes([byte]))


@given(st.binary(max_size=100), st.lists(st.integers(0, 100), max_size=4))
def test_how_chunks_are_cut_changes_nothing(data: bytes, at: list[int]) -> None:
    def outcome(at: list[int]) -> object:
        body = Chunked()
        try:
            return read(body, data, at), body.ended
        except Malformed:
            return None

    assert outcome(at) == outcome([])


@pytest.mark.parametrize("data", [b"", b"5\r\nab", b"2\r\nab", b"2\r\nab\r\n", b"0\r\n"])
def test_chunks_that_do_not_end(data: bytes) -> None:
    body = Chunked()
    body.feed(data)
    with pytest.raises(Malformed, match="before the last chunk"):
        body.finish()


def test_counted_bodies() -> None:
    body = Counted(5)
    assert b"".join(map(bytes, body.feed(b"abc"))) == b"abc"
    with pytest.raises(Malformed, match="ended 2 bytes before the body did"):
        body.finish()
    with pytest.raises(Malformed, match="1 bytes after the end"):
        body.feed(b"abc")
    body.feed(b"de")
    body.finish()
    assert body.ended


def test_bodies_that_end_with_the_connection() -> None:
    body = UntilClosed()
    assert [bytes(part) for part in body.feed(b"abc")] == [b"abc"]
    assert not body.ended
    body.finish()
    assert body.ended


def test_what_a_proxy_passes_on() -> None:
    fields = http1.parse_request(
        request(
            "Host: guest",
            "Connection: close, X-One",
            "X-One: 1",
            "X-Two: 2",
            "Keep-Alive: 1",
            "TE: trailers",
            "Trailer: x",
            "Upgrade: websocket",
            "Proxy-Connection: close",
            "Transfer-Encoding: chunked",
            "Content-Length: 2",
            "X-Three: 3",
        )
    ).fields
    assert http1.end_to_end(fields, "x-three") == (("host", "guest"), ("x-two", "2"))
