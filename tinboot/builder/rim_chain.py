"""From the certificate that signed a RIM to NVIDIA's root of RIMs.

    root (pinned)  signs  CA of a product  signs  L3  signs  leaf, which signs RIMs

All of P-384, each signed with ECDSA and SHA-384. Whether NVIDIA revoked one is not looked at here: there is
no answer to that offline, and what is pinned is measured and read by people.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID, SignatureAlgorithmOID

from tinboot.formats.errors import Malformed, Mismatch

#: "NVIDIA CoRIM signing Root CA", SHA-256 of its DER; nv-local-gpu-verifier 2.7.3, verifier_RIM_root.pem.
NVIDIA = "12977b5115acb0381179279fffeb5a8c4d264971ebb32298023a465fa41df5d1"

#: Certificates of a chain, leaf and root included. NVIDIA's have four.
COUNTS = range(2, 7)

_UNREADABLE = (
    UserWarning,  # of cryptography, about what it bears with for now
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
_UNDERSTOOD = frozenset({ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE})


class Signer(NamedTuple):
    """`name`: the leaf's; `root`: SHA-256 of its DER; `not_after`: when the first under the root ends."""

    certificate: x509.Certificate
    name: str
    root: str
    not_before: datetime
    not_after: datetime


class _Certificate(NamedTuple):
    """What of a certificate is looked at. `usage`, `constraints`: None where it says nothing."""

    x509: x509.Certificate
    name: str
    key: object
    usage: x509.KeyUsage | None
    constraints: x509.BasicConstraints | None
    critical: frozenset[x509.ObjectIdentifier]


def verify(ders: Sequence[bytes], at: datetime, trusted: Collection[str]) -> Signer:
    """The signer, whose chain `ders` is, leaf first. `trusted`: fingerprints of roots.

    Raises `Malformed` for what is no certificate, `Mismatch` for a chain that does not hold at `at`.
    """
    if len(ders) not in COUNTS:
        raise Malformed(f"a chain of {len(ders)} certificates, expected {COUNTS.start} to {COUNTS.stop - 1}")
    chain = [_read(number, der) for number, der in enumerate(ders, 1)]
    root = sha256(ders[-1]).hexdigest()
    if root not in trusted:
        raise Mismatch(
            f"the chain ends in {chain[-1].name!r} (SHA-256 {root}), which is not trusted",
            "NVIDIA's RIMs end in 'NVIDIA CoRIM signing Root CA'",
        )
    for position, certificate in enumerate(chain):
        _algorithms(certificate)
        _role(certificate, position)
        _dates(certificate, at)
    for certificate, issuer in zip(chain, [*chain[1:], chain[-1]], strict=True):
        _issued(certificate, issuer)
    below = [certificate.x509 for certificate in chain[:-1]]
    return Signer(
        chain[0].x509,
        chain[0].name,
        root,
        max(certificate.not_valid_before_utc for certificate in below),
        min(certificate.not_valid_after_utc for certificate in below),
    )


def fingerprint(pem: bytes) -> tuple[str, str]:
    """SHA-256 of the DER of the one certificate in `pem`, and its name, for messages."""
    try:
        found = x509.load_pem_x509_certificates(pem)
    except _UNREADABLE as error:
        raise Malformed(f"no certificate in PEM: {error}") from None
    if len(found) != 1:
        raise Malformed(f"{len(found)} certificates, expected one")
    der = found[0].public_bytes(Encoding.DER)
    return sha256(der).hexdigest(), _read(1, der).name


def _read(number: int, der: bytes) -> _Certificate:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            certificate = x509.load_der_x509_certificate(der)
            names = [str(n.value) for n in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
            extensions = {extension.oid: extension for extension in certificate.extensions}
            found = [extensions.get(oid) for oid in (ExtensionOID.KEY_USAGE, ExtensionOID.BASIC_CONSTRAINTS)]
            usage, constraints = (None if extension is None else extension.value for extension in found)
            critical = frozenset(oid for oid, extension in extensions.items() if extension.critical)
            key = certificate.public_key()
    except _UNREADABLE as error:
        raise Malformed(f"certificate {number} of the chain cannot be read: {error}") from None
    if not der.endswith(b"\0" + certificate.signature):  # the library takes a bit string of odd bits, too
        raise Malformed(f"certificate {number} of the chain has a signature that is not of whole bytes")
    if len(names) != 1:
        raise Malformed(f"certificate {number} of the chain has {len(names)} common names, expected one")
    assert usage is None or isinstance(usage, x509.KeyUsage)  # noqa: S101 - for the type checker
    assert constraints is None or isinstance(constraints, x509.BasicConstraints)  # noqa: S101
    return _Certificate(certificate, names[0], key, usage, constraints, critical)


def _algorithms(certificate: _Certificate) -> None:
    if certificate.x509.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA384:
        raise Mismatch(f"{certificate.name!r} is not signed with ECDSA and SHA-384")
    key = certificate.key
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise Mismatch(f"the key of {certificate.name!r} is not of P-384")


def _role(certificate: _Certificate, position: int) -> None:
    """The first signs data alone, the others sign certificates (RFC 5280, 4.2.1.3 and 4.2.1.9)."""
    name, usage, constraints = certificate.name, certificate.usage, certificate.constraints
    if unknown := certificate.critical - _UNDERSTOOD:
        raise Mismatch(f"{name!r} has the critical extension {min(o.dotted_string for o in unknown)}")
    if position == 0:
        if constraints is not None and constraints.ca:
            raise Mismatch(f"{name!r}, which signed the RIM, is an authority")
        if usage is None or not usage.digital_signature or usage.key_cert_sign:
            raise Mismatch(f"{name!r}, which signed the RIM, may not sign data, or may sign certificates")
        return
    if (
        constraints is None
        or not constraints.ca
        or ExtensionOID.BASIC_CONSTRAINTS not in certificate.critical
    ):
        raise Mismatch(f"{name!r} is not marked as an authority")
    if constraints.path_length is not None and constraints.path_length < position - 1:
        raise Mismatch(f"{name!r} allows {constraints.path_length} authorities below it, not {position - 1}")
    if usage is None or not usage.key_cert_sign:
        raise Mismatch(f"{name!r} may not sign certificates")


def _dates(certificate: _Certificate, at: datetime) -> None:
    begin, end = certificate.x509.not_valid_before_utc, certificate.x509.not_valid_after_utc
    if not begin <= at <= end:
        raise Mismatch(
            f"{certificate.name!r} is valid from {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}, "
            f"and it is {at:%Y-%m-%d %H:%M}",
            "fetch the RIM again: NVIDIA signs them anew; --at TIME looks at one as it was then",
        )


def _issued(certificate: _Certificate, issuer: _Certificate) -> None:
    try:
        certificate.x509.verify_directly_issued_by(issuer.x509)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        raise Mismatch(f"{certificate.name!r} was not issued by {issuer.name!r}, which follows it") from None
