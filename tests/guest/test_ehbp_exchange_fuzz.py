"""The gateway between peers that send anything: it answers or ends, and takes no part for the whole."""

from __future__ import annotations

import socket
from itertools import pairwise

from ehbp_world import PUBLIC, World, opened, parse_response, receive_request, render_request
from hypothesis import given, settings
from hypothesis import strategies as st

from tinboot.ehbp.messages import Exchange
from tinboot.formats.errors import Malformed
from tinboot.guest import http1

#: What makes sense at the beginning, so that more than the first line is read.
_HEADS = st.sampled_from(
    [
        b"",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ]
)


@settings(max_examples=100, deadline=None)
@given(_HEADS, st.binary(max_size=200), st.integers(0, 200))
def test_any_bytes_of_a_workload(head: bytes, rest: bytes, at: int) -> None:
    """The client has what HTTP makes of them, sealed; or the beginning of that; or a refusal."""
    exchange, answer = Exchange(PUBLIC), head + rest

    def workload(connection: socket.socket) -> None:
        receive_request(connection)
        connection.sendall(answer[:at])
        connection.sendall(answer[at:])

    with World(workload) as world:
        raw = world.ask(render_request(exchange.header, exchange.request.seal(b"{}")))
    if raw:
        found = parse_response(raw)
        assert isinstance(found.head, http1.Response)
        body = opened(exchange, found) if found.body else b""
        assert meant(answer).startswith(body) or found.head.status == 502
        assert found.whole or found.head.status != 502


def meant(answer: bytes) -> bytes:
    """The body of the response that `answer` begins with, byte by byte until something is wrong."""
    status = 100
    found = b""
    try:
        while status < 200:
            head, _, answer = answer.partition(http1.END)
            response = http1.parse_response(head + http1.END)
            status = response.status
        body = http1.response_body("POST", response)
        for at in range(len(answer)):
            found += b"".join(map(bytes, body.feed(answer[at : at + 1])))
    except Malformed:
        pass
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.binary(max_size=400), min_size=1, max_size=5), st.lists(st.integers(0, 1 << 12), max_size=8)
)
def test_however_a_request_is_cut_the_workload_has_it(writes: list[bytes], at: list[int]) -> None:
    exchange = Exchange(PUBLIC)
    raw = render_request(exchange.header, b"".join(map(exchange.request.seal, writes)))
    edges = sorted({0, len(raw), *(i % len(raw) for i in at)})
    with World() as world, world.connect() as client:
        for begin, end in pairwise(edges):
            client.sendall(raw[begin:end])
        data = b""
        while part := client.recv(1 << 16):
            data += part
    assert parse_response(data).whole
    assert [request.body for request in world.seen] == [b"".join(writes)]
