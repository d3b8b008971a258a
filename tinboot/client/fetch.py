"""What is asked of one host before anything is known of it: small documents, one connection, one deadline.

Everything that comes back is hostile. Bounded are the time in which all of it must be done, the headers
(http1.py), and each body; a redirect, an encoding (RFC 9110, 8.4: what is small here may be large elsewhere)
and any other status than 200 are refused, each by name. No proxy, cookie or environment is looked at.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable
from types import TracebackType
from typing import NamedTuple, Self

import httpcore

from tinboot.client.connection import Address, Backend, Deadline, PeerKey, tls_context
from tinboot.client.http1 import Connection, Head, NoHttp
from tinboot.formats.errors import Malformed, Refused, Unavailable

HTTPS = 443

#: RFC 1123, 2.1: letters, digits, hyphens and dots; or an IPv6 address in brackets (RFC 3986, 3.2.2).
_HOST = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?"
)

_TOO_MANY, _UNAVAILABLE = 429, 503


class Origin(NamedTuple):
    """A host and its port. `at`: where it is reached, if not there."""

    host: str
    port: int = HTTPS
    at: Address | None = None

    @property
    def authority(self) -> str:
        """As in URLs: brackets around IPv6, the port where it is not the usual one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == HTTPS else f"{host}:{self.port}"


class Status(Unavailable):
    """The host has answered, and not with what was asked for."""

    def __init__(self, message: str, hint: str = "", status: int = 0) -> None:
        super().__init__(message, hint)
        self.status = status


class Busy(Unavailable):
    """The host answers later: 429 or 503. `after`: seconds, where it says so (RFC 9110, 10.2.3)."""

    def __init__(self, message: str, hint: str = "", after: float | None = None) -> None:
        super().__init__(message, hint)
        self.after = after


def address(text: str, port: int | None = None) -> Address:
    """`HOST:PORT`; without a port `port`, if there is one. Raises ValueError with a readable reason."""
    match = _HOST.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:80]!r} is no HOST:PORT")
    found = int(match["port"]) if match["port"] else port
    if found is None or not 0 < found < 1 << 16:
        raise ValueError(f"{text[:80]!r} has no port from 1 to 65535")
    return Address(match["name"].strip("[]").lower(), found)


def origin(host: str, connect: str | None = None) -> Origin:
    """Of `HOST[:PORT]`, reached at `connect`, an ADDRESS:PORT. Raises ValueError."""
    name, port = address(host, HTTPS)
    return Origin(name, port, None if connect is None else address(connect))


class Conversation:
    """With one host, for `seconds` in all. A context manager; `peer` is what it showed."""

    def __init__(
        self,
        origin: Origin,
        seconds: float,
        *,
        peer: PeerKey | None = None,
        scheme: str = "https",
        context: ssl.SSLContext | None = None,
    ) -> None:
        """`context`: of authorities that vouch for the host, instead of its key."""
        self.origin = origin
        self.peer = peer or PeerKey()
        self._tls = None if scheme == "http" else context or tls_context()
        if self._tls is not None:
            self._tls.set_alpn_protocols(["http/1.1"])  # what http1.py speaks
        self._deadline = Deadline(seconds)
        held = self.peer if context is None else None
        self._backend = Backend(held, address=origin.at, deadline=self._deadline)
        self._kept: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._kept is not None:
            self._kept.close()

    @property
    def left(self) -> float:
        """Seconds."""
        return self._deadline.left

    def get(self, path: str, limit: int) -> bytes:
        """The body, at most `limit` bytes. `path` has the query in it.

        Raises `Unavailable` where there is no answer (`Busy` where there is one later), `Malformed` for what
        is no HTTP or too long, `Refused` for a redirect or an encoding, `Mismatch` for another TLS key.
        """
        where = f"{self.origin.authority}{path.partition('?')[0]}"
        try:
            return self._answer(where, path, limit)
        except (httpcore.TimeoutException, httpcore.NetworkError) as error:
            raise Unavailable(f"{where}: {error}", "is the host up, and is it the right one?") from error
        except NoHttp as error:
            raise Malformed(f"{where}: no HTTP: {error}") from error

    def _answer(self, where: str, path: str, limit: int) -> bytes:
        connection = self._connection()
        try:
            connection.ask(path, self.origin.authority)
            answer = connection.head()
            _check(where, answer, limit)
            found = _body(where, connection.parts(), limit)
            if connection.renew():
                self._kept = connection
        finally:
            if self._kept is not connection:
                connection.close()
        return found

    def _connection(self) -> Connection:
        """The one of the request before, if it is still good."""
        kept, self._kept = self._kept, None
        if kept is not None:
            if not kept.ended:
                return kept
            kept.close()
        stream = self._backend.connect_tcp(self.origin.host, self.origin.port)
        if self._tls is not None:
            stream = stream.start_tls(self._tls, self.origin.host)
        return Connection(stream)


def _check(where: str, answer: Head, limit: int) -> None:
    """Before the body is read."""
    status, fields = answer
    if 300 <= status < 400:
        target = fields.get("location", "nowhere")
        raise Refused(
            f"redirect: {where} leads to {_quoted(target)}", "no redirect is followed: name the host itself"
        )
    if status in {_TOO_MANY, _UNAVAILABLE}:
        after = fields.get("retry-after", "")
        known = float(after) if re.fullmatch("[0-9]{1,4}", after) else None
        raise Busy(f"{where}: status {status}", "it is busy: ask again later", known)
    if status != 200:
        raise Status(f"{where}: status {status}, expected 200", status=status)
    if (encoding := fields.get("content-encoding", "identity")) != "identity":
        raise Refused(f"encoding: {where} is encoded as {_quoted(encoding)}, which was not asked for")
    if (length := int(fields.get("content-length", "0"))) > limit:
        raise Malformed(f"{where} has {length} bytes, expected at most {limit}")


def _body(where: str, parts: Iterable[bytes], limit: int) -> bytes:
    found = bytearray()
    for part in parts:
        found += part
        if len(found) > limit:
            raise Malformed(f"{where} has more than {limit} bytes")
    return bytes(found)


def _quoted(text: str) -> str:
    """For a message: what the host says, without its control characters."""
    return ascii(text[:100])
