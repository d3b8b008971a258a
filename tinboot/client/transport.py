"""HTTP to a verified guest, for httpx: every connection must show the attested TLS key, or nothing is sent.

A transport is made from the result of a verification and from nothing else. It talks to that origin alone: no
other host, no plain HTTP, no proxy; and so a redirect that httpx follows leads nowhere else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self, final

import httpcore
import httpx

from tinboot.client.connection import Backend, PeerKey, tls_context
from tinboot.client.fetch import HTTPS
from tinboot.client.verified import Verified
from tinboot.formats.errors import Refused

_ERRORS: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (httpcore.ConnectTimeout, httpx.ConnectTimeout),
    (httpcore.ReadTimeout, httpx.ReadTimeout),
    (httpcore.WriteTimeout, httpx.WriteTimeout),
    (httpcore.PoolTimeout, httpx.PoolTimeout),
    (httpcore.ConnectError, httpx.ConnectError),
    (httpcore.ReadError, httpx.ReadError),
    (httpcore.WriteError, httpx.WriteError),
    (httpcore.UnsupportedProtocol, httpx.UnsupportedProtocol),
    (httpcore.LocalProtocolError, httpx.LocalProtocolError),
    (httpcore.RemoteProtocolError, httpx.RemoteProtocolError),
)
_KNOWN = tuple(kind for kind, _ in _ERRORS)


@final
class Transport(httpx.BaseTransport):
    """Bound to the TLS key of one verification. `Verified.transport` makes one."""

    def __init__(self, verified: Verified, *, http2: bool = True) -> None:
        if not isinstance(verified, Verified):
            raise TypeError("a transport is made of a verified host")
        self.origin = verified.origin
        self.tls_key = verified.tls_key
        self._pool = httpcore.ConnectionPool(
            ssl_context=tls_context(http2=http2),
            http2=http2,
            network_backend=Backend(PeerKey(verified.tls_key), address=verified.origin.at),
        )

    def __enter__(self) -> Self:
        self._pool.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._pool.__exit__(exc_type, exc_value, traceback)

    def close(self) -> None:
        self._pool.close()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Raises `Refused` for another origin, `Mismatch` for another TLS key, and httpx's errors."""
        url = request.url
        host = url.raw_host.decode("ascii")  # `url.host` is Unicode where the name is an international one
        if (url.scheme, host, url.port or HTTPS) != ("https", self.origin.host, self.origin.port):
            raise Refused(f"origin: {url.scheme}://{url.netloc.decode()} is not {self.origin.authority}")
        assert isinstance(request.stream, httpx.SyncByteStream)  # noqa: S101 - httpx's Client makes no other
        core = httpcore.Request(
            method=request.method,
            url=httpcore.URL(
                scheme=url.raw_scheme, host=url.raw_host, port=self.origin.port, target=url.raw_path
            ),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _httpx_errors():
            response = self._pool.handle_request(core)
        assert isinstance(response.stream, Iterable)  # noqa: S101 - as above
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Stream(response.stream),
            extensions=response.extensions,
        )


class _Stream(httpx.SyncByteStream):
    def __init__(self, stream: Iterable[bytes]) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        with _httpx_errors():
            yield from self._stream

    def close(self) -> None:
        if hasattr(self._stream, "close"):
            self._stream.close()


@contextlib.contextmanager
def _httpx_errors() -> Iterator[None]:
    """httpcore's errors under httpx's names, which users of a transport expect."""
    try:
        yield
    except _KNOWN as error:
        name = next(name for kind, name in _ERRORS if isinstance(error, kind))
        raise name(str(error)) from error
