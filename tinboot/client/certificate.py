"""What the TLS certificate of a verified host says beside its key. The key is what counts; the rest must fit.

A relay that ends TLS with a certificate of its own is found by `tls-key` (verify/document.py). These checks
find what no honest guest does, and what would mislead other clients, who look at names.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from tinboot.client.connection import spki
from tinboot.formats import dcode
from tinboot.formats.errors import Malformed, Mismatch
from tinboot.verify import certificate as strict
from tinboot.verify.checks import Check, Unchecked

#: How far a guest's clock, which its host sets, may be ahead of ours.
_SKEW = timedelta(minutes=5)


#: What cryptography.x509 raises for what is no certificate, or has in it what it does not know.
_UNREADABLE = (
    *(ValueError, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType),
    *(UnsupportedAlgorithm, x509.AttributeNotFound),
)


class Subject(NamedTuple):
    """As in evidence.py. `hpke`: the key that the document endorses, None where it could not be read."""

    tls: bytes
    certificate: bytes
    published: str
    hpke: bytes | None
    now: datetime


def certificate_dates(subject: Subject) -> None:
    """The certificate is valid now."""
    found = _read(subject.certificate)
    first, last = found.not_valid_before_utc, found.not_valid_after_utc
    if not first - _SKEW <= subject.now <= last:
        raise Mismatch(
            f"the TLS certificate is valid from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}, and now is "
            f"{subject.now:%Y-%m-%d %H:%M}",
            "is a clock wrong, here or on the host?",
        )


def certificate_published(subject: Subject) -> None:
    """The certificate that the host gives out is of the connection's key."""
    own = _key(subject.published)
    if own != subject.tls:
        raise Mismatch(
            f"the host gives out a certificate of the key {own.hex()}, and has {subject.tls.hex()} itself",
            "something between here and the guest ends TLS, or answers in its place",
        )


def certificate_names(subject: Subject) -> Unchecked | None:
    """Names that state an HPKE key state the guest's."""
    try:
        found = _read(subject.certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return Unchecked("the TLS certificate has no names")
    except _UNREADABLE as error:
        raise Malformed(f"the TLS certificate's extensions cannot be read: {error}") from error
    names = found.value.get_values_for_type(x509.DNSName)
    if not any(name.endswith(f".{dcode.HPKE_DOMAIN}") for name in names):
        return Unchecked("no name of the TLS certificate states an HPKE key")
    stated = dcode.decode(names, dcode.HPKE_DOMAIN)
    if subject.hpke is None:
        return Unchecked("the guest's HPKE key cannot be read")
    if stated != subject.hpke:
        raise Mismatch(
            f"the TLS certificate states the HPKE key {stated.hex()}, the guest's is {subject.hpke.hex()}"
        )
    return None


@lru_cache(maxsize=64)
def _read(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except _UNREADABLE as error:
        raise Malformed(f"the TLS certificate cannot be read: {error}") from error


@lru_cache(maxsize=64)
def _key(pem: str) -> bytes:
    """SHA-256 of the first one's SubjectPublicKeyInfo."""
    return sha256(spki(strict.ders(pem.encode(), "CERTIFICATE")[0])).digest()


CHECKS: tuple[Check[Subject], ...] = (
    Check("certificate-dates", None, "the TLS certificate is valid at the time", certificate_dates),
    Check("certificate-published", None, "the published certificate is of that key", certificate_published),
    Check("certificate-names", None, "names that state an HPKE key state the guest's", certificate_names),
)
