"""Chains of the signers of RIMs: each certificate, each link, each date."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256

import fake_nvidia
import pytest
import stub_der as der
import stub_nvidia
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fake_nvidia import NOW
from hypothesis import given, settings
from hypothesis import strategies as st
from stub_chain import CONSTRAINTS, KEY_USAGE, spki
from stub_nvidia import CERTS, DAY, SIGN, Chain, Form

from tinboot.builder import rim_chain
from tinboot.formats.errors import Malformed, Mismatch, TinbootError

GOOD = fake_nvidia.rim_chain()
DERS = GOOD.der()
ROOT = sha256(DERS[-1]).hexdigest()
SECOND = timedelta(seconds=1)

Change = Callable[[Form], Form]


def test_a_chain() -> None:
    found = rim_chain.verify(DERS, NOW, [rim_chain.NVIDIA, ROOT])
    assert (found.name, found.root) == ("HCC RIM L4 Signer", ROOT)
    assert (found.not_before, found.not_after) == (GOOD.forms[0].not_before, GOOD.forms[0].not_after)


def test_the_first_under_the_root_to_end_counts() -> None:
    chain = GOOD.replace(2, not_after=NOW + DAY).replace(3, not_after=NOW + SECOND)
    found = rim_chain.verify(chain.der(), NOW, [sha256(chain.der()[-1]).hexdigest()])
    assert found.not_after == NOW + DAY


def changed(at: int, change: Change) -> Chain:
    return GOOD.put(at, change(GOOD.forms[at]))


def other_key(form: Form) -> Form:
    return form._replace(signer=stub_nvidia.key("nobody"))


def small_key(form: Form) -> Form:
    return form._replace(key=spki(ec.derive_private_key(7, ec.SECP256R1()).public_key()))


def sha256_signed(form: Form) -> Form:
    ecdsa_sha256 = der.sequence(der.oid("1.2.840.10045.4.3.2"))
    return form._replace(algorithm=ecdsa_sha256, hash=hashes.SHA256())


def with_usage(usage: bytes) -> Change:
    return lambda form: form.with_extension(KEY_USAGE, usage, critical=True)


def with_constraints(*content: bytes, critical: bool = True) -> Change:
    return lambda form: form.with_extension(CONSTRAINTS, der.sequence(*content), critical=critical)


def without(oid: str) -> Change:
    return lambda form: form.without_extension(oid)


@pytest.mark.parametrize(
    ("at", "change", "message"),
    [
        (0, other_key, "'HCC RIM L4 Signer' was not issued by 'NVIDIA Reference Value L3 GH100 002'"),
        (1, other_key, "'NVIDIA Reference Value L3 GH100 002' was not issued by"),
        (2, other_key, "'NVIDIA Reference Value GH100 CA' was not issued by 'NVIDIA CoRIM signing Root CA'"),
        (3, other_key, "'NVIDIA CoRIM signing Root CA' was not issued by 'NVIDIA CoRIM signing Root CA'"),
        (
            0,
            lambda form: form._replace(issuer=GOOD.forms[2].subject),
            "'HCC RIM L4 Signer' was not issued by",
        ),
        (0, sha256_signed, "'HCC RIM L4 Signer' is not signed with ECDSA and SHA-384"),
        (1, sha256_signed, "'NVIDIA Reference Value L3 GH100 002' is not signed with ECDSA and SHA-384"),
        (3, sha256_signed, "'NVIDIA CoRIM signing Root CA' is not signed with ECDSA and SHA-384"),
        (0, small_key, "the key of 'HCC RIM L4 Signer' is not of P-384"),
        (2, small_key, "the key of 'NVIDIA Reference Value GH100 CA' is not of P-384"),
        (0, with_constraints(der.true()), "'HCC RIM L4 Signer', which signed the RIM, is an authority"),
        (0, without(KEY_USAGE), "which signed the RIM, may not sign data"),
        (0, with_usage(b"\x03\x02\x03\x08"), "which signed the RIM, may not sign data"),
        (0, with_usage(CERTS), "which signed the RIM, may not sign data"),
        (0, with_usage(b"\x03\x02\x02\x84"), "which signed the RIM, may not sign data, or may sign certif"),
        (1, with_constraints(), "'NVIDIA Reference Value L3 GH100 002' is not marked as an authority"),
        (1, with_constraints(der.true(), critical=False), "GH100 002' is not marked as an authority"),
        (1, without(CONSTRAINTS), "'NVIDIA Reference Value L3 GH100 002' is not marked as an authority"),
        (2, without(CONSTRAINTS), "'NVIDIA Reference Value GH100 CA' is not marked as an authority"),
        (3, without(CONSTRAINTS), "'NVIDIA CoRIM signing Root CA' is not marked as an authority"),
        (1, with_usage(SIGN), "'NVIDIA Reference Value L3 GH100 002' may not sign certificates"),
        (2, without(KEY_USAGE), "'NVIDIA Reference Value GH100 CA' may not sign certificates"),
        (2, with_constraints(der.true(), der.integer(0)), "GH100 CA' allows 0 authorities below it, not 1"),
        (3, with_constraints(der.true(), der.integer(1)), "Root CA' allows 1 authorities below it, not 2"),
        (
            0,
            lambda form: form.with_extension("1.2.3.4", b"\x05\x00", critical=True),
            "'HCC RIM L4 Signer' has the critical extension 1.2.3.4",
        ),
        (0, lambda form: form._replace(not_after=NOW - SECOND), "'HCC RIM L4 Signer' is valid from "),
        (1, lambda form: form._replace(not_after=NOW - SECOND), "L3 GH100 002' is valid from "),
        (2, lambda form: form._replace(not_before=NOW + SECOND), "GH100 CA' is valid from "),
        (3, lambda form: form._replace(not_after=NOW - SECOND), "Root CA' is valid from "),
    ],
)
def test_one_certificate_is_wrong(at: int, change: Change, message: str) -> None:
    ders = changed(at, change).der()
    with pytest.raises(Mismatch, match=message):
        rim_chain.verify(ders, NOW, [sha256(ders[-1]).hexdigest()])


def test_dates_are_inclusive() -> None:
    chain = GOOD.replace(0, not_before=NOW, not_after=NOW)
    assert rim_chain.verify(chain.der(), NOW, [ROOT]).not_after == NOW


def test_not_the_pinned_root() -> None:
    with pytest.raises(Mismatch, match=f"Root CA' .SHA-256 {ROOT}., which is not trusted"):
        rim_chain.verify(DERS, NOW, [rim_chain.NVIDIA])
    with pytest.raises(Mismatch, match="which is not trusted"):
        rim_chain.verify(DERS[:-1], NOW, [ROOT])
    with pytest.raises(Mismatch, match="which is not trusted"):
        rim_chain.verify(DERS[::-1], NOW, [ROOT])


@pytest.mark.parametrize("order", [(0, 2, 1, 3), (0, 2, 3), (1, 2, 3), (0, 0, 1, 2, 3), (0, 1, 1, 2, 3)])
def test_links_that_are_not_there(order: tuple[int, ...]) -> None:
    with pytest.raises(Mismatch, match=r"was not issued by|an authority|authorities below it, not"):
        rim_chain.verify([DERS[i] for i in order], NOW, [ROOT])


@pytest.mark.parametrize("count", [0, 1, 7])
def test_counts(count: int) -> None:
    with pytest.raises(Malformed, match=f"a chain of {count} certificates, expected 2 to 6"):
        rim_chain.verify((DERS * 2)[:count], NOW, [ROOT])


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("data", [b"", b"\x30\x00", DERS[0] + b"\0", DERS[0][:-1]])
def test_what_is_no_certificate(at: int, data: bytes) -> None:
    ders = [*DERS[:at], data, *DERS[at + 1 :]]
    with pytest.raises(Malformed, match=f"certificate {at + 1} of the chain cannot be read"):
        rim_chain.verify(ders, NOW, [ROOT])


def test_serial_numbers_that_are_not_positive() -> None:
    """RFC 5280 4.1.2.2; the library warns of them, for now."""
    with pytest.raises(Malformed, match=r"certificate 1 of the chain cannot be read: .*serial number"):
        rim_chain.verify(GOOD.replace(0, serial=0).der(), NOW, [ROOT])


def test_names() -> None:
    for subject in ((), (("O", "x"),), (("CN", "a"), ("CN", "b"))):
        ders = GOOD.replace(0, subject=subject).der()
        with pytest.raises(
            Malformed, match=r"certificate 1 of the chain has [02] common names, expected one"
        ):
            rim_chain.verify(ders, NOW, [ROOT])


@pytest.mark.parametrize("at", range(4))
def test_a_signature_of_odd_bits(at: int) -> None:
    """No signature covers that byte, and where it ends in zero bits the library takes them for unused."""
    der, signature = DERS[at], x509.load_der_x509_certificate(DERS[at]).signature
    before = len(der) - len(signature) - 1
    assert der[before] == 0
    altered = der[:before] + b"\1" + der[before + 1 :]
    with pytest.raises(TinbootError):
        rim_chain.verify([*DERS[:at], altered, *DERS[at + 1 :]], NOW, [ROOT])


@settings(max_examples=300)
@given(st.integers(0, 3), st.data())
def test_altered_bytes(at: int, data: st.DataObject) -> None:
    """Of the four the signatures cover all; the root is the pinned one or none."""
    altered = bytearray(DERS[at])
    altered[data.draw(st.integers(0, len(altered) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(TinbootError):
        rim_chain.verify([*DERS[:at], bytes(altered), *DERS[at + 1 :]], NOW, [ROOT])


def test_a_root_in_pem() -> None:
    assert rim_chain.fingerprint(stub_nvidia.pem(DERS[-1:])) == (ROOT, "NVIDIA CoRIM signing Root CA")
    with pytest.raises(Malformed, match="4 certificates, expected one"):
        rim_chain.fingerprint(stub_nvidia.pem(DERS))
    for data in (b"", b"x", DERS[-1], b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"):
        with pytest.raises(Malformed, match="no certificate in PEM"):
            rim_chain.fingerprint(data)
