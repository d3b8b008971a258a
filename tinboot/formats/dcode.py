"""Bytes as host names, for a certificate's subject alternative names: base32 in numbered labels.

    00<base32>.<domain>
    01<base32>.<domain>

Lower case, no padding; each name has at most 63 characters in all.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

from tinboot.formats.errors import Malformed

HPKE_DOMAIN = "hpke.tinfoil.sh"  # the raw HPKE public key
HASH_DOMAIN = "hatt.tinfoil.sh"  # the v2 document's hash, its hex digits as ASCII

MAX_NAMES = 100
_LONGEST = 63
_NUMBER = 2  # digits


def encode(data: bytes, domain: str) -> tuple[str, ...]:
    """In order. Raises ValueError for nothing, for more than `MAX_NAMES`, for a domain without room."""
    room = _room(domain)
    text = base64.b32encode(data).decode().rstrip("=").lower()
    chunks = [text[at : at + room] for at in range(0, len(text), room)]
    if not 0 < len(chunks) <= MAX_NAMES:
        raise ValueError(f"{len(data)} bytes make {len(chunks)} names, expected 1 to {MAX_NAMES}")
    return tuple(f"{number:02}{chunk}.{domain}" for number, chunk in enumerate(chunks))


def decode(names: Iterable[str], domain: str) -> bytes:
    """What the names below `domain` say, in any order; others are passed over. Raises `Malformed`."""
    room, suffix = _room(domain), f".{domain}"
    labels = sorted(name.removesuffix(suffix) for name in names if name.endswith(suffix))
    if not 0 < len(labels) <= MAX_NAMES:
        raise Malformed(f"{len(labels)} names below {domain}, expected 1 to {MAX_NAMES}")
    chunks = []
    for number, label in enumerate(labels):
        if label[:_NUMBER] != f"{number:02}" or not 0 < len(label) - _NUMBER <= room:
            raise Malformed(f"the name {label[:80]!r} below {domain}, expected {number:02} and base32")
        chunks.append(label[_NUMBER:])
    text = "".join(chunks)
    try:
        data = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
    except (ValueError, binascii.Error) as error:
        raise Malformed(f"the names below {domain} are not base32: {error}") from error
    if encode(data, domain) != tuple(f"{label}{suffix}" for label in labels):
        raise Malformed(f"the names below {domain} are not as they are written: {text[:80]!r}")
    return data


def _room(domain: str) -> int:
    room = _LONGEST - len(f".{domain}") - _NUMBER
    if room < 1:
        raise ValueError(f"the domain {domain!r} leaves no room in a name")
    return room
