"""httpx with bodies for the attested key alone: what the guest cannot have written is no answer."""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable, Iterator

import httpx
import pytest
from client_terms import terms
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from ehbp_world import World
from fake_amd import NOW
from served_guest import Host

from tinboot import client
from tinboot.client import Verified
from tinboot.client.ehbp_transport import EhbpTransport, OtherKey
from tinboot.ehbp import messages
from tinboot.ehbp.messages import Answer, Limits
from tinboot.formats.errors import Malformed, Mismatch, Refused

NONCE = bytes(range(32))
PROBLEM = {"content-type": messages.PROBLEM_MEDIA_TYPE}


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Host() as host:
        yield host


@pytest.fixture(scope="module")
def verified(host: Host) -> Verified:
    return client.verify(host.origin, terms(), NOW, seconds=20)


class Relay(httpx.BaseTransport):
    """Between the client and a guest with `private`; `alter` gets the guest's answer, or makes one up."""

    def __init__(
        self, private: X25519PrivateKey, alter: Callable[[httpx.Response], httpx.Response] = lambda r: r
    ) -> None:
        self.private = private
        self.alter = alter
        self.seen: list[tuple[httpx.Request, bytes]] = []
        self.bodies: list[bytes] = []
        self.answer: list[bytes] = [b"answer to ", b"it"]
        self.closed = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        raw = request.read()
        self.seen.append((request, raw))
        ours = Answer(self.private, request.headers[messages.ENCAPSULATED_KEY], Limits())
        self.bodies.append(b"".join(ours.request.feed(raw)))
        ours.request.finish()
        sealer = ours.response(NONCE)
        sealed = b"".join(map(sealer.seal, self.answer))
        headers = {messages.RESPONSE_NONCE: NONCE.hex(), "content-length": str(len(sealed))}
        return self.alter(httpx.Response(200, headers=headers, stream=Stream(self, sealed)))


class Stream(httpx.SyncByteStream):
    def __init__(self, relay: Relay, data: bytes) -> None:
        self.relay = relay
        self.data = data

    def __iter__(self) -> Iterator[bytes]:
        for at in range(0, len(self.data), 7):
            yield self.data[at : at + 7]

    def close(self) -> None:
        self.relay.closed += 1


@pytest.fixture
def relay(host: Host) -> Relay:
    return Relay(host.guest.hpke)


def talk(verified: Verified, relay: httpx.BaseTransport, limits: Limits | None = None) -> httpx.Client:
    transport = EhbpTransport(verified, through=relay, limits=limits)
    return httpx.Client(transport=transport, base_url="https://relay.example")


def test_bodies_are_for_the_guest_alone(verified: Verified, relay: Relay) -> None:
    with talk(verified, relay) as talking:
        answer = talking.post("/v1?a=b", content=b"secret", headers={"X-Own": "1"})
    assert answer.content == b"answer to it"
    assert relay.bodies == [b"secret"]
    ((request, raw),) = relay.seen
    assert b"secret" not in raw
    assert str(request.url) == "https://relay.example/v1?a=b"
    assert request.headers["x-own"] == "1"
    assert request.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in request.headers
    assert "content-length" not in answer.headers
    assert relay.closed == 1


def test_each_request_has_a_key_of_its_own(verified: Verified, relay: Relay) -> None:
    with talk(verified, relay) as talking:
        for _ in range(2):
            talking.post("/", content=b"the same")
    (first, one), (second, other) = relay.seen
    assert first.headers[messages.ENCAPSULATED_KEY] != second.headers[messages.ENCAPSULATED_KEY]
    assert one != other


def test_bodies_in_pieces_both_ways(verified: Verified, relay: Relay) -> None:
    pieces = [b"", b"one ", b"", b"two ", bytes(200_000)]
    relay.answer = [b"first", b"second"]
    with talk(verified, relay) as talking, talking.stream("POST", "/", content=iter(pieces)) as answer:
        assert list(answer.iter_raw()) == [b"first", b"second"]
    assert relay.bodies == [b"".join(pieces)]


