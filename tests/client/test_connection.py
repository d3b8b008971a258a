"""The peer's key is looked at before anything is sent, on every connection; certificates that are none."""

from __future__ import annotations

import contextlib
import socket
from functools import cache

import httpcore
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from served_guest import Guest, Host, spki_sha256, tls_key

from tinboot.client import connection
from tinboot.client.connection import Address, Backend, Deadline, PeerKey, tls_context
from tinboot.formats.errors import Malformed, Mismatch


@cache
def der(number: int = 0) -> bytes:
    pem = Guest(tls=tls_key(number)).certificate()
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


def test_the_key_is_that_of_the_library() -> None:
    expected = tls_key().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert connection.spki(der()) == expected


@given(at=st.integers(0, 400), value=st.integers(0, 255), cut=st.integers(0, 300))
def test_any_bytes_are_a_certificate_or_malformed(at: int, value: int, cut: int) -> None:
    changed = bytearray(der()[: len(der()) - cut])
    changed[at : at + 1] = bytes([value])
    with contextlib.suppress(Malformed):
        assert connection.spki(bytes(changed))


def test_the_first_key_is_learnt_and_then_demanded() -> None:
    peer = PeerKey()
    peer.check(der())
    assert peer.expected == spki_sha256(tls_key())
    peer.check(der())
    with pytest.raises(Mismatch, match="tls-key: the peer has the TLS key"):
        peer.check(der(1))
    assert peer.certificate == der()


def test_no_byte_reaches_a_peer_with_another_key() -> None:
    with Host(Guest(tls=tls_key(1))) as host:
        pool = httpcore.ConnectionPool(
            ssl_context=tls_context(), network_backend=Backend(PeerKey(spki_sha256(tls_key())))
        )
        with pool, pytest.raises(Mismatch):
            pool.request("POST", f"https://127.0.0.1:{host.port}/", content=b"secret")
        assert host.connections == 1
    assert host.seen == []


def test_tls_1_2_is_not_spoken() -> None:
    with Host() as host:
        assert host.context is not None
        host.context.maximum_version = host.context.minimum_version
        pool = httpcore.ConnectionPool(ssl_context=tls_context(), network_backend=Backend(PeerKey()))
        with pool, pytest.raises(httpcore.ConnectError, match=r"no TLS 1\.3"):
            pool.request("GET", f"https://127.0.0.1:{host.port}/")


def test_an_address_takes_the_place_of_the_name() -> None:
    with Host() as host:
        backend = Backend(PeerKey(), address=Address("127.0.0.1", host.port))
        with httpcore.ConnectionPool(ssl_context=tls_context(), network_backend=backend) as pool:
            assert pool.request("GET", "https://guest.invalid/").status == 200
        assert host.seen[0].headers["host"] == "guest.invalid"


def test_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(httpcore.ConnectError, match=f"127.0.0.1 port {port}: Connection refused"):
        Backend(None).connect_tcp("127.0.0.1", port)


def test_a_name_that_nobody_knows() -> None:
    with pytest.raises(httpcore.ConnectError, match="is not known"):
        Backend(None).connect_tcp("a" * 80, 443)  # a label has at most 63 octets: RFC 1035, 2.3.4


def test_only_tcp() -> None:
    with pytest.raises(httpcore.ConnectError, match="TCP"):
        Backend(None).connect_unix_socket("/run/x")


def test_no_wait_goes_past_the_deadline() -> None:
    over = Deadline(0)
    with pytest.raises(httpcore.ConnectTimeout, match="not done after 0 seconds"):
        Backend(None, deadline=over).connect_tcp("127.0.0.1", 1)
    ours, theirs = socket.socketpair()
    with theirs:
        stream = connection.Stream(ours, None, over)
        with pytest.raises(httpcore.ReadTimeout):
            stream.read(1)
        with pytest.raises(httpcore.WriteTimeout):
            stream.write(b"x")
        stream.close()


def test_a_deadline_that_passes_between_two_looks() -> None:
    class Ticking(Deadline):
        __slots__ = ("looks",)

        @property
        def left(self) -> float:
            self.looks = getattr(self, "looks", 0) + 1
            return 0.5 if self.looks == 1 else -0.5

    here, there = socket.socketpair()
    with here, there:
        there.sendall(b"x")
        assert connection.Stream(here, None, Ticking(1)).read(1) == b"x"


def test_a_handshake_that_does_not_end() -> None:
    ours, theirs = socket.socketpair()
    with theirs, pytest.raises(httpcore.ConnectTimeout, match="the TLS handshake did not end"):
        connection.Stream(ours, PeerKey(), Deadline(0.05)).start_tls(tls_context(), "x")


def test_a_peer_that_takes_nothing() -> None:
    ours, theirs = socket.socketpair()
    with theirs, pytest.raises(httpcore.WriteTimeout, match="takes nothing more"):
        connection.Stream(ours, None, Deadline(0.05)).write(bytes(64 << 20))
    ours.close()


def test_a_peer_that_is_gone() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    stream = connection.Stream(ours, None, None)
    assert stream.get_extra_info("is_readable")
    with pytest.raises(httpcore.WriteError):
        stream.write(b"x")
    stream.close()
    with pytest.raises(httpcore.ReadError):
        stream.read(1)
    assert stream.get_extra_info("ssl_object") is None
    assert stream.get_extra_info("anything else") is None
