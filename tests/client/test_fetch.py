"""A conversation with a host that may be anything: each way to be wrong has its error, and an end."""

from __future__ import annotations

import contextlib
import gzip
import socket
from collections.abc import Callable, Iterator

import pytest
import served_guest
from hypothesis import given
from hypothesis import strategies as st
from served_guest import Answer, Guest, Host

from tinboot.client import fetch
from tinboot.client.connection import Address, PeerKey
from tinboot.client.fetch import Busy, Conversation, Origin
from tinboot.formats.errors import Malformed, Mismatch, Refused, TinbootError, Unavailable

SECONDS = 5.0  # what a good host never needs
SOON = 0.3  # what a bad one is given


def get(host: Host, limit: int = 1000, seconds: float = SECONDS) -> bytes:
    with Conversation(host.origin, seconds) as conversation:
        return conversation.get("/x?y=z", limit)


def test_an_answer_and_one_connection_for_several() -> None:
    with Host() as host, Conversation(host.origin, SECONDS) as conversation:
        assert conversation.get("/x", 100) == b"answer to "
        assert conversation.get("/y", 100) == b"answer to "
        assert conversation.peer.expected == served_guest.spki_sha256(host.guest.tls)
        assert host.connections == 1
        assert 0 < conversation.left <= SECONDS
    assert [request.target for request in host.seen] == ["/x", "/y"]
    sent = host.seen[0].headers
    assert sent == {
        "host": f"127.0.0.1:{host.port}",
        "accept-encoding": "identity",
        "user-agent": "tinboot",
    }


def test_a_second_connection_has_the_same_key() -> None:
    """A host that closes may be followed by another one under the same name."""
    with Host() as host, Conversation(host.origin, SECONDS) as conversation:
        host.answers["/x"] = lambda _: Answer(b"", headers=(("Connection", "close"),))
        conversation.get("/x", 100)
        host.context = served_guest.server_context(Guest(tls=served_guest.tls_key(1)))
        with pytest.raises(Mismatch, match="tls-key"):
            conversation.get("/y", 100)


def test_another_key_than_the_expected() -> None:
    with (
        Host() as host,
        Conversation(host.origin, SECONDS, peer=PeerKey(bytes(32))) as conversation,
        pytest.raises(Mismatch, match="expected the attested 0000"),
    ):
        conversation.get("/x", 100)
    assert host.seen == []


ANSWERS: list[tuple[Answer, type[TinbootError], str]] = [
    (
        Answer(b"", 302, (("Location", "https://evil.example/"),)),
        Refused,
        "redirect: .*'https://evil.example/",
    ),
    (Answer(b"", 301), Refused, "leads to 'nowhere'"),
    (Answer(b"", 304), Refused, "redirect"),
    (Answer(b"", 307, (("Location", "/same"),)), Refused, "redirect"),
    (Answer(b"", 302, (("Location", "x\x1b[2J"),)), Malformed, r"no HTTP: .*\\x1b"),
    (Answer(b"", 302, (("Location", "x\xe9"),)), Refused, r"leads to 'x\\x"),
    (Answer(gzip.compress(b"x"), 200, (("Content-Encoding", "gzip"),)), Refused, "encoding: .* 'gzip'"),
    (Answer(b"", 404), Unavailable, "status 404, expected 200"),
    (Answer(b"", 204), Unavailable, "status 204, expected 200"),
    (Answer(b"", 500), Unavailable, "status 500"),
    (Answer(bytes(1001)), Malformed, "has 1001 bytes, expected at most 1000"),
]


@pytest.mark.parametrize(("answer", "kind", "message"), ANSWERS)
def test_what_is_no_answer(answer: Answer, kind: type[TinbootError], message: str) -> None:
    with Host() as host:
        host.answers["/x"] = lambda _: answer
        with pytest.raises(kind, match=message):
            get(host)
    assert len(host.seen) == 1


@pytest.mark.parametrize(
    ("headers", "after"), [((("Retry-After", "7"),), 7.0), ((("Retry-After", "soon"),), None), ((), None)]
)
@pytest.mark.parametrize("status", [429, 503])
def test_busy(status: int, headers: tuple[tuple[str, str], ...], after: float | None) -> None:
    with Host() as host:
        host.answers["/x"] = lambda _: Answer(b"", status, headers)
        with pytest.raises(Busy, match=f"status {status}") as caught:
            get(host)
    assert caught.value.after == after
    assert caught.value.exit_code == 6


HEAD = b"HTTP/1.1 200 OK\r\n"

RAW: list[tuple[bytes, type[TinbootError], str]] = [
    (b"SSH-2.0-OpenSSH\r\n\r\n", Malformed, "no HTTP"),
    (HEAD + b"Content-Length: 10\r\n\r\nshort", Malformed, "no HTTP"),
    (HEAD + b"Content-Length: x\r\n\r\n", Malformed, "no HTTP"),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", Malformed, "no HTTP"),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"3e9\r\n" + bytes(1001), Malformed, "more than 1000"),
    (HEAD + b"X: " + b"a" * 200_000 + b"\r\n\r\n", Malformed, "no HTTP"),
    (HEAD + b"X: y\r\n" * 20_000, Malformed, "no HTTP"),
    (b"", Malformed, "no HTTP"),
]


