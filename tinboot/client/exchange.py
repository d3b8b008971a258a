"""One request to a verified host and its answer, streamed both ways; errors in tinboot's words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import httpx

from tinboot.client.verified import Verified
from tinboot.formats.errors import Unavailable


class Request(NamedTuple):
    """`path` begins with a slash. `body`: bytes, parts of them, or a file; None: no body."""

    method: str
    path: str
    headers: Sequence[tuple[str, str]] = ()
    body: bytes | Iterable[bytes] | None = None


class Answer(NamedTuple):
    """`parts`: of the body, as they come."""

    version: str
    status: int
    headers: Sequence[tuple[str, str]]
    parts: Iterator[bytes]


@contextmanager
def exchange(verified: Verified, request: Request, *, ehbp: bool, seconds: float) -> Iterator[Answer]:
    """`seconds`: for each wait. No redirect is followed, and no encoding asked for.

    Raises `Unavailable` where the host breaks off, even in the middle of the parts.
    """
    authority = verified.origin.authority
    own = [("User-Agent", "tinboot"), ("Accept", "*/*"), ("Accept-Encoding", "identity")]
    named = {name.lower() for name, _ in request.headers}
    headers = [*request.headers, *((name, value) for name, value in own if name.lower() not in named)]
    opened = verified.ehbp_client if ehbp else verified.client
    url = f"https://{authority}{request.path}"
    try:
        with (
            opened(timeout=seconds) as talk,
            talk.stream(request.method, url, content=request.body, headers=headers) as answer,
        ):
            found = answer.headers.multi_items()
            yield Answer(answer.http_version, answer.status_code, found, answer.iter_raw())
    except httpx.HTTPError as error:
        said = str(error) or type(error).__name__
        hint = "the host was verified, and then broke off"
        raise Unavailable(f"{authority}{request.path}: {said}", hint) from error
