"""HTTP/1.1 (RFC 9112) for questions without a body: h11 over one stream, and nothing around it.

Raises h11's `ProtocolError` for what is no HTTP, httpcore's errors where the stream ends or is late.
"""

from __future__ import annotations

from collections.abc import Iterator

import h11
import httpcore

_HEADERS = 100 << 10  # bytes of an answer's head, or of one chunk's
_PIECE = 64 << 10  # bytes that are read at once


class Connection:
    """A request after the other over `stream`. `ask`, `head`, all of `parts`, `renew`, and again."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEADERS)

    def ask(self, target: str, authority: str) -> None:
        headers = [("Host", authority), ("Accept-Encoding", "identity"), ("User-Agent", "tinboot")]
        sent = self._http.send(h11.Request(method="GET", target=target, headers=headers)) or b""
        self._http.send(h11.EndOfMessage())
        self._stream.write(sent)

    def head(self) -> h11.Response:
        """Passes over the informational ones."""
        while not isinstance(event := self._next(), h11.Response):
            pass
        return event

    def parts(self) -> Iterator[bytes]:
        """Of the body."""
        while not isinstance(event := self._next(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                yield event.data

    def renew(self) -> bool:
        """Whether it takes another request: neither side ends it, and nothing came that was not asked for."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        if self._http.trailing_data[0]:
            return False
        self._http.start_next_cycle()
        return True

    @property
    def ended(self) -> bool:
        """Whether the host has ended it, or said something unasked."""
        return bool(self._stream.get_extra_info("is_readable"))

    def close(self) -> None:
        self._stream.close()

    def _next(self) -> h11.Event:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(self._stream.read(_PIECE))
        if not isinstance(event, h11.Event) or isinstance(event, h11.ConnectionClosed):
            raise h11.RemoteProtocolError("the host has ended the connection, or changed to another protocol")
        return event