@pytest.mark.parametrize(("raw", "kind", "message"), RAW)
def test_bytes_that_are_no_answer(raw: bytes, kind: type[TinbootError], message: str) -> None:
    def instead(sock: socket.socket) -> None:
        sock.settimeout(5)
        sock.recv(65536)
        sock.sendall(raw)
        sock.shutdown(socket.SHUT_WR)

    with Host(tls=False) as host:
        host.instead = instead
        conversation = Conversation(host.origin, SECONDS, scheme="http")
        with conversation, pytest.raises(kind, match=message):
            conversation.get("/x", 1000)


def test_an_answer_that_is_cut_off() -> None:
    """An answer that ends with its connection ends with TLS's close_notify, or it is cut off."""

    def instead(sock: socket.socket) -> None:
        sock.settimeout(5)
        sock.recv(65536)
        sock.sendall(HEAD + b"Connection: close\r\n\r\nhalf of it")

    with Host() as host:
        host.instead = instead
        with pytest.raises(Unavailable, match="unexpected eof while reading"):
            get(host)


def drip(head: bytes, piece: bytes) -> Callable[[Host], Callable[[socket.socket], None]]:
    def made(host: Host) -> Callable[[socket.socket], None]:
        def instead(sock: socket.socket) -> None:
            sock.settimeout(5)
            sock.sendall(head)
            while not host.stopped(0.01):
                sock.sendall(piece)

        return instead

    return made


SLOW = {
    "nothing at all": drip(b"", b""),
    "endless headers": drip(HEAD + b"X: ", b"y"),
    "endless body": drip(HEAD + b"Content-Length: 900\r\n\r\n", b"z"),
    "endless hints": drip(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "endless chunks": drip(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nz\r\n"),
}


@pytest.mark.parametrize("name", SLOW)
def test_slow_hosts_end_by_the_deadline(name: str) -> None:
    with Host() as host:
        host.instead = SLOW[name](host)
        with pytest.raises(Unavailable, match=r"in time|not done after"):
            get(host, seconds=SOON)


def test_a_host_that_accepts_and_says_nothing() -> None:
    with Host(tls=False) as host:
        host.instead = lambda _: bool(host.stopped(5))
        with pytest.raises(Unavailable, match="the TLS handshake did not end in time"):
            get(host, seconds=SOON)


def test_a_hundred_megabytes() -> None:
    def instead(sock: socket.socket) -> None:
        sock.settimeout(5)
        sock.sendall(HEAD + b"Connection: close\r\n\r\n")
        for _ in range(100):
            sock.sendall(bytes(1 << 20))
        host.seen.append(served_guest.Request("", "all of it was taken", {}, b""))

    with Host() as host:
        host.instead = instead
        with pytest.raises(Malformed, match="more than 1000 bytes"):
            get(host)
    assert host.seen == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("guest.example", Origin("guest.example", 443)),
        ("Guest.Example:8443", Origin("guest.example", 8443)),
        ("[::1]:8443", Origin("::1", 8443)),
        ("127.0.0.1", Origin("127.0.0.1", 443)),
    ],
)
def test_origins(text: str, found: Origin) -> None:
    assert fetch.origin(text) == found
    assert fetch.origin(found.authority) == found


def test_where_it_is_reached() -> None:
    assert fetch.origin("guest.example", "[::1]:4433").at == Address("::1", 4433)
    with pytest.raises(ValueError, match="has no port"):
        fetch.origin("guest.example", "127.0.0.1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://x.example",
        "x:0",
        "x:65536",
        "x:",
        "x/y",
        "a b",
        "x@y",
        "::1",
        "[::1",
        "x:99999999",
        "-x",
        "é",
        "x\n",
    ],
)
def test_no_origins(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no HOST:PORT|has no port"):
        fetch.origin(text)


@pytest.fixture(scope="module")
def raw() -> Iterator[tuple[Host, list[bytes]]]:
    """A host that answers every connection with what the list has last."""
    answers: list[bytes] = []

    def instead(sock: socket.socket) -> None:
        sock.settimeout(5)
        sock.recv(65536)
        sock.sendall(answers[-1])
        sock.shutdown(socket.SHUT_WR)

    with Host(tls=False) as host:
        host.instead = instead
        yield host, answers


LINES = st.lists(
    st.one_of(
        st.sampled_from(
            [
                *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 103 x\r\n", b"HTTP/1.0 200\r\n", b"\r\n", b"0\r\n\r\n"),
                *(b"Content-Length: 3\r\n", b"Content-Length: -1\r\n", b"Transfer-Encoding: chunked\r\n"),
                *(b"Content-Encoding: gzip\r\n", b"Location: x\r\n", b"3\r\nabc\r\n", b"abc"),
            ]
        ),
        st.binary(max_size=20),
    ),
    max_size=8,
)


@given(answer=LINES.map(b"".join))
def test_any_bytes_are_an_answer_or_an_error(raw: tuple[Host, list[bytes]], answer: bytes) -> None:
    host, answers = raw
    answers.append(answer)
    conversation = Conversation(host.origin, SECONDS, scheme="http")
    with conversation, contextlib.suppress(TinbootError):
        assert len(conversation.get("/x", 10)) <= 10


@given(st.text(max_size=300))
def test_any_text_is_an_origin_or_not(text: str) -> None:
    try:
        found = fetch.origin(text)
    except ValueError:
        return
    assert fetch.origin(found.authority) == found
