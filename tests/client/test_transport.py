"""httpx over a verified guest: the attested key on every connection, one origin, and httpx's own errors."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx
import pytest
import served_guest
from client_terms import terms
from fake_amd import NOW
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded
from served_guest import Answer, Guest, Host, tls_key

from tinboot import client
from tinboot.client import Verified
from tinboot.client.connection import Address
from tinboot.formats.errors import Mismatch, Refused


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as host:
        yield host


@pytest.fixture
def verified(host: Host) -> Verified:
    found = client.verify(host.origin, terms(), NOW, seconds=20)
    host.seen.clear()
    return found


def test_a_request_with_a_body(host: Host, verified: Verified) -> None:
    with verified.client() as talk:
        answer = talk.post("/v1/embeddings", content=b"secret", headers={"X-Own": "1"})
        assert (answer.status_code, answer.content) == (200, b"answer to secret")
        talk.get("/again")
    assert [request.target for request in host.seen] == ["/v1/embeddings", "/again"]
    assert host.seen[0].body == b"secret"
    assert host.seen[0].headers["x-own"] == "1"
    assert host.connections == 2  # one for the evidence, one for what followed


def test_a_streamed_answer(host: Host, verified: Verified) -> None:
    host.answers["/large"] = lambda _: Answer(bytes(1 << 20))
    with verified.client() as talk, talk.stream("GET", "/large") as answer:
        assert sum(map(len, answer.iter_bytes())) == 1 << 20


def test_another_key_gets_no_byte(host: Host, verified: Verified) -> None:
    """The guest is gone and somebody else answers under its name."""
    host.context = served_guest.server_context(Guest(tls=tls_key(1)))
    with verified.client() as talk, pytest.raises(Mismatch, match="tls-key: the peer has the TLS key"):
        talk.post("/", content=b"secret")
    assert host.seen == []


def test_each_new_connection_is_held_to_the_key(host: Host, verified: Verified) -> None:
    host.answers["/last"] = lambda _: Answer(b"", headers=(("Connection", "close"),))
    with verified.client() as talk:
        talk.get("/last")
        host.context = served_guest.server_context(Guest(tls=tls_key(1)))
        with pytest.raises(Mismatch, match="tls-key"):
            talk.post("/", content=b"secret")
    assert len(host.seen) == 1


def http2(sock: socket.socket) -> None:
    """Answers each request with its body, over HTTP/2 (RFC 9113)."""
    connection = H2Connection(H2Configuration(client_side=False))
    connection.initiate_connection()
    bodies: dict[int, bytes] = {}
    sock.settimeout(5)
    while True:
        sock.sendall(connection.data_to_send())
        if not (data := sock.recv(65536)):
            return
        for event in connection.receive_data(data):
            if isinstance(event, DataReceived):
                bodies[event.stream_id] = bodies.get(event.stream_id, b"") + event.data
                connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                connection.send_headers(event.stream_id, [(":status", "200")])
                body = bodies.pop(event.stream_id, b"")
                connection.send_data(event.stream_id, b"answer to " + body, end_stream=True)


def speak_http2(host: Host, guest: Guest) -> None:
    host.context = served_guest.server_context(guest)
    host.context.set_alpn_protocols(["h2"])
    host.instead = http2


def test_http_2(host: Host, verified: Verified) -> None:
    speak_http2(host, host.guest)
    before = host.connections
    with verified.client() as talk:
        for _ in range(2):
            answer = talk.post("/", content=b"secret")
            assert (answer.http_version, answer.content) == ("HTTP/2", b"answer to secret")
    assert host.connections == before + 1


def test_http_2_with_another_key(host: Host, verified: Verified) -> None:
    speak_http2(host, Guest(tls=tls_key(1)))
    with verified.client() as talk, pytest.raises(Mismatch, match="tls-key"):
        talk.post("/", content=b"secret")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/",
        "https://127.0.0.1/",
        "https://localhost:{port}/",
        "https://evil.example/",
        "https://127.0.0.1:1/",
    ],
)
def test_another_origin_is_refused(host: Host, verified: Verified, url: str) -> None:
    with verified.client() as talk, pytest.raises(Refused, match=r"origin: http.* is not 127"):
        talk.post(url.format(port=host.port), content=b"secret")
    assert host.seen == []


def test_redirects_lead_nowhere_else(host: Host, verified: Verified) -> None:
    host.answers["/"] = lambda _: Answer(b"", 307, (("Location", "https://evil.example/"),))
    with verified.client() as talk:
        assert talk.post("/", content=b"secret").status_code == 307
        with pytest.raises(Refused, match=r"origin: https://evil\.example"):
            talk.post("/", content=b"secret", follow_redirects=True)


def test_the_environment_is_not_asked(
    host: Host, verified: Verified, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with verified.client() as talk:
        assert talk.get("/").status_code == 200


def test_an_address_takes_the_place_of_the_name(host: Host) -> None:
    origin = host.origin._replace(host="guest.example", at=Address("127.0.0.1", host.port))
    with client.verify(origin, terms(), NOW, seconds=20).client() as talk:
        assert talk.get("/").status_code == 200
        assert talk.get(f"https://guest.example:{host.port}/").status_code == 200


@pytest.mark.parametrize("name", ["xn--mnchen-3ya.example", "::1", "guest.example."])
def test_names_that_are_written_in_several_ways(host: Host, name: str) -> None:
    origin = host.origin._replace(host=name, at=Address("127.0.0.1", host.port))
    with client.verify(origin, terms(), NOW, seconds=20).client() as talk:
        assert talk.get("/").status_code == 200
        assert host.seen[-1].headers["host"] == origin.authority


def test_httpx_gets_its_own_errors(host: Host, verified: Verified) -> None:
    def silent(_: socket.socket) -> None:
        host.stopped(5)

    def gone(sock: socket.socket) -> None:
        sock.settimeout(5)
        sock.recv(65536)

    def babbling(sock: socket.socket) -> None:
        sock.settimeout(5)
        sock.recv(65536)
        sock.sendall(b"hello\r\n\r\n")

    def breaks_off(sock: socket.socket) -> None:
        sock.settimeout(5)
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")

    cases = [
        (silent, httpx.ReadTimeout),
        (gone, httpx.ReadError),
        (babbling, httpx.RemoteProtocolError),
        (breaks_off, httpx.ReadError),
    ]
    for instead, kind in cases:
        host.instead = instead
        with verified.client(timeout=0.2) as talk, pytest.raises(kind):
            talk.get("/")


def test_nobody_is_there(host: Host, verified: Verified) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    moved = client.verify(host.origin._replace(at=Address("127.0.0.1", host.port)), terms(), NOW, seconds=20)
    object.__setattr__(moved, "origin", moved.origin._replace(at=Address("127.0.0.1", port)))
    with moved.client() as talk, pytest.raises(httpx.ConnectError, match="Connection refused"):
        talk.get("/")
