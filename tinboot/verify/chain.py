"""From a chip's or a provider's certificate to AMD's root: `endorse` makes the one value that says it holds.

    ARK (pinned) signs ASK  signs VCEK   a chip at a TCB
                 signs ASVK signs VLEK   a cloud service provider at a TCB

An `Endorsement` does not depend on the time, so it may be kept and used for every report of that key; dates
and revocation are looked at for each report anew (binding.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple, final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from tinboot.formats.errors import Malformed, Mismatch
from tinboot.formats.snptcb import Line, Tcb, line_named
from tinboot.verify import roots
from tinboot.verify.certificate import Certificate
from tinboot.verify.checks import Check, Verdict, ask, require
from tinboot.verify.der import SEQUENCE
from tinboot.verify.identity import Identity, read_identity
from tinboot.verify.usage import authority, leaf

Kind = Literal["VCEK", "VLEK"]

_SHA384 = "0609608648016503040202"
_PSS, _MGF1 = "06092a864886f70d01010a", "06092a864886f70d010108"


def _algorithms() -> frozenset[bytes]:
    """RSASSA-PSS with SHA-384, MGF1 with SHA-384 and a salt of 48 bytes, RFC 4055 chapters 2.1 and 3.1.

    Encoded as AMD does, the default trailer stated or not: these bytes and no others.
    """
    sha384 = bytes.fromhex(f"300d{_SHA384}0500")
    mgf1 = bytes.fromhex(f"301a{_MGF1}") + sha384
    stated = b"\xa0\x0f" + sha384 + b"\xa1\x1c" + mgf1 + b"\xa2\x03\x02\x01\x30"
    found = []
    for trailer in (b"", b"\xa3\x03\x02\x01\x01"):
        parameters = bytes((SEQUENCE, len(stated + trailer))) + stated + trailer
        content = bytes.fromhex(_PSS) + parameters
        found.append(bytes((SEQUENCE, len(content))) + content)
    return frozenset(found)


ALGORITHMS = _algorithms()
_SCHEME = padding.PSS(padding.MGF1(hashes.SHA384()), 48)

_EXPONENT, _MODULUS = 65537, 4096


class Presented:
    """The three certificates as they were given, nothing of them believed. `pinned`: the roots to trust."""

    def __init__(
        self, vek: Certificate, intermediate: Certificate, root: Certificate, pinned: Sequence[roots.Root]
    ) -> None:
        self.vek = vek
        self.intermediate = intermediate
        self.root = root
        self.pinned = pinned

    @cached_property
    def kind(self) -> Kind:
        return "VLEK" if self.vek.common_name == "SEV-VLEK" else "VCEK"

    @cached_property
    def line(self) -> Line:
        """That of the root. Raises `Refused` where its name is not one of AMD's roots'."""
        return line_named(self.root.common_name.removeprefix("ARK-"))

    @cached_property
    def identity(self) -> Identity:
        return read_identity(self.vek, self.line)

    @cached_property
    def key(self) -> ec.EllipticCurvePublicKey:
        """Of the chip or the provider: P-384."""
        key = _load(self.vek)
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp384r1":
            raise Mismatch(f"the key of {self.vek.common_name!r} is not of P-384")
        return key


def present(
    vek: Certificate, offered: Sequence[Certificate] = (), pinned: Sequence[roots.Root] = roots.AMD
) -> Presented:
    """`vek` with its issuers: of `offered`, in any order, else AMD's. Raises `Unavailable` without them."""
    intermediate = roots.intermediate_of(vek, offered)
    return Presented(vek, intermediate, roots.root_of(intermediate, offered), pinned)


_SEAL = object()


@final
class Endorsement:
    """A key that AMD vouches for, and what it stands for. `endorse` and `examine` alone make one."""

    __slots__ = ("chain", "csp_id", "hwid", "key", "kind", "line", "root", "tcb")

    line: Line
    kind: Kind
    tcb: Tcb
    hwid: bytes | None
    csp_id: str | None
    key: ec.EllipticCurvePublicKey
    chain: tuple[Certificate, Certificate, Certificate]  # VCEK or VLEK, ASK or ASVK, ARK
    root: str  # fingerprint of the ARK

    def __init__(self, seal: object, presented: Presented) -> None:
        if seal is not _SEAL:
            raise TypeError("an endorsement is made by verifying a chain")
        identity = presented.identity
        chain = (presented.vek, presented.intermediate, presented.root)
        values = (presented.line, presented.kind, identity.tcb, identity.hwid, identity.csp_id, presented.key)
        for name, value in zip(
            ("line", "kind", "tcb", "hwid", "csp_id", "key", "chain", "root"),
            (*values, chain, presented.root.fingerprint),
            strict=True,
        ):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} of an endorsement cannot be set")

    def is_of(self, vek: Certificate, pinned: Sequence[roots.Root]) -> bool:
        """Whether this is what verifying `vek` gave, up to one of the roots that are `pinned`."""
        trusted = any(root.fingerprint == self.root and root.line is self.line for root in pinned)
        return trusted and self.chain[0].der == vek.der


class Examined(NamedTuple):
    """`endorsement` is there if and only if every check passed."""

    verdicts: tuple[Verdict, ...]
    endorsement: Endorsement | None


def examine(presented: Presented) -> Examined:
    """Runs every check of `CHECKS`."""
    verdicts = ask(CHECKS, presented)
    held = all(verdict.outcome is None for verdict in verdicts)
    return Examined(verdicts, Endorsement(_SEAL, presented) if held else None)


def endorse(presented: Presented) -> Endorsement:
    """Raises the first check's failure, its name in front."""
    require(ask(CHECKS, presented))
    return Endorsement(_SEAL, presented)


