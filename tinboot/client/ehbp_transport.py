"""HTTP to a verified guest with bodies for it alone, for httpx: encrypted for the attested HPKE key (EHBP).

Over the transport that is bound to the attested TLS key, bodies are encrypted twice, and what has no body is
protected by TLS. `through` another transport, whoever terminates TLS sees heads, lengths and times, no body;
so there every request must have one, and every response must be sealed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import httpx

from tinboot.client.verified import Verified
from tinboot.ehbp import messages
from tinboot.ehbp.messages import Exchange, Limits, Opener
from tinboot.formats.errors import Malformed, Mismatch, Refused

_FRAMING = ("content-length", "transfer-encoding")
_ENCODING = b"content-encoding"
_OWN = (messages.ENCAPSULATED_KEY, messages.RESPONSE_NONCE)

#: Bytes of an answer without nonce, which is only looked at.
_LOOK = 4096


class OtherKey(Mismatch):
    """The guest says that it has another HPKE key, and that it has not read the request.

    Whoever is on the way can say so too. What helps is to verify the host again, never to take a key from it.
    """


@final
class EhbpTransport(httpx.BaseTransport):
    """Bound to the HPKE key of one verification; `limits`: of a response. Closes what it goes through.

    `http2`: of the transport that is bound to the TLS key.
    """

    def __init__(
        self,
        verified: Verified,
        *,
        through: httpx.BaseTransport | None = None,
        limits: Limits | None = None,
        http2: bool = True,
    ) -> None:
        if not isinstance(verified, Verified):
            raise TypeError("an EHBP transport is made of a verified host")
        self.hpke_key = verified.hpke_key
        self._bound = through is None
        self._inner = verified.transport(http2=http2) if through is None else through
        self._limits = limits or Limits()

    def close(self) -> None:
        self._inner.close()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Raises `OtherKey`; `Mismatch` for an answer that is not the guest's; `Refused`; httpx's errors.

        What is not the guest's in the middle of a body raises where that is read.
        """
        if any(name in request.headers for name in _OWN):
            raise Refused(f"the request has a header of EHBP's own: {', '.join(_OWN)}")
        assert isinstance(request.stream, httpx.SyncByteStream)  # noqa: S101 - httpx's Client makes no other
        body = iter(request.stream)
        first = next(filter(None, body), None)
        if first is None:
            return self._inner.handle_request(self._without_body(request))
        exchange = Exchange(self.hpke_key)
        own = (messages.ENCAPSULATED_KEY.encode(), exchange.header.encode())
        response = self._inner.handle_request(
            httpx.Request(
                request.method,
                request.url,
                headers=[*_headers(request.headers), own],
                content=_sealed(exchange, first, body),
                extensions=request.extensions,
            )
        )
        try:
            return self._opened(response, exchange)
        except BaseException:
            response.close()
            raise

    def _without_body(self, request: httpx.Request) -> httpx.Request:
        if not self._bound:
            raise Refused(
                f"{request.method} without a body: EHBP would encrypt neither it nor the answer",
                "send some body, or use the transport that is bound to the TLS key",
            )
        return httpx.Request(
            request.method,
            request.url,
            headers=_headers(request.headers),
            content=b"",
            extensions=request.extensions,
        )

    def _opened(self, response: httpx.Response, exchange: Exchange) -> httpx.Response:
        nonces = response.headers.get_list(messages.RESPONSE_NONCE)
        if len(nonces) > 1:
            raise Mismatch(f"{messages.RESPONSE_NONCE} stands {len(nonces)} times, expected once")
        if not nonces:
            return self._unsealed(response)
        try:
            opener = exchange.response(nonces[0], self._limits)
        except Malformed as error:
            raise Mismatch(error.message) from error
        return httpx.Response(
            response.status_code,
            headers=_headers(response.headers),
            stream=_Opening(response, opener),
            extensions=response.extensions,
        )

    def _unsealed(self, response: httpx.Response) -> httpx.Response:
        """SPEC.md, 5.3: never a success. An error is passed on where TLS says that it is the guest's."""
        status = response.status_code
        if status == messages.MISMATCH_STATUS:
            response = _looked_at(response)
            if messages.is_mismatch(status, response.headers.get("content-type", ""), response.content):
                raise OtherKey(
                    f"{status}: the guest says that it has not the HPKE key {self.hpke_key.hex()}",
                    "verify the host again: it may have been started anew",
                )
        if self._bound and not response.is_success:
            return response
        raise Mismatch(
            f"a response with status {status} and without {messages.RESPONSE_NONCE}",
            "whoever is between here and the guest wrote it",
        )


def _headers(headers: httpx.Headers) -> list[tuple[bytes, bytes]]:
    """All but what frames the body, of which each side has its own."""
    return [(name, value) for name, value in headers.raw if name.decode("latin-1").lower() not in _FRAMING]


def _sealed(exchange: Exchange, first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield exchange.request.seal(first)
    for part in rest:
        if part:
            yield exchange.request.seal(part)


def _looked_at(response: httpx.Response) -> httpx.Response:
    """The same with its body read, as far as anyone looks at that."""
    body = b""
    for part in response.iter_raw():
        body += part
        if len(body) > _LOOK:
            raise Mismatch(f"more than {_LOOK} bytes of an answer that is not sealed")
    response.close()
    headers = [(name, value) for name, value in _headers(response.headers) if name.lower() != _ENCODING]
    return httpx.Response(response.status_code, headers=headers, content=body, extensions=response.extensions)


class _Opening(httpx.SyncByteStream):
    def __init__(self, response: httpx.Response, opener: Opener) -> None:
        self._response = response
        self._opener = opener

    def __iter__(self) -> Iterator[bytes]:
        for part in self._response.iter_raw():
            yield from self._opener.feed(part)
        self._opener.finish()

    def close(self) -> None:
        self._response.close()
