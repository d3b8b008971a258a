"""What a certificate may be used for: RFC 5280, basic constraints (4.2.1.9) and key usage (4.2.1.3)."""

from __future__ import annotations

from tinboot.formats.errors import Malformed, Mismatch
from tinboot.verify.certificate import Certificate
from tinboot.verify.der import SEQUENCE, Der

BASIC_CONSTRAINTS, KEY_USAGE = bytes.fromhex("551d13"), bytes.fromhex("551d0f")

#: Bits of the first byte of a key usage: digitalSignature, keyCertSign.
_SIGNS_DATA, _SIGNS_CERTIFICATES = 0x80, 0x04


def leaf(certificate: Certificate) -> None:
    """Raises `Mismatch` if it may sign certificates. AMD's VCEKs and VLEKs say nothing of all this."""
    authority, _ = constraints(certificate)
    usage = key_usage(certificate)
    if authority or (usage is not None and usage != _SIGNS_DATA):
        raise Mismatch(f"{certificate.common_name!r} may sign certificates, or cannot sign data")


def authority(certificate: Certificate, below: int | None) -> None:
    """Raises `Mismatch` unless it may sign certificates, `below` authorities under it (None: any number)."""
    name = certificate.common_name
    found, length = constraints(certificate)
    if not found or not any(e.critical for e in certificate.extensions if e.oid == BASIC_CONSTRAINTS):
        raise Mismatch(f"{name!r} is not marked as an authority")
    if length != below:
        raise Mismatch(f"{name!r} allows another number of authorities below it than AMD's does")
    if not (key_usage(certificate) or 0) & _SIGNS_CERTIFICATES:
        raise Mismatch(f"{name!r} may not sign certificates")


def constraints(certificate: Certificate) -> tuple[bool, int | None]:
    """Whether it is an authority, and how many may stand below it."""
    value = extension_of(certificate, BASIC_CONSTRAINTS)
    if value is None:
        return False, None
    reader = Der(value)
    content = reader.take(SEQUENCE)
    reader.done()
    found = content.boolean() if content.more else False
    length = content.integer() if content.more else None
    content.done()
    return found, length


def key_usage(certificate: Certificate) -> int | None:
    """The first byte of the bits. A second one, for decipherOnly, is none of AMD's."""
    value = extension_of(certificate, KEY_USAGE)
    if value is None:
        return None
    if len(value) != 4 or value[:2] != b"\x03\x02" or value[2] > 7:
        raise Malformed(f"{certificate.common_name!r} has a key usage of {value[:16].hex()}")
    return value[3]


def extension_of(certificate: Certificate, oid: bytes) -> bytes | None:
    return next((extension.value for extension in certificate.extensions if extension.oid == oid), None)