def root_pinned(presented: Presented) -> None:
    """The root is one that is trusted, and of the line that it names. Its own signature then says no more."""
    fingerprint = presented.root.fingerprint
    for root in presented.pinned:
        if root.fingerprint == fingerprint:
            if root.line is not presented.line:
                raise Mismatch(f"the root of {root.line.name} is called {presented.root.common_name!r}")
            return
    raise Mismatch(f"the root {presented.root.common_name[:60]!r} (SHA-256 {fingerprint}) is not trusted")


def signature_parameters(presented: Presented) -> None:
    """RSASSA-PSS with SHA-384 throughout, by RSA-4096 keys with exponent 65537; the last key is of P-384."""
    for certificate in (presented.vek, presented.intermediate, presented.root):
        name = certificate.common_name
        if certificate.algorithm not in ALGORITHMS:
            raise Mismatch(f"{name!r} is not signed with RSASSA-PSS, SHA-384 and a salt of 48 bytes")
        if certificate.outer_algorithm != certificate.algorithm:
            raise Mismatch(f"{name!r} states another signature algorithm beside the signature than inside")
    for certificate in (presented.intermediate, presented.root):
        issuer_key(certificate)
    presented.key  # noqa: B018 - it raises for a key of another kind


def certificate_roles(presented: Presented) -> None:
    """Each certificate has the name of its role, names the next as its issuer, and may do what it does."""
    line = presented.line.name
    names = {"VCEK": f"SEV-{line}", "VLEK": f"SEV-VLEK-{line}"}
    expected = (f"SEV-{presented.kind}", names[presented.kind], f"ARK-{line}")
    chain = (presented.vek, presented.intermediate, presented.root)
    for certificate, name, issuer in zip(chain, expected, (*chain[1:], presented.root), strict=True):
        if certificate.common_name != name:
            raise Mismatch(f"a certificate of {certificate.common_name[:60]!r}, expected {name!r}")
        if certificate.issuer != issuer.subject:
            raise Mismatch(f"{name!r} names another issuer than the certificate of {issuer.common_name!r}")
    leaf(presented.vek)
    authority(presented.intermediate, below=0)
    authority(presented.root, below=None)


def certificate_signatures(presented: Presented) -> None:
    """The root signed the intermediate, which signed the certificate of the report's key."""
    verify_signature(presented.intermediate, presented.root)
    verify_signature(presented.vek, presented.intermediate)


def amd_extensions(presented: Presented) -> None:
    """AMD's extensions are there, each once, in their one encoding, and nothing beside them."""
    product = presented.identity.product
    if product != presented.line.name:
        raise Mismatch(f"the certificate is of the product {product}, its root of {presented.line.name}")


def vlek_identity(presented: Presented) -> None:
    """A VCEK names a chip and no provider; a VLEK names a provider and no chip."""
    identity = presented.identity
    has = {"VCEK": identity.hwid is not None, "VLEK": identity.csp_id is not None}
    other: Kind = "VLEK" if presented.kind == "VCEK" else "VCEK"
    if not has[presented.kind] or has[other]:
        what = [text for kind, text in (("VCEK", "a chip"), ("VLEK", "a provider")) if has[kind]]
        raise Mismatch(f"a {presented.kind} that names {' and '.join(what) or 'neither chip nor provider'}")


CHECKS: tuple[Check[Presented], ...] = (
    Check("root-pinned", 5, "the root is one that is trusted, by its digest", root_pinned),
    Check("signature-parameters", 6, "certificates are signed as AMD signs", signature_parameters),
    Check("certificate-roles", 9, "names, issuers and permitted uses are their roles'", certificate_roles),
    Check("certificate-signatures", None, "each certificate is signed by the next", certificate_signatures),
    Check("amd-extensions", 10, "the key's certificate says what AMD's say, strictly", amd_extensions),
    Check("vlek-identity", 13, "a VCEK names a chip, a VLEK a provider", vlek_identity),
)


def issuer_key(certificate: Certificate) -> rsa.RSAPublicKey:
    """Raises `Mismatch` unless it is of RSA-4096 with exponent 65537."""
    key = _rsa(certificate)
    if (key.key_size, key.public_numbers().e) != (_MODULUS, _EXPONENT):
        raise Mismatch(f"the key of {certificate.common_name!r} is not of RSA-4096 with exponent 65537")
    return key


def verify_bytes(signature: bytes, signed: bytes, key: rsa.RSAPublicKey, what: str) -> None:
    """Raises `Mismatch` unless `signature` is `key`'s of `signed`, with the parameters of `ALGORITHMS`."""
    try:
        key.verify(signature, signed, _SCHEME, hashes.SHA384())
    except InvalidSignature:
        raise Mismatch(f"the signature of {what} does not hold") from None


def verify_signature(certificate: Certificate, issuer: Certificate) -> None:
    what = f"{certificate.common_name!r} by {issuer.common_name!r}"
    verify_bytes(certificate.signature, certificate.signed, _rsa(issuer), what)


def _rsa(certificate: Certificate) -> rsa.RSAPublicKey:
    key = _load(certificate)
    if not isinstance(key, rsa.RSAPublicKey):
        raise Mismatch(f"the key of {certificate.common_name!r} is not of RSA")
    return key


def _load(certificate: Certificate) -> object:
    try:
        return _public_key(certificate.key)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Malformed(f"the key of {certificate.common_name!r} cannot be read: {error}") from None


@lru_cache(maxsize=16)
def _public_key(key: bytes) -> object:
    """What a library prepares for an RSA key takes as long as half a verification, and issuers are few."""
    return load_der_public_key(key)