def test_what_the_guest_compressed_is_decompressed_after_it_was_opened(
    verified: Verified, relay: Relay
) -> None:
    import gzip

    relay.answer = [gzip.compress(b"plain")]
    relay.alter = lambda r: httpx.Response(
        r.status_code, headers=[*r.headers.raw, (b"content-encoding", b"gzip")], stream=r.stream
    )
    with talk(verified, relay) as talking:
        assert talking.post("/", content=b"x").content == b"plain"


def test_errors_of_the_guest_are_sealed_too(verified: Verified, relay: Relay) -> None:
    relay.alter = lambda r: httpx.Response(418, headers=r.headers, stream=r.stream)
    with talk(verified, relay) as talking:
        answer = talking.post("/", content=b"x")
    assert (answer.status_code, answer.content) == (418, b"answer to it")


def answered(
    status: int, body: bytes = b"", headers: dict[str, str] | None = None
) -> Callable[..., httpx.Response]:
    return lambda _: httpx.Response(status, headers=headers, stream=httpx.ByteStream(body))


def renonced(*values: str) -> Callable[[httpx.Response], httpx.Response]:
    headers = [(messages.RESPONSE_NONCE, value) for value in values]
    return lambda r: httpx.Response(200, headers=headers, stream=r.stream)


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (answered(200, b"forged"), "status 200 and without Ehbp-Response-Nonce"),
        (answered(204), "status 204 and without"),
        (answered(302, headers={"location": "https://evil.example"}), "status 302 and without"),
        (answered(503, b"forged"), "status 503 and without"),
        (answered(422, b"{}", PROBLEM), "status 422 and without"),
        (answered(422, messages.MISMATCH), "status 422 and without"),
        (answered(422, bytes(5000), PROBLEM), "more than 4096 bytes of an answer that is not sealed"),
        (renonced(NONCE.hex(), NONCE.hex()), "stands 2 times"),
        (renonced(NONCE.hex().upper()), "64 lower-case hex digits"),
        (renonced(""), "64 lower-case hex digits"),
        (renonced("00" * 32), "message 0 was not sealed"),
    ],
)
def test_what_the_guest_did_not_write(
    verified: Verified, relay: Relay, alter: Callable[..., httpx.Response], message: str
) -> None:
    relay.alter = alter
    with talk(verified, relay) as talking, pytest.raises(Mismatch, match=message):
        talking.post("/", content=b"secret")


@pytest.mark.parametrize("at", [0, 4, 20, 33, 40])
def test_an_altered_answer(verified: Verified, relay: Relay, at: int) -> None:
    def alter(response: httpx.Response) -> httpx.Response:
        data = bytearray(response.read())
        data[at] ^= 0x80
        return httpx.Response(200, headers=response.headers, stream=httpx.ByteStream(bytes(data)))

    relay.alter = alter
    with talk(verified, relay) as talking, pytest.raises((Mismatch, Refused, Malformed)):
        talking.post("/", content=b"secret")


@pytest.mark.parametrize("length", [3, 17, 31])
def test_an_answer_cut_in_a_frame(verified: Verified, relay: Relay, length: int) -> None:
    relay.alter = lambda r: httpx.Response(
        200, headers={messages.RESPONSE_NONCE: NONCE.hex()}, stream=httpx.ByteStream(r.read()[:length])
    )
    with (
        talk(verified, relay) as talking,
        pytest.raises(Malformed, match=r"bytes into a frame|expected at least"),
    ):
        talking.post("/", content=b"secret")


def test_limits_of_an_answer(verified: Verified, relay: Relay) -> None:
    relay.answer = [bytes(100), bytes(100)]
    with (
        talk(verified, relay, Limits(total=150)) as talking,
        pytest.raises(Refused, match="more than 150 bytes"),
    ):
        talking.post("/", content=b"x")


def test_another_key_says_to_verify_again(verified: Verified, relay: Relay) -> None:
    relay.alter = answered(422, messages.MISMATCH, PROBLEM)
    with talk(verified, relay) as talking, pytest.raises(OtherKey, match="422") as caught:
        talking.post("/", content=b"secret")
    assert "verify the host again" in caught.value.hint
    assert isinstance(caught.value, Mismatch)


