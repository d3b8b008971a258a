"""The fake NVIDIA's OCSP answers, read by a second opinion; each fault is what its name says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import new
from typing import Literal

import pytest
import stub_nvidia
import stub_ocsp
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from gpu_faults import good
from ocsp_faults import OCSP_FAULTS, responses

NOW = datetime(2026, 6, 1, tzinfo=UTC)
CHAIN = stub_nvidia.chain("HOPPER")


def load(data: bytes) -> ocsp.OCSPResponse:
    return ocsp.load_der_ocsp_response(data)


def signed(response: ocsp.OCSPResponse) -> bool:
    key = response.certificates[0].public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    try:
        key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return False
    return True


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha384"])
def test_a_good_answer(algorithm: Literal["sha1", "sha256", "sha384"]) -> None:
    certificates = [x509.load_der_x509_certificate(der) for der in CHAIN.der()]
    answers = stub_ocsp.answers(CHAIN, NOW)
    assert len(answers) == 4
    for answer, subject, issuer in zip(answers, certificates, certificates[1:], strict=False):
        response = load(answer._replace(hash=algorithm, nonce=b"n" * 32).pack())
        assert response.certificate_status is ocsp.OCSPCertStatus.GOOD
        assert response.serial_number == subject.serial_number
        assert response.issuer_name_hash == new(algorithm, issuer.subject.public_bytes()).digest()
        assert (
            response.issuer_key_hash
            == new(algorithm, CHAIN.forms[certificates.index(issuer)].key[-97:]).digest()
        )
        assert response.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == b"n" * 32
        assert signed(response)
        (responder,) = response.certificates
        responder.verify_directly_issued_by(issuer)
        usage = responder.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usage) == [x509.oid.ExtendedKeyUsageOID.OCSP_SIGNING]


def test_a_responder_that_does_not_answer() -> None:
    answer = stub_ocsp.answers(CHAIN, NOW)[0]._replace(failure=3)
    assert load(answer.pack()).response_status is ocsp.OCSPResponseStatus.TRY_LATER


def test_answers_about_two_gpus() -> None:
    """Of each its own two certificates, and the two that they share."""
    found = [load(data).serial_number for data in responses(good(), NOW)]
    assert len(found) == len(set(found)) == 6


def changed(name: str) -> ocsp.OCSPResponse:
    """The one answer that differs from a good one."""
    before, after = responses(good(), NOW), responses(good(), NOW, OCSP_FAULTS[name])
    (data,) = set(after) - set(before)
    return load(data)


SUBJECT = stub_nvidia.chain("HOPPER", 1).forms[1]


def test_one_is_absent() -> None:
    before, after = responses(good(), NOW), responses(good(), NOW, OCSP_FAULTS["absent"])
    (gone,) = set(before) - set(after)
    assert load(gone).serial_number == SUBJECT.serial
    assert len(after) == 5


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("revoked", ocsp.OCSPCertStatus.REVOKED, x509.ReasonFlags.key_compromise),
        ("held", ocsp.OCSPCertStatus.REVOKED, x509.ReasonFlags.certificate_hold),
        ("unknown", ocsp.OCSPCertStatus.UNKNOWN, None),
    ],
)
def test_another_status(name: str, status: ocsp.OCSPCertStatus, reason: x509.ReasonFlags | None) -> None:
    response = changed(name)
    assert (response.certificate_status, response.revocation_reason) == (status, reason)
    assert response.serial_number == SUBJECT.serial
    assert signed(response)


def test_another_time() -> None:
    stale, early, old, endless = map(changed, ("stale", "early", "old", "endless"))
    assert stale.next_update_utc is not None
    assert stale.next_update_utc < NOW
    assert early.this_update_utc > NOW
    assert old.next_update_utc is not None
    assert old.this_update_utc < NOW - timedelta(days=100) < NOW < old.next_update_utc
    assert endless.next_update_utc is None
    assert all(map(signed, (stale, early, old, endless)))


def test_another_certificate() -> None:
    assert changed("of-another-certificate").serial_number == SUBJECT.serial + 1


def test_another_responder() -> None:
    issuer = x509.load_der_x509_certificate(stub_nvidia.chain("HOPPER", 1).der()[2])
    assert not signed(changed("forged"))
    for name in ("responder-without-purpose", "responder-of-another-authority"):
        assert signed(changed(name))
    (plain,) = changed("responder-without-purpose").certificates
    assert not [e for e in plain.extensions if isinstance(e.value, x509.ExtendedKeyUsage)]
    plain.verify_directly_issued_by(issuer)
    (stranger,) = changed("responder-of-another-authority").certificates
    with pytest.raises(InvalidSignature):
        stranger.verify_directly_issued_by(issuer)


def test_every_fault_is_tested() -> None:
    tested = {"absent", "revoked", "held", "unknown", "stale", "early", "old", "endless"}
    tested |= {
        "of-another-certificate",
        "forged",
        "responder-without-purpose",
        "responder-of-another-authority",
    }
    assert set(OCSP_FAULTS) == tested
