"""The guest's keys and certificate: what the names say, what the files hold and who may read them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tinboot.formats import dcode
from tinboot.guest import identity
from tinboot.guest.identity import Identity

NOW = datetime(2026, 11, 25, 14, 30, 15, 999, UTC)
HASH = hashlib.sha256(b"a document").hexdigest()


@pytest.fixture(scope="module")
def born() -> Identity:
    return identity.born()


def certificate(born: Identity, now: datetime = NOW) -> x509.Certificate:
    return x509.load_pem_x509_certificate(identity.certificate(born, HASH, now).encode())


def test_each_guest_has_its_own(born: Identity) -> None:
    other = identity.born()
    assert other.spki_sha256 != born.spki_sha256
    assert other.hpke_public != born.hpke_public


def test_the_fingerprint_is_of_the_public_key(born: Identity) -> None:
    assert isinstance(born.tls.curve, ec.SECP384R1)
    spki = (
        certificate(born)
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    assert born.spki_sha256 == hashlib.sha256(spki).digest()


def test_names_say_the_hpke_key_and_the_documents_hash(born: Identity) -> None:
    found = certificate(born).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    names = found.get_values_for_type(x509.DNSName)
    assert dcode.decode(names, dcode.HPKE_DOMAIN) == born.hpke_public
    assert dcode.decode(names, dcode.HASH_DOMAIN) == HASH.encode()
    assert len(names) == len(dcode.encode(born.hpke_public, dcode.HPKE_DOMAIN)) + len(
        dcode.encode(HASH.encode(), dcode.HASH_DOMAIN)
    )


def test_valid_from_a_little_before(born: Identity) -> None:
    found = certificate(born)
    whole = NOW.replace(microsecond=0)
    assert found.not_valid_before_utc == whole - timedelta(minutes=5)
    assert found.not_valid_after_utc == whole + timedelta(days=397)


def test_a_clock_at_its_beginning(born: Identity) -> None:
    found = certificate(born, datetime(1970, 1, 1, tzinfo=UTC))
    assert found.not_valid_before_utc == datetime(1969, 12, 31, 23, 55, tzinfo=UTC)


def test_no_serial_number_twice(born: Identity) -> None:
    serials = {certificate(born).serial_number for _ in range(20)}
    assert len(serials) == 20
    assert all(0 < serial < 1 << 159 for serial in serials)


def test_files(born: Identity, tmp_path: Path) -> None:
    chain = identity.certificate(born, HASH, NOW)
    identity.install(born, chain, tmp_path)
    identity.install_hpke(born, tmp_path)
    tls, hpke = tmp_path / "tls.pem", tmp_path / "hpke.key"
    assert sorted(tmp_path.iterdir()) == [hpke, tls]
    assert {path.stat().st_mode & 0o777 for path in (tls, hpke)} == {0o400}
    assert tls.read_text().startswith(chain)
    key = serialization.load_pem_private_key(tls.read_bytes().removeprefix(chain.encode()), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.private_numbers() == born.tls.private_numbers()
    secret = X25519PrivateKey.from_private_bytes(hpke.read_bytes())
    assert secret.public_key().public_bytes_raw() == born.hpke_public


def test_another_certificate_takes_its_place(born: Identity, tmp_path: Path) -> None:
    identity.install(born, identity.certificate(born, HASH, NOW), tmp_path)
    identity.install(born, "-----BEGIN CERTIFICATE-----\n", tmp_path)
    assert (
        (tmp_path / "tls.pem").read_text().startswith("-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY")
    )