@pytest.mark.parametrize("name", ["Content-Encoding", "content-encoding"])
def test_what_is_only_looked_at_is_not_decompressed(verified: Verified, relay: Relay, name: str) -> None:
    relay.alter = answered(422, messages.MISMATCH, {**PROBLEM, name: "gzip"})
    with talk(verified, relay) as talking, pytest.raises(OtherKey):
        talking.post("/", content=b"secret")


def test_no_request_without_a_body_through_others(verified: Verified, relay: Relay) -> None:
    with talk(verified, relay) as talking:
        for method, content in (("GET", None), ("POST", b""), ("POST", iter([b"", b""]))):
            with pytest.raises(Refused, match=f"{method} without a body"):
                talking.request(method, "/", content=content)
    assert relay.seen == []


@pytest.mark.parametrize("name", [messages.ENCAPSULATED_KEY, messages.RESPONSE_NONCE.lower()])
def test_no_header_of_the_protocols(verified: Verified, relay: Relay, name: str) -> None:
    with talk(verified, relay) as talking, pytest.raises(Refused, match="a header of EHBP's own"):
        talking.post("/", content=b"x", headers={name: "0"})
    assert relay.seen == []


def test_only_a_verified_host_will_do() -> None:
    class Likeness:
        hpke_key = bytes(32)

    with pytest.raises(TypeError, match="made of a verified host"):
        EhbpTransport(Likeness())  # type: ignore[arg-type]  # the wrong type


def bridge(world: World) -> Callable[[ssl.SSLSocket], None]:
    """In the place of the proxy: from a TLS connection to the gateway, both ways, until a side ends."""

    def run(tls: ssl.SSLSocket) -> None:
        with world.connect() as plain:
            tls.setblocking(False)
            while True:
                ready = [tls] if tls.pending() else select.select([tls, plain], [], [], 20)[0]
                if not ready:
                    return
                for source in ready:
                    try:
                        data = source.recv(1 << 16)
                    except ssl.SSLWantReadError:
                        continue
                    if not data:
                        return
                    target = plain if source is tls else tls
                    target.settimeout(20)
                    target.sendall(data)
                    tls.setblocking(False)

    return run


def world_of(host: Host, **rest: object) -> World:
    world = World(**rest)  # type: ignore[arg-type]  # as given
    world.settings = world.settings._replace(private=host.guest.hpke)
    return world


@pytest.fixture
def gateway(host: Host) -> Iterator[World]:
    """The real one, behind the host's TLS."""
    with world_of(host) as world:
        host.instead = bridge(world)  # type: ignore[assignment]  # in its place
        yield world
        host.instead = None


def test_through_the_gateway(verified: Verified, gateway: World) -> None:
    with verified.ehbp_client() as talking:
        answer = talking.post("/v1/embeddings", content=b"secret" * 50_000)
        assert (answer.status_code, answer.content) == (200, b"ok")
    assert gateway.seen[0].body == b"secret" * 50_000


def test_over_the_bound_connection_no_body_is_needed(verified: Verified, gateway: World) -> None:
    """TLS protects it; the gateway is not asked."""
    with verified.ehbp_client() as talking:
        # here everything comes to the gateway, which wants its header
        assert talking.get("/").status_code == 400


def test_a_guest_started_anew_has_another_key(verified: Verified, gateway: World) -> None:
    gateway.settings = gateway.settings._replace(private=X25519PrivateKey.generate())
    with verified.ehbp_client() as talking, pytest.raises(OtherKey, match="has not the HPKE key"):
        talking.post("/", content=b"secret")
    assert gateway.seen == []


def test_errors_of_the_proxy_are_passed_on_where_tls_says_whose_they_are(
    host: Host, verified: Verified
) -> None:
    def proxy(tls: socket.socket) -> None:
        tls.settimeout(5)
        tls.recv(65536)
        tls.sendall(b"HTTP/1.1 429 x\r\nContent-Length: 4\r\nConnection: close\r\n\r\nslow")

    host.instead = proxy
    try:
        with verified.ehbp_client() as talking:
            answer = talking.post("/", content=b"x")
            assert (answer.status_code, answer.content) == (429, b"slow")
    finally:
        host.instead = None
