"""Fetches a RIM from NVIDIA's RIM service, or from one that answers as it does.

    GET <service>/<id>  ->  {"id": <id>, "rim": <base64>, "sha256": <hex>, ...}

NVIDIA, RIM Service API v1, "Get RIM by ID"; no key is needed. Nothing of an answer is believed here: whether
it is NVIDIA's RIM the signature says, whether it is the one asked for, its content. What is bounded is how
much an answer may take: size, time, attempts.
"""

from __future__ import annotations

import binascii
import hashlib
import http.client
import json
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable

from tinboot.builder import rim_document
from tinboot.builder.rim_id import is_id
from tinboot.formats.errors import Malformed, Unavailable

NVIDIA = "https://rim.attestation.nvidia.com/v1/rim"

MAX_SIZE = 1 << 20  # of an answer; those with GPUs' RIMs have 30 KB
ATTEMPTS = 4
PAUSE = 1.0  # seconds before the second attempt, twice as many before each later one
TIMEOUT = 20.0  # seconds, of one attempt

_OFFLINE = "without the service: give the RIM as a file; NVIDIA publishes it under that id"
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})


class _Fails(Exception):
    """An attempt that another may mend."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A service that moved is one that nobody named."""

    def redirect_request(self, *_: object) -> None:
        return None


def fetch(
    identifier: str,
    service: str = NVIDIA,
    *,
    timeout: float = TIMEOUT,
    pause: Callable[[float], None] = time.sleep,
) -> bytes:
    """The RIM's XML. Raises `Unavailable` where the service is not there, or has none of that id."""
    if not is_id(identifier):
        raise Malformed(f"{identifier[:100]!r} is not the id of a GPU's RIM")
    url = address(identifier, service)
    for attempt in range(ATTEMPTS):
        if attempt:
            pause(PAUSE * 2 ** (attempt - 1))
        try:
            return _rim(identifier, _get(url, timeout))
        except _Fails as error:
            failure = error
    raise Unavailable(f"{url}: {failure}, {ATTEMPTS} times", _OFFLINE)


def address(identifier: str, service: str) -> str:
    """Raises `Malformed` for a service that is not at an http or https URL."""
    parts = urllib.parse.urlsplit(service)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise Malformed(f"the RIM service {service[:200]!r} is no http or https URL")
    return f"{service.rstrip('/')}/{identifier}"


def _get(url: str, timeout: float) -> bytes:
    opener = urllib.request.build_opener(_NoRedirect)
    end = time.monotonic() + timeout
    try:
        with opener.open(url, timeout=timeout) as answer:
            found = b""
            while piece := answer.read1(1 << 16):
                found += piece
                if len(found) > MAX_SIZE:
                    raise Malformed(f"{url}: an answer of more than {MAX_SIZE} bytes")
                if time.monotonic() > end:
                    raise _Fails(f"no answer within {timeout:g} seconds")
            if answer.length:
                raise _Fails(f"an answer that ends {answer.length} bytes too soon")
            return bytes(found)
    except urllib.error.HTTPError as error:
        with error:
            if error.code in _AGAIN:
                raise _Fails(f"HTTP {error.code}") from None
            hint = "is the version spelled as NVIDIA does?" if error.code == 404 else _OFFLINE
            raise Unavailable(f"{url}: HTTP {error.code}", hint) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        # most often there is no network at all; and whoever is not the service will not be it in a second
        if isinstance(reason, (socket.gaierror, ssl.SSLCertVerificationError)):
            raise Unavailable(f"{url}: {reason.strerror}", _OFFLINE) from None
        raise _Fails(str(reason) or type(error).__name__) from None


def _rim(identifier: str, answer: bytes) -> bytes:
    try:
        fields = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"the service's answer for {identifier} is no JSON: {error}") from None
    if not isinstance(fields, dict) or not isinstance(fields.get("rim"), str):
        raise Malformed(f"the service's answer for {identifier} has no RIM in it")
    if fields.get("id") != identifier:
        raise Malformed(f"the service answered with {str(fields.get('id'))[:100]!r}, asked for {identifier}")
    text: str = fields["rim"]
    try:
        found = binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise Malformed(f"the service's RIM {identifier} is no base64: {error}") from None
    # NVIDIA does not say of which of the two; it is against damage on the way, and no more
    digests = {hashlib.sha256(form).hexdigest() for form in (found, text.encode())}
    stated = fields.get("sha256")
    if stated is not None and str(stated).lower() not in digests:
        raise Malformed(f"the service's RIM {identifier} does not have the SHA-256 that its answer states")
    if len(found) > rim_document.MAX_SIZE:
        raise Malformed(f"the service's RIM {identifier} has {len(found)} bytes")
    return found
