"""TCP and TLS as the client speaks them: bounded in time; the key is looked at before any byte is sent.

No certificate authority is asked. Who is at the other end is said by the guest's evidence, which binds the
key of its TLS certificate; so what a connection is held to is that key, by the SHA-256 of its
SubjectPublicKeyInfo. TLS 1.3 alone (RFC 8446): its handshake proves that the peer has the key before either
side sends data, and its certificate is not visible to others.

Given to httpcore as its network backend, whose words the errors here are in, but for the one that matters: a
key that is not the expected one is our own `Mismatch`, whatever library stands in between.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from typing import Any, NamedTuple

import httpcore

from tinboot.formats.errors import Malformed, Mismatch
from tinboot.verify.der import INTEGER, SEQUENCE, Der, context

#: Seconds that one address gets where a name has several.
_PER_ADDRESS = 10.0


class Deadline:
    """A moment that no wait goes past, on the monotonic clock."""

    __slots__ = ("_end", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds; zero or less where it has passed."""
        return self._end - time.monotonic()


class Address(NamedTuple):
    """Where a host is reached: a name or an IP address, and a port."""

    host: str
    port: int


class PeerKey:
    """The key that every connection must show. `expected`: 32 bytes; None: whatever the first one shows.

    `certificate` is the last one that was shown and passed.
    """

    __slots__ = ("certificate", "expected")

    def __init__(self, expected: bytes | None = None) -> None:
        self.expected = expected
        self.certificate = b""

    def check(self, certificate: bytes) -> None:
        """Raises `Mismatch` for another key than expected, `Malformed` for what is no certificate."""
        own = sha256(spki(certificate)).digest()
        if self.expected is None:
            self.expected = own
        elif own != self.expected:
            raise Mismatch(
                f"tls-key: the peer has the TLS key {own.hex()}, expected the attested {self.expected.hex()}",
                "something between here and the guest ends TLS, or the guest was started anew",
            )
        self.certificate = certificate


def spki(certificate: bytes) -> bytes:
    """The SubjectPublicKeyInfo of a certificate, as encoded in it: RFC 5280, 4.1. Raises `Malformed`."""
    file = Der(certificate)
    outer = file.take(SEQUENCE)
    file.done()
    body = outer.take(SEQUENCE)
    body.take(context(0))  # version
    body.whole(INTEGER)  # serial number
    for _ in ("signature", "issuer", "validity", "subject"):
        body.whole(SEQUENCE)
    return body.whole(SEQUENCE)


@cache
def tls_context(*, http2: bool = False) -> ssl.SSLContext:
    """TLS 1.3 without authorities: `PeerKey` says whom to trust. httpcore writes into it what is offered."""
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    found.minimum_version = ssl.TLSVersion.TLSv1_3
    found.check_hostname = False
    found.verify_mode = ssl.CERT_NONE
    # an end without close_notify is an error (RFC 8446, 6.1): who is in between could cut off an answer that
    # ends with its connection. CPython sets the option of its own accord (Modules/_ssl.c)
    found.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    return found


class Backend(httpcore.NetworkBackend):
    """Makes connections. `peer`: what their key is held to, None where authorities vouch for the peer.

    `address`: where every connection goes, whatever host it names. `deadline`: for all of them together.
    """

    def __init__(
        self, peer: PeerKey | None, *, address: Address | None = None, deadline: Deadline | None = None
    ) -> None:
        self._peer = peer
        self._address = address
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        at = self._address or Address(host, port)
        own = Deadline(_shorter(timeout, self._deadline, httpcore.ConnectTimeout) or _PER_ADDRESS)
        failed: OSError | None = None
        for family, kind, protocol, _, target in _resolved(at, own):
            if (left := own.left) <= 0:
                break
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(min(left, _PER_ADDRESS))
                sock.connect(target)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                sock.close()
                failed = error
            else:
                return Stream(sock, self._peer, self._deadline)
        if failed is None or isinstance(failed, TimeoutError):
            raise httpcore.ConnectTimeout(f"no answer from {at.host} port {at.port}")
        raise httpcore.ConnectError(f"{at.host} port {at.port}: {failed.strerror or failed}")

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        raise httpcore.ConnectError("the client speaks TCP")


class Stream(httpcore.NetworkStream):
    """One connection. After `start_tls` of a `peer` that is checked, its key has passed."""

    def __init__(self, sock: socket.socket, peer: PeerKey | None, deadline: Deadline | None) -> None:
        self._socket = sock
        self._peer = peer
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            self._socket.settimeout(_shorter(timeout, self._deadline, httpcore.ReadTimeout))
            return self._socket.recv(max_bytes)
        except TimeoutError as error:
            raise httpcore.ReadTimeout("no answer in time") from error
        except OSError as error:
            raise httpcore.ReadError(error.strerror or str(error)) from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        rest = memoryview(buffer)
        try:
            while rest:
                self._socket.settimeout(_shorter(timeout, self._deadline, httpcore.WriteTimeout))
                rest = rest[self._socket.send(rest) :]
        except TimeoutError as error:
            raise httpcore.WriteTimeout("the peer takes nothing more") from error
        except OSError as error:
            raise httpcore.WriteError(error.strerror or str(error)) from error

    def close(self) -> None:
        self._socket.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Raises what `PeerKey.check` raises, before the caller gets anything that it could write to."""
        try:
            # of the whole handshake (CPython's Modules/_ssl.c)
            self._socket.settimeout(_shorter(timeout, self._deadline, httpcore.ConnectTimeout))
            sock = ssl_context.wrap_socket(
                self._socket, server_hostname=server_hostname, suppress_ragged_eofs=False
            )
        except TimeoutError as error:
            self.close()
            raise httpcore.ConnectTimeout("the TLS handshake did not end in time") from error
        except OSError as error:
            self.close()
            raise httpcore.ConnectError(f"no TLS 1.3: {error.strerror or error}") from error
        try:
            if self._peer is not None:
                self._peer.check(sock.getpeercert(True) or b"")
        except (Malformed, Mismatch):
            sock.close()
            raise
        return Stream(sock, self._peer, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        if info == "ssl_object":
            return self._socket if isinstance(self._socket, ssl.SSLSocket) else None
        if info == "is_readable":  # httpcore's question about an idle connection: has the peer closed it?
            return self._socket.fileno() < 0 or _readable(self._socket)
        return None


def _readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _shorter(timeout: float | None, deadline: Deadline | None, late: type[Exception]) -> float | None:
    """Seconds that one wait may take. Raises `late` where none are left."""
    if deadline is None:
        return timeout
    if (left := deadline.left) <= 0:  # looked at once: time goes on
        raise late(f"not done after {deadline.seconds:g} seconds")
    return left if timeout is None else min(timeout, left)


def _resolved(at: Address, deadline: Deadline) -> list[Any]:
    """getaddrinfo(3) has no timeout of its own: a thread asks, which nobody waits for past the deadline."""
    with contextlib.suppress(OSError, UnicodeError):  # an address needs no asking
        return socket.getaddrinfo(
            at.host, at.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        )
    found: list[Any] = []

    def ask() -> None:
        try:
            found.append(socket.getaddrinfo(at.host, at.port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(max(0.0, deadline.left))
    if not found:
        raise httpcore.ConnectTimeout(f"the name {at.host} is not resolved in time")
    if isinstance(found[0], Exception):
        raise httpcore.ConnectError(f"the name {at.host} is not known: {found[0]}")
    resolved: list[Any] = found[0]
    return resolved
