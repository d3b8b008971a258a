"""A certificate, taken apart: RFC 5280, chapter 4, version 3. Whether it may say so is for the checks.

Names and algorithms are kept as they are encoded: AMD encodes each the same way every time, so equality of
bytes is equality, and no two names are ever equal by rules of their own.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from tinboot.formats.errors import Malformed, Mismatch
from tinboot.verify.der import BOOLEAN, OCTET_STRING, OID, SEQUENCE, SET, Der, context, dotted

MAX_SIZE = 64 << 10  # AMD's have up to 1,700 bytes; a file may hold a chain of them
MAX_COUNT = 8

_COMMON_NAME = bytes.fromhex("550403")  # 2.5.4.3
_LONGEST_NAME = 64  # RFC 5280, appendix A.1, ub-common-name; messages quote it
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,64})-----[ \t]*\r?\n([^-]*)-----END \1-----")


class Extension(NamedTuple):
    """`oid` as its encoded content (`der.dotted` for people)."""

    oid: bytes
    critical: bool
    value: bytes


class Certificate(NamedTuple):
    """`signed` is what `signature` covers; `algorithm` stands inside it, `outer_algorithm` beside."""

    der: bytes
    signed: bytes
    serial: int
    algorithm: bytes
    issuer: bytes
    not_before: datetime
    not_after: datetime
    subject: bytes
    common_name: str  # of the subject
    key: bytes
    extensions: tuple[Extension, ...]
    outer_algorithm: bytes
    signature: bytes

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the DER, in hex."""
        from cryptography.hazmat.primitives import hashes  # noqa: PLC0415 - 0.7 s of an emulated boot

        digest = hashes.Hash(hashes.SHA256())  # hashlib takes longer to import than all this file
        digest.update(self.der)
        return digest.finalize().hex()


def read(data: bytes) -> tuple[Certificate, ...]:
    """One certificate in DER, or one or more in PEM, in the file's order. Raises `Malformed`."""
    return tuple(parse(der) for der in ders(data, "CERTIFICATE"))


def ders(data: bytes, label: str) -> tuple[bytes, ...]:
    """The DER of each PEM block of `data`, all of them `label`s; `data` itself where it is DER."""
    if len(data) > MAX_SIZE:
        raise Malformed(f"a file of {len(data)} bytes, expected at most {MAX_SIZE}")
    if data[:1] == bytes((SEQUENCE,)):
        return (data,)
    found = []
    for block in _PEM.finditer(data):
        if block[1] != label.encode():
            raise Malformed(f"offset {block.start():#x}: a {block[1].decode()}, expected a {label}")
        try:
            found.append(binascii.a2b_base64(block[2].translate(None, b" \t\r\n"), strict_mode=True))
        except binascii.Error as error:
            raise Malformed(f"offset {block.start():#x}: no base64: {error}") from None
    if not 0 < len(found) <= MAX_COUNT or len(found) != data.count(b"-----BEGIN "):
        raise Malformed(
            f"{data.count(b'-----BEGIN ')} PEM blocks, of which {len(found)} can be read; "
            f"expected 1 to {MAX_COUNT}, or DER"
        )
    return tuple(found)


def parse(data: bytes) -> Certificate:
    """One certificate, DER. Raises `Malformed` with the offset."""
    file = Der(data)
    outer = file.take(SEQUENCE)
    file.done()
    begin = outer.at
    body = outer.take(SEQUENCE)
    signed = data[begin : body.end]
    outer_algorithm = outer.whole(SEQUENCE)
    signature = outer.bits()
    outer.done()

    version = body.take(context(0))
    if version.integer() != 2:
        raise Malformed(f"offset {begin:#x}: a certificate that is not of version 3")
    version.done()
    serial = body.integer()
    algorithm = body.whole(SEQUENCE)
    issuer = body.whole(SEQUENCE)
    validity = body.take(SEQUENCE)
    not_before, not_after = validity.time(), validity.time()
    validity.done()
    subject = body.whole(SEQUENCE)
    key = body.whole(SEQUENCE)
    extensions = read_extensions(body.take(context(3))) if body.more else ()
    body.done()
    return Certificate(
        data,
        signed,
        serial,
        algorithm,
        issuer,
        not_before,
        not_after,
        subject,
        common_name(subject),
        key,
        extensions,
        outer_algorithm,
        signature,
    )


def require_valid(certificates: Iterable[Certificate], now: datetime) -> None:
    """Raises `Mismatch` for one that is not valid at `now`."""
    for certificate in certificates:
        if not certificate.not_before <= now <= certificate.not_after:
            raise Mismatch(
                f"{certificate.common_name!r} is valid from {certificate.not_before:%Y-%m-%d %H:%M} to "
                f"{certificate.not_after:%Y-%m-%d %H:%M}, and now is {now:%Y-%m-%d %H:%M}"
            )


def read_extensions(wrapped: Der) -> tuple[Extension, ...]:
    """The extensions within [3] of a certificate or [0] of a revocation list; no two of the same kind."""
    listed = wrapped.take(SEQUENCE)
    wrapped.done()
    found: dict[bytes, Extension] = {}
    while listed.more:
        at = listed.at
        entry = listed.take(SEQUENCE)
        oid = entry.content(OID)
        critical = entry.next_is(BOOLEAN)
        if critical and not entry.boolean():
            raise Malformed(f"offset {at:#x}: an extension that says that it is not critical, the default")
        value = entry.content(OCTET_STRING)
        entry.done()
        if oid in found:
            raise Malformed(f"offset {at:#x}: the extension {dotted(oid)} is there twice")
        found[oid] = Extension(oid, critical, value)
    return tuple(found.values())


def common_name(name: bytes) -> str:
    """The one common name in an encoded name. Raises `Malformed` where there is none, or another one."""
    parts = Der(name).take(SEQUENCE)
    found = None
    while parts.more:
        part = parts.take(SET)
        pair = part.take(SEQUENCE)
        part.done()
        is_common = pair.content(OID) == _COMMON_NAME
        text = pair.content(pair.data[pair.at] if pair.more else 0)
        pair.done()
        if is_common:
            if found is not None:
                raise Malformed("a name with two common names")
            found = text
    if found is None:
        raise Malformed("a name without a common name")
    if len(found) > _LONGEST_NAME:
        raise Malformed(f"a common name of {len(found)} bytes, expected at most {_LONGEST_NAME}")
    return found.decode("ascii", "backslashreplace")
