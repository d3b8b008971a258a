"""The guest's HPKE key as EHBP's clients fetch it: RFC 9458, section 3.1, one key configuration.

    00       key identifier
    0020     KEM: DHKEM(X25519, HKDF-SHA256)          RFC 9180, table 2
    32       bytes of public key
    0004     length of what follows
    0001     KDF: HKDF-SHA256                         RFC 9180, table 3
    0002     AEAD: AES-256-GCM                        RFC 9180, table 5

EHBP leaves out the length that RFC 9458, section 3.2, puts before each configuration of this media type.
"""

from __future__ import annotations

from tinboot.formats.errors import Malformed

MEDIA_TYPE = "application/ohttp-keys"

KEY = 32  # bytes of an X25519 public key
_HEAD = bytes.fromhex("000020")
_TAIL = bytes.fromhex("000400010002")
SIZE = len(_HEAD) + KEY + len(_TAIL)


def render(public: bytes) -> bytes:
    """`SIZE` bytes; `public`: the raw X25519 key."""
    if len(public) != KEY:
        raise ValueError(f"an HPKE key of {len(public)} bytes, expected {KEY}")
    return _HEAD + public + _TAIL


def parse(data: bytes) -> bytes:
    """The raw key; raises `Malformed` for another suite, number of keys or length."""
    if len(data) != SIZE:
        raise Malformed(f"an HPKE key configuration of {len(data)} bytes, expected {SIZE}")
    head, tail = data[: len(_HEAD)], data[-len(_TAIL) :]
    if (head, tail) != (_HEAD, _TAIL):
        raise Malformed(
            f"an HPKE key configuration of {head.hex()} and {tail.hex()}, expected {_HEAD.hex()} and "
            f"{_TAIL.hex()}: X25519, HKDF-SHA256, AES-256-GCM"
        )
    return data[len(_HEAD) : -len(_TAIL)]
