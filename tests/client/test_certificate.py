"""What a TLS certificate says beside its key: dates, the published one, names; and anything that is none."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
import served_guest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from fake_amd import NOW
from hypothesis import given
from hypothesis import strategies as st
from served_guest import spki_sha256, tls_key

from tinboot.client import certificate
from tinboot.client.certificate import Subject
from tinboot.formats import dcode
from tinboot.formats.errors import Malformed, Mismatch, TinbootError
from tinboot.verify import checks
from tinboot.verify.checks import Unchecked

KEY = bytes(range(32))
DAY = timedelta(days=1)


def made(
    names: Sequence[str] = (), *, first: datetime = NOW - DAY, last: datetime = NOW + DAY, key: int = 0
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "guest.example")])
    builder = x509.CertificateBuilder(name, name, tls_key(key).public_key(), 7, first, last)
    if names:
        san = x509.SubjectAlternativeName([x509.DNSName(one) for one in names])
        builder = builder.add_extension(san, critical=False)
    return builder.sign(tls_key(key), hashes.SHA384())


def subject(found: x509.Certificate | None = None, **changed: Any) -> Subject:
    found = found or made()
    pem = found.public_bytes(Encoding.PEM).decode()
    return Subject(spki_sha256(tls_key()), found.public_bytes(Encoding.DER), pem, KEY, NOW)._replace(
        **changed
    )


def outcomes(found: Subject) -> dict[str, TinbootError | Unchecked | None]:
    return {verdict.id: verdict.outcome for verdict in checks.ask(certificate.CHECKS, found)}


NAMES = dcode.encode(KEY, dcode.HPKE_DOMAIN)


def test_a_good_one() -> None:
    assert set(outcomes(subject(made(["guest.example", *NAMES]))).values()) == {None}


@pytest.mark.parametrize(
    ("first", "last"),
    [(NOW - 2 * DAY, NOW - DAY), (NOW + DAY, NOW + 2 * DAY), (NOW + timedelta(minutes=6), NOW + DAY)],
)
def test_dates(first: datetime, last: datetime) -> None:
    found = outcomes(subject(made(first=first, last=last)))["certificate-dates"]
    assert isinstance(found, Mismatch)
    assert "is valid from" in found.message


def test_a_guest_whose_clock_is_a_little_ahead() -> None:
    assert outcomes(subject(made(first=NOW + timedelta(minutes=4))))["certificate-dates"] is None


def test_another_one_is_published() -> None:
    other = made(key=1).public_bytes(Encoding.PEM).decode()
    assert isinstance(outcomes(subject(published=other))["certificate-published"], Mismatch)


def test_one_of_an_authority_is_published_with_its_issuers() -> None:
    """For the same key: it may be another certificate, and more may stand behind it."""
    pem = made(["other.example"]).public_bytes(Encoding.PEM) + made(key=1).public_bytes(Encoding.PEM)
    assert outcomes(subject(published=pem.decode()))["certificate-published"] is None


@pytest.mark.parametrize(
    "published", ["", "no PEM", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----"]
)
def test_nothing_is_published(published: str) -> None:
    assert isinstance(outcomes(subject(published=published))["certificate-published"], Malformed)


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ((), Unchecked),
        (("guest.example",), Unchecked),
        (dcode.encode(bytes(32), dcode.HPKE_DOMAIN), Mismatch),
        ((f"00{'a' * 10}.{dcode.HPKE_DOMAIN}",), Malformed | Mismatch),
        ((f"01aa.{dcode.HPKE_DOMAIN}",), Malformed),
        ((*NAMES, f"01aa.{dcode.HPKE_DOMAIN}"), Malformed | Mismatch),
    ],
)
def test_names(names: tuple[str, ...], kind: Any) -> None:
    assert isinstance(outcomes(subject(made(names)))["certificate-names"], kind)


def test_names_of_a_document_that_cannot_be_read() -> None:
    assert isinstance(outcomes(subject(made(NAMES), hpke=None))["certificate-names"], Unchecked)


GOOD = made([*NAMES]).public_bytes(Encoding.DER)


@given(at=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255), cut=st.integers(0, 20))
def test_any_bytes_end_in_verdicts(at: int, value: int, cut: int) -> None:
    changed = bytearray(GOOD)
    changed[at] = value
    found = outcomes(subject(certificate=bytes(changed[: len(changed) - cut])))
    assert set(found) == {check.id for check in certificate.CHECKS}


@given(data=st.binary(max_size=300), text=st.text(max_size=300))
def test_anything_ends_in_verdicts(data: bytes, text: str) -> None:
    found = outcomes(subject(certificate=data, published=text))
    assert isinstance(found["certificate-dates"], Malformed)
    assert isinstance(found["certificate-published"], Malformed)


def test_the_made_up_guest_passes() -> None:
    pem = served_guest.Guest().certificate()
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    found = outcomes(subject(certificate=der, published=pem.decode()))
    assert not [one for one in found.values() if isinstance(one, TinbootError)]
