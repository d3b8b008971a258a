"""The guest's certificate and key, read by the library and by OpenSSL's own program."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from tinboot.guest import certificate_der
from tinboot.guest.certificate_der import Validity

KEY = ec.generate_private_key(ec.SECP384R1())
BEGIN = datetime(2026, 11, 25, 12, 0, 1, tzinfo=UTC)
VALIDITY = Validity(BEGIN, BEGIN + timedelta(days=90))
NAMES = ["00abc.hpke.tinfoil.sh", "01def.hatt.tinfoil.sh"]

times = st.datetimes(datetime(1950, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))
names = st.lists(st.from_regex(r"[a-z0-9]{1,63}(\.[a-z0-9]{1,63}){0,2}", fullmatch=True), max_size=100)


def made(names: list[str] | None = None, serial: int = 7, validity: Validity = VALIDITY) -> bytes:
    return certificate_der.self_signed(KEY, NAMES if names is None else names, serial, validity)


def test_the_whole_of_it() -> None:
    found = x509.load_der_x509_certificate(made())
    assert found.version is x509.Version.v3
    assert isinstance(found.signature_hash_algorithm, hashes.SHA384)
    found.verify_directly_issued_by(found)
    assert found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "tinboot guest"
    extensions = {e.oid: e for e in found.extensions}
    assert len(extensions) == 5
    basic = found.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, False, None)
    usage = found.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert not usage.value.content_commitment
    purposes = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.SERVER_AUTH]
    key_id = found.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert key_id == x509.SubjectKeyIdentifier.from_public_key(KEY.public_key())


@settings(max_examples=60, deadline=None)
@given(names, st.integers(1, (1 << 159) - 1), times, times)
def test_any_fields(listed: list[str], serial: int, begin: datetime, end: datetime) -> None:
    begin, end = sorted((begin.replace(microsecond=0), end.replace(microsecond=0)))
    found = x509.load_der_x509_certificate(made(listed, serial, Validity(begin, end)))
    assert found.serial_number == serial
    assert (found.not_valid_before_utc, found.not_valid_after_utc) == (begin, end)
    if listed:
        shown = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert shown.get_values_for_type(x509.DNSName) == listed
    else:
        with pytest.raises(x509.ExtensionNotFound):
            found.extensions.get_extension_for_class(x509.SubjectAlternativeName)


def test_keys_as_the_library_writes_them() -> None:
    assert certificate_der.public_key(KEY.public_key()) == KEY.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert certificate_der.private_key(KEY) == KEY.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    text = certificate_der.pem("PRIVATE KEY", certificate_der.private_key(KEY)).encode()
    assert text == KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def test_a_short_coordinate_keeps_its_zeros() -> None:
    """One key in 256 has one; this one is made to."""
    key = ec.derive_private_key(1, ec.SECP384R1())
    assert certificate_der.private_key(key) == key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize("value", [0, 127, 128, 255, 256, 1 << 158])
def test_integers(value: int) -> None:
    assert int.from_bytes(certificate_der.integer(value)[2:], "big", signed=True) == value


def test_openssl_takes_it_as_a_servers(tmp_path: Path) -> None:
    """Strict, as Python's default context asks for from 3.13 on; trusted as the client who pins it does."""
    now = datetime.now(UTC).replace(microsecond=0)
    validity = Validity(now - timedelta(minutes=5), now + timedelta(days=1))
    path = tmp_path / "own.pem"
    path.write_text(certificate_der.pem("CERTIFICATE", made(validity=validity)))
    words = [
        "-x509_strict",
        "-purpose",
        "sslserver",
        "-verify_hostname",
        NAMES[0],
        "-CAfile",
        str(path),
        str(path),
    ]
    told = subprocess.run(["openssl", "verify", *words], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
