"""One request through the gateway: what each side sees when all is well, and when anything is not."""

from __future__ import annotations

import json
import socket
import threading

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from ehbp_world import (
    PUBLIC,
    World,
    opened,
    parse_response,
    receive_all,
    receive_head,
    receive_request,
    render_request,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tinboot.ehbp import hpke, messages
from tinboot.ehbp.messages import Exchange, Limits
from tinboot.guest import http1
from tinboot.guest.ehbp_exchange import Patience

QUICK = Patience(head=0.3, first=0.3, connect=0.3, idle=0.3)


def fields(received: object) -> dict[str, str]:
    return dict(received.head.fields)  # type: ignore[attr-defined]  # a request has them


def problem(raw: bytes, exchange: Exchange | None = None) -> tuple[int, dict[str, object]]:
    """Status and body of a refusal, which is whole; sealed where `exchange` is given."""
    response = parse_response(raw)
    assert response.whole
    assert fields(response)["content-type"] == "application/problem+json"
    assert ("ehbp-response-nonce" in fields(response)) == (exchange is not None)
    assert isinstance(response.head, http1.Response)
    body = response.body if exchange is None else opened(exchange, response)
    return response.head.status, json.loads(body)


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("size", [1, 20, 65536, 300_000])
def test_there_and_back(size: int, counted: bool) -> None:
    exchange, body = Exchange(PUBLIC), bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    with World() as world:
        raw = world.ask(render_request(exchange.header, exchange.request.seal(body), counted=counted))
        response = parse_response(raw)
    assert opened(exchange, response) == b"ok"
    assert response.whole
    assert world.seen[0].body == body
    assert world.seen[0].whole


def test_what_each_side_sees_of_the_others_head() -> None:
    exchange = Exchange(PUBLIC)
    answer = (
        b"HTTP/1.1 201 Made\r\nContent-Type: a/b\r\nContent-Length: 2\r\nConnection: keep-alive, X-Hop\r\n"
        b"X-Hop: 1\r\nKeep-Alive: 5\r\nEhbp-Response-Nonce: " + b"0" * 64 + b"\r\nX-End: 2\r\n\r\nok"
    )
    more = ("Connection: X-Hop", "X-Hop: 1", "TE: trailers", "Authorization: Bearer x", "Upgrade: h2c")
    world = World()
    world._workload = world.answering(answer)
    with world:
        raw = world.ask(render_request(exchange.header, exchange.request.seal(b"{}"), *more))
    request, response = world.seen[0], parse_response(raw)
    assert isinstance(request.head, http1.Request)
    assert request.head[:2] == ("POST", "/v1/embeddings")
    assert request.head.fields == (
        ("host", "guest"),
        ("authorization", "Bearer x"),
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
    )
    assert isinstance(response.head, http1.Response)
    assert response.head[:2] == (201, "Made")
    assert [name for name, _ in response.head.fields] == [
        "content-type",
        "x-end",
        "transfer-encoding",
        "ehbp-response-nonce",
        "connection",
    ]
    assert opened(exchange, response) == b"ok"
    assert raw.count(b"ok") == 0


def test_events_as_they_come() -> None:
    """The workload writes the next one only after the client has the one before."""
    go = threading.Semaphore(0)

    def workload(connection: socket.socket) -> None:
        receive_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number in range(5):
            assert go.acquire(timeout=20)
            connection.sendall(b"data: %d\n\n" % number)

    exchange = Exchange(PUBLIC)
    with World(workload) as world, world.connect() as client:
        client.sendall(render_request(exchange.header, exchange.request.seal(b"{}")))
        head, rest = receive_head(client)
        response = http1.parse_response(head)
        body = http1.response_body("POST", response)
        opener = exchange.response(http1.values(response.fields, "ehbp-response-nonce")[0], Limits())
        assert rest == b""
        for number in range(5):
            go.release()
            found: list[bytes] = []
            while not found:
                found = [whole for part in body.feed(client.recv(4096)) for whole in opener.feed(part)]
            assert found == [b"data: %d\n\n" % number]
        while not body.ended:
            body.feed(client.recv(4096))


def test_both_directions_at_once() -> None:
    """An echo that reads and writes in turn: neither side waits for the end of the other."""

    def echo(connection: socket.socket) -> None:
        head, rest = receive_head(connection)
        body = http1.request_body(http1.parse_request(head))
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        data = rest
        while True:
            for part in body.feed(data) if data else ():
                connection.sendall(b"".join(http1.chunk(bytes(part))) if part else b"")
            if body.ended:
                break
            data = connection.recv(1 << 16)
        connection.sendall(http1.LAST_CHUNK)

    exchange, body = Exchange(PUBLIC), b"0123456789abcdef" * (1 << 18)
    with World(echo) as world:
        response = parse_response(world.ask(render_request(exchange.header, exchange.request.seal(body))))
    assert opened(exchange, response) == body
    assert world.shared._held == 0


def test_a_workload_that_reads_nothing_holds_the_client_up() -> None:
    """What the gateway has taken in for it is bounded, by its own bounds and the kernel's."""
    done, exchange = threading.Event(), Exchange(PUBLIC)

    def idle(connection: socket.socket) -> None:
        done.wait(20)

    with World(idle) as world, world.connect() as client:
        client.settimeout(0.5)
        taken = client.send(render_request(exchange.header, b"")[: -len(http1.LAST_CHUNK)])
        with pytest.raises(TimeoutError):  # noqa: PT012 - until it takes no more
            while taken < 64 << 20:
                sealed = exchange.request.seal(bytes(65536))
                client.sendall(b"".join(http1.chunk(sealed)))
                taken += len(sealed)
        assert taken < 32 << 20
        done.set()


def test_an_answer_before_the_end_of_the_request() -> None:
    """It comes whole, although nobody reads the rest of the request."""

    def hasty(connection: socket.socket) -> None:
        receive_head(connection)
        connection.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 300000\r\n\r\n" + bytes(300_000))
        receive_all(connection)  # closing with bytes unread would reset the connection

    exchange = Exchange(PUBLIC)
    with World(hasty) as world:
        raw = world.ask(render_request(exchange.header, exchange.request.seal(bytes(3_000_000))))
    response = parse_response(raw)
    assert response.whole
    assert opened(exchange, response) == bytes(300_000)


def test_a_request_for_another_key_never_reaches_the_workload() -> None:
    exchange = Exchange(hpke.raw(X25519PrivateKey.generate().public_key()))
    with World() as world:
        raw = world.ask(render_request(exchange.header, exchange.request.seal(b"secret")))
    response = parse_response(raw)
    assert isinstance(response.head, http1.Response)
    content_type = fields(response)["content-type"]
    assert messages.is_mismatch(response.head.status, content_type, response.body)
    assert problem(raw)[0] == 422
    assert world.seen == []


def test_a_stream_for_another_key_is_refused_before_its_end() -> None:
    exchange = Exchange(hpke.raw(X25519PrivateKey.generate().public_key()))
    with World() as world, world.connect() as client:
        client.sendall(render_request(exchange.header, exchange.request.seal(b"x"))[: -len(http1.LAST_CHUNK)])
        assert problem(receive_all(client))[0] == 422


GOOD = Exchange(PUBLIC)
SEALED = GOOD.request.seal(b"{}")


@pytest.mark.parametrize(
    "raw",
    [
        render_request(None, SEALED),
        render_request("", SEALED),
        render_request(GOOD.header.upper(), SEALED),
        render_request(GOOD.header[:-2], SEALED),
        render_request(GOOD.header, SEALED, f"Ehbp-Encapsulated-Key: {GOOD.header}"),
        render_request("0" * 64, SEALED),
        render_request(GOOD.header, SEALED[:-1]),
        render_request(GOOD.header, SEALED + b"\0"),
        render_request(GOOD.header, b"\0\0\0\x01a"),
        render_request(GOOD.header, bytes(4 * 1025)),
        render_request(GOOD.header, SEALED, "Content-Length: 1"),
        render_request(GOOD.header, SEALED) + b"GET / HTTP/1.1\r\n\r\n",
        render_request(GOOD.header, SEALED, counted=True) + b"x",
        render_request(GOOD.header, SEALED).replace(b" HTTP/1.1", b" HTTP/1.0"),
        b"\x16\x03\x01" + bytes(20) + http1.END,
        b"GET / HTTP/1.1\r\nA: " + b"a" * (40 << 10),
    ],
    ids=[
        "no header",
        "empty header",
        "upper case",
        "short header",
        "two headers",
        "small order",
        "cut in a frame",
        "cut in a length",
        "frame without tag",
        "empty frames",
        "two lengths",
        "second request",
        "more than counted",
        "old version",
        "TLS",
        "endless head",
    ],
)
def test_what_is_no_request_never_reaches_the_workload(raw: bytes) -> None:
    with World() as world:
        status, told = problem(world.ask(raw))
    assert (status, set(told)) in [(400, {"type", "title", "status"}), (413, {"type", "title", "status"})]
    assert not any(request.whole for request in world.seen)


@pytest.mark.parametrize(
    "last",
    [b"\0\0\0\x14" + bytes(20), b"\0\0\0\x01", SEALED, b"\0"],
    ids=["forged", "without tag", "of another request", "cut in a length"],
)
def test_a_bad_frame_later_on_ends_the_request_short(last: bytes) -> None:
    """The workload sees no end of the body, and nothing of the bad frame; the client is told, sealed."""
    exchange, begun, seen = Exchange(PUBLIC), threading.Event(), [b""]

    def workload(connection: socket.socket) -> None:
        while not seen[0].endswith(b"good\r\n"):
            seen[0] += connection.recv(1)
        begun.set()
        seen.append(receive_all(connection))

    with World(workload) as world, world.connect() as client:
        raw = render_request(exchange.header, exchange.request.seal(b"good"))
        client.sendall(raw[: -len(http1.LAST_CHUNK)])
        assert begun.wait(20)
        client.sendall(b"".join(http1.chunk(last)) + http1.LAST_CHUNK)
        assert problem(receive_all(client), exchange)[0] == 400
    assert seen[1] == b""


def test_a_client_that_goes_away_ends_the_request_short() -> None:
    exchange, world = Exchange(PUBLIC), World()
    with world, world.connect() as client:
        client.sendall(render_request(exchange.header, exchange.request.seal(b"good"))[:-5])
    assert not any(request.whole for request in world.seen)


def test_a_client_that_goes_away_while_the_workload_thinks() -> None:
    exchange, gone = Exchange(PUBLIC), threading.Event()

    def thinking(connection: socket.socket) -> None:
        receive_request(connection)
        client.close()
        if connection.recv(1) == b"":  # the gateway has let go
            gone.set()

    with World(thinking) as world:
        client = world.connect()
        client.sendall(render_request(exchange.header, exchange.request.seal(b"{}")))
        assert gone.wait(20)


@pytest.mark.parametrize(
    "raw",
    [
        render_request(GOOD.header, b"", method="GET", counted=True),
        render_request(GOOD.header, b"", method="DELETE"),
        render_request(GOOD.header, bytes(8)),
    ],
    ids=["counted", "chunked", "empty frames"],
)
def test_a_request_without_body_goes_as_it_is(raw: bytes) -> None:
    """SPEC.md, 5.2 and 7.4: nothing vouches for its key, so nothing is encrypted for it."""
    with World() as world:
        response = parse_response(world.ask(raw))
    assert response.body == b"ok"
    assert response.whole
    assert "ehbp-response-nonce" not in fields(response)
    (request,) = world.seen
    assert request.body == b""
    assert request.whole
    assert "ehbp-encapsulated-key" not in fields(request)


def test_limits_of_a_request() -> None:
    for limits in (Limits(frame=1000), Limits(total=1000)):
        exchange = Exchange(PUBLIC)
        with World(limits=limits) as world:
            raw = world.ask(render_request(exchange.header, exchange.request.seal(bytes(1001))))
        assert problem(raw)[0] == 413
        assert world.seen == []


def test_the_limit_of_a_response_cuts_it() -> None:
    exchange = Exchange(PUBLIC)
    world = World(response_limit=1000)
    world._workload = world.answering(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(1001))
    with world:
        raw = world.ask(render_request(exchange.header, small(exchange)))
    assert cut_short(raw, exchange) in {b"", bytes(1000)}


def cut_short(raw: bytes, exchange: Exchange) -> bytes:
    """What the client has of a response that went wrong: its beginning, or a refusal."""
    found = parse_response(raw)
    if not found.whole:
        return opened(exchange, found)
    assert problem(raw, exchange)[0] == 502
    return b""


def small(exchange: Exchange) -> bytes:
    return exchange.request.seal(b"{}")


def test_what_all_requests_hold_is_bounded() -> None:
    exchange = Exchange(PUBLIC)
    frame = len(bytes(600_000)).to_bytes(4, "big") + bytes(600_000)
    with World(memory=100_000) as world:
        assert problem(world.ask(render_request(exchange.header, frame)))[0] == 503
        assert world.seen == []
        raw = world.ask(render_request(exchange.header, exchange.request.seal(bytes(600_000))))
        assert opened(exchange, parse_response(raw)) == b"ok"
    assert world.shared._held == 0


def test_a_workload_that_is_not_there() -> None:
    exchange = Exchange(PUBLIC)
    with World() as world:
        world.stop_workload()
        raw = world.ask(render_request(exchange.header, small(exchange)))
        assert problem(raw, exchange)[0] == 502


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"a" * (40 << 10),
    ],
)
def test_a_workload_that_does_not_speak_http(response: bytes) -> None:
    exchange = Exchange(PUBLIC)
    world = World()
    world._workload = world.answering(response)
    with world:
        raw = world.ask(render_request(exchange.header, small(exchange)))
        assert problem(raw, exchange)[0] == 502


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\nx\r\n",
    ],
)
def test_a_response_that_ends_short_does_so_for_the_client(response: bytes) -> None:
    exchange = Exchange(PUBLIC)
    world = World()
    world._workload = world.answering(response)
    with world:
        raw = world.ask(render_request(exchange.header, small(exchange)))
    assert cut_short(raw, exchange) in {b"", b"short"}


