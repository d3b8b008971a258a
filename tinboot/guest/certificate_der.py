"""Writes DER (ITU-T X.690, 10): the guest's certificate, and its key as the proxy reads it.

Certificates: RFC 5280, version 3. Keys: RFC 5480 and RFC 5915, P-384. The library's own writer costs the
guest more imports than everything else of its identity; tests hold this one to it.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha1
from typing import NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

COORDINATE = 48  # bytes of P-384's numbers

_INTEGER, _BIT_STRING, _OCTET_STRING, _OID, _UTF8 = 0x02, 0x03, 0x04, 0x06, 0x0C
_BOOLEAN, _UTC_TIME, _GENERALIZED_TIME, _SEQUENCE, _SET = 0x01, 0x17, 0x18, 0x30, 0x31
_DNS_NAME = 0x82  # [2] IA5String of GeneralName (RFC 5280, 4.2.1.6)


def element(tag: int, *contents: bytes) -> bytes:
    """One element around `contents`, its length in the shortest form."""
    content = b"".join(contents)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def integer(value: int) -> bytes:
    """Of a number that is not negative: a byte more where its first bit is set."""
    return element(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def oid(text: str) -> bytes:
    """Of an OBJECT IDENTIFIER in dots."""
    first, second, *others = map(int, text.split("."))
    return element(_OID, *map(_base128, (40 * first + second, *others)))


def _base128(value: int) -> bytes:
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(0x80 | value & 0x7F)
    return bytes(reversed(groups))


def time(value: datetime) -> bytes:
    """RFC 5280, 4.1.2.5: UTCTime from 1950 to 2049, GeneralizedTime otherwise."""
    value = value.astimezone(UTC)
    text = f"{value.year:04}{value:%m%d%H%M%SZ}"
    if 1950 <= value.year < 2050:
        return element(_UTC_TIME, text[2:].encode())
    return element(_GENERALIZED_TIME, text.encode())


_P384 = element(_SEQUENCE, oid("1.2.840.10045.2.1"), oid("1.3.132.0.34"))  # id-ecPublicKey, secp384r1
_ECDSA_SHA384 = element(_SEQUENCE, oid("1.2.840.10045.4.3.3"))
_NAME = element(  # CN=tinboot guest: nobody looks for it, but some readers want a subject
    _SEQUENCE,
    element(_SET, element(_SEQUENCE, oid("2.5.4.3"), element(_UTF8, b"tinboot guest"))),
)


class Validity(NamedTuple):
    begin: datetime
    end: datetime


def _point(key: ec.EllipticCurvePublicKey) -> bytes:
    """SEC 1, 2.3.3: uncompressed."""
    numbers = key.public_numbers()
    return b"\x04" + b"".join(n.to_bytes(COORDINATE, "big") for n in (numbers.x, numbers.y))


def _bits(data: bytes, unused: int = 0) -> bytes:
    return element(_BIT_STRING, bytes((unused,)), data)


def public_key(key: ec.EllipticCurvePublicKey) -> bytes:
    """SubjectPublicKeyInfo of a key on P-384."""
    return element(_SEQUENCE, _P384, _bits(_point(key)))


def private_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PrivateKeyInfo (RFC 5208, 5) around an ECPrivateKey (RFC 5915, 3) on P-384."""
    secret = key.private_numbers().private_value.to_bytes(COORDINATE, "big")
    public = element(0xA1, _bits(_point(key.public_key())))
    inner = element(_SEQUENCE, integer(1), element(_OCTET_STRING, secret), public)
    return element(_SEQUENCE, integer(0), _P384, element(_OCTET_STRING, inner))


def self_signed(
    key: ec.EllipticCurvePrivateKey, names: Sequence[str], serial: int, validity: Validity
) -> bytes:
    """A server's certificate for `names`, in the DNS form of the subject's alternative name."""
    spki = public_key(key.public_key())
    tbs = element(
        _SEQUENCE,
        element(0xA0, integer(2)),  # version 3
        integer(serial),
        _ECDSA_SHA384,
        _NAME,  # the issuer
        element(_SEQUENCE, time(validity.begin), time(validity.end)),
        _NAME,
        spki,
        element(0xA3, element(_SEQUENCE, *_extensions(key.public_key(), names))),
    )
    return element(_SEQUENCE, tbs, _ECDSA_SHA384, _bits(key.sign(tbs, ec.ECDSA(hashes.SHA384()))))


def _extensions(key: ec.EllipticCurvePublicKey, names: Sequence[str]) -> list[bytes]:
    """RFC 5280, 4.2.1. The key signs for TLS alone and no other certificate."""
    digital_signature, no_ca = _bits(b"\x80", unused=7), element(_SEQUENCE)
    found = [
        _extension("2.5.29.19", no_ca, critical=True),
        _extension("2.5.29.15", digital_signature, critical=True),
        _extension("2.5.29.37", element(_SEQUENCE, oid("1.3.6.1.5.5.7.3.1"))),  # serverAuth
        _extension("2.5.29.14", element(_OCTET_STRING, sha1(_point(key), usedforsecurity=False).digest())),
    ]
    if names:
        listed = [element(_DNS_NAME, name.encode("ascii")) for name in names]
        found.append(_extension("2.5.29.17", element(_SEQUENCE, *listed)))
    return found


def _extension(name: str, value: bytes, *, critical: bool = False) -> bytes:
    flag = element(_BOOLEAN, b"\xff") if critical else b""
    return element(_SEQUENCE, oid(name), flag, element(_OCTET_STRING, value))


def pem(label: str, der: bytes) -> str:
    """RFC 7468, 3."""
    text = base64.b64encode(der).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join((f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""))