@pytest.mark.parametrize(
    ("method", "response"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"),
        ("POST", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (
            "POST",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 304 Same\r\n\r\n",
        ),
    ],
)
def test_responses_without_body(method: str, response: bytes) -> None:
    exchange = Exchange(PUBLIC)
    world = World()
    world._workload = world.answering(response)
    with world:
        raw = world.ask(render_request(exchange.header, small(exchange), method=method))
    found = parse_response(raw, method)
    assert found.whole
    assert found.body == b""
    assert "ehbp-response-nonce" in fields(found)
    assert "transfer-encoding" not in fields(found)


def test_a_client_that_waits_to_be_asked_for_the_body() -> None:
    exchange = Exchange(PUBLIC)
    with World() as world, world.connect() as client:
        raw = render_request(exchange.header, small(exchange), "Expect: 100-continue")
        head, _, body = raw.partition(http1.END)
        client.sendall(head + http1.END)
        assert receive_head(client) == (b"HTTP/1.1 100 Continue\r\n\r\n", b"")
        client.sendall(body)
        assert opened(exchange, parse_response(receive_all(client))) == b"ok"
    assert "expect" not in fields(world.seen[0])


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST / HTTP/1.1\r\n",
        render_request(GOOD.header, SEALED)[:-5],
        render_request(GOOD.header, SEALED[:9])[:-5],
    ],
    ids=["nothing", "half a head", "half a body", "half a frame"],
)
def test_who_stands_still_is_let_go(sent: bytes) -> None:
    def still(connection: socket.socket) -> None:
        receive_all(connection)

    with World(still, patience=QUICK) as world, world.connect() as client:
        client.sendall(sent)
        assert receive_all(client) == b""


def test_a_workload_that_never_answers_is_let_go() -> None:
    ended = threading.Event()

    def still(connection: socket.socket) -> None:
        receive_request(connection)
        assert connection.recv(1) == b""
        ended.set()

    exchange = Exchange(PUBLIC)
    with World(still, patience=QUICK) as world:
        assert world.ask(render_request(exchange.header, small(exchange))) == b""
        assert ended.wait(20)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 400))
def test_any_bytes_in_a_request_are_refused_or_mean_no_body(data: bytes, at: int) -> None:
    """The head is a good one; the body is any, in place of a part of a good one."""
    exchange = Exchange(PUBLIC)
    raw = render_request(exchange.header, exchange.request.seal(bytes(100)))
    at = max(raw.index(http1.END) + 4, len(raw) - 1 - at)
    if data in {b"", raw[at:]}:
        data = b"\xff"
    with World() as world:
        answered = world.ask(raw[:at] + data, end=True)
    if answered:
        assert parse_response(answered).whole
    assert all(request.body in {b"", bytes(100)} for request in world.seen)
