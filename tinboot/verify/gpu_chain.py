"""From a GPU's attestation key to NVIDIA's root: `endorse` makes the one value that says it holds.

    NVIDIA Device Identity CA (pinned)       [4]
      signs NVIDIA GH100 Identity            [3]   one of each chip
        signs NVIDIA GH100 Provisioner ICA 1 [2]
          signs GH100 A01 GSP BROM           [1]   one of each GPU: its boot ROM
            signs GH100 A01 GSP FMC LF       [0]   the attestation key, of the firmware that it hashed

The GPU returns all five, leaf first. An `Endorsement` does not depend on the time, so it may be kept and used
for every report of that key; dates and revocation are looked at for each report anew (gpu_binding.py).
RFC 5280, chapter 6, without policies and name constraints, which no certificate of NVIDIA's has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple, final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from tinboot.formats.errors import Malformed, Mismatch
from tinboot.verify import gpu_fwid, gpu_roots, p384
from tinboot.verify.certificate import Certificate, ders, parse
from tinboot.verify.checks import Check, Verdict, ask, require
from tinboot.verify.der import OCTET_STRING, SEQUENCE, Der, context, dotted
from tinboot.verify.gpu_fwid import Fwid
from tinboot.verify.usage import BASIC_CONSTRAINTS, KEY_USAGE, constraints, extension_of, key_usage

LENGTH = 5

#: RFC 5758, 3.2: ecdsa-with-SHA384, no parameters.
ECDSA_SHA384 = bytes.fromhex("300a06082a8648ce3d040303")
#: RFC 5480, 2.1 and 2.2: id-ecPublicKey, secp384r1, a point that is not compressed, of which 96 bytes follow.
_P384 = bytes.fromhex("3076301006072a8648ce3d020106052b8104002203620004")
_POINT = 97  # with the 4 before it

_SIGNS_DATA, _SIGNS_CERTIFICATES = 0x80, 0x04

SUBJECT_KEY, AUTHORITY_KEY = bytes.fromhex("551d0e"), bytes.fromhex("551d23")
_UNDERSTOOD = frozenset(
    {BASIC_CONSTRAINTS, KEY_USAGE, SUBJECT_KEY, AUTHORITY_KEY}
    | {gpu_fwid.COMPOSITE_DEVICE_ID, gpu_fwid.TCB_INFO}
)

_ROLES = (
    re.compile(r"(G[HB][0-9]{3}) [A-Za-z0-9 ]*FMC LF"),
    re.compile(r"(G[HB][0-9]{3}) [A-Za-z0-9 ]*BROM"),
    re.compile(r"NVIDIA (G[HB][0-9]{3}) Provisioner ICA [0-9]+"),
    re.compile(r"NVIDIA (G[HB][0-9]{3}) Identity"),
)
_WORDS = ("the attestation key", "the boot ROM", "the provisioner", "the chip's identity", "the root")

#: Of a chip's name -> as the SDK says (formats/gpuevidence.py).
_ARCHITECTURES = {"GH": "HOPPER", "GB": "BLACKWELL"}


class Presented:
    """The certificates as they were given, nothing of them believed. `pinned`: fingerprints of roots."""

    def __init__(self, chain: Sequence[Certificate], pinned: Sequence[str] = gpu_roots.NVIDIA) -> None:
        self.chain = tuple(chain)
        self.pinned = tuple(pinned)

    @cached_property
    def chip(self) -> str:
        """As GH100. Raises `Mismatch` where the names are not those of the five roles, of one chip."""
        found = set()
        for certificate, pattern, word in zip(self.chain[:-1], _ROLES, _WORDS, strict=False):
            match = pattern.fullmatch(certificate.common_name)
            if match is None:
                raise Mismatch(f"a certificate of {certificate.common_name!r} where that of {word} belongs")
            found.add(match[1])
        if len(found) != 1:
            raise Mismatch(f"a chain of several chips: {', '.join(sorted(found))}")
        return found.pop()

    @cached_property
    def fwid(self) -> Fwid | None:
        return gpu_fwid.read(self.chain[0])


def present(pem: bytes, pinned: Sequence[str] = gpu_roots.NVIDIA) -> Presented:
    """The chain as the GPU returned it, PEM and leaf first. Raises `Malformed`."""
    return Presented([_parsed(der) for der in ders(pem.rstrip(b"\0"), "CERTIFICATE")], pinned)


_SEAL = object()


@final
class Endorsement:
    """A key that NVIDIA vouches for, and the GPU whose it is. `endorse` and `examine` alone make one."""

    __slots__ = ("architecture", "chain", "chip", "fwid", "hwmodel", "key", "root", "ueid")

    architecture: str  # as the SDK says: HOPPER, BLACKWELL
    chip: str
    hwmodel: str  # the boot ROM's name, as NVIDIA's claims have it
    ueid: str  # the leaf's serial number in decimal, likewise
    fwid: bytes | None
    key: ec.EllipticCurvePublicKey
    chain: tuple[Certificate, ...]
    root: str  # its fingerprint

    def __init__(self, seal: object, presented: Presented) -> None:
        if seal is not _SEAL:
            raise TypeError("an endorsement is made by verifying a chain")
        leaf, boot_rom = presented.chain[:2]
        fields = {
            "architecture": _ARCHITECTURES[presented.chip[:2]],
            "chain": presented.chain,
            "chip": presented.chip,
            "fwid": None if presented.fwid is None else presented.fwid.digest,
            "hwmodel": boot_rom.common_name,
            "key": key_of(leaf),
            "root": presented.chain[-1].fingerprint,
            "ueid": str(leaf.serial),
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} of an endorsement cannot be set")

    def is_of(self, chain: Sequence[Certificate], pinned: Sequence[str]) -> bool:
        """Whether this is what verifying `chain` gave, up to one of the roots that are `pinned`."""
        return self.root in pinned and [own.der for own in self.chain] == [other.der for other in chain]


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


@lru_cache(maxsize=64)
def endorsed(pem: bytes, pinned: tuple[str, ...]) -> Endorsement:
    """What `endorse` makes of the chain as the GPU returned it; kept where it holds. Raises as it does."""
    return endorse(present(pem, pinned))


def chain_length(presented: Presented) -> None:
    """Five certificates; each role has another name, so none stands there twice."""
    if len(presented.chain) != LENGTH:
        raise Mismatch(f"a chain of {len(presented.chain)} certificates, expected {LENGTH}")


def root_pinned(presented: Presented) -> None:
    """The last one is a root that is trusted, by its digest. Its own signature then says no more."""
    root = presented.chain[-1]
    if root.fingerprint not in presented.pinned:
        raise Mismatch(f"the root {root.common_name!r} (SHA-256 {root.fingerprint}) is not trusted")


def signature_parameters(presented: Presented) -> None:
    """ECDSA with SHA-384 by keys of P-384 throughout, stated the same inside and beside the signature."""
    for certificate in presented.chain:
        require_p384(certificate)


def certificate_roles(presented: Presented) -> None:
    """Each has the name of its role, names the next as its issuer, and may do what it does, and no more."""
    chain = presented.chain
    presented.chip  # noqa: B018 - it raises for names that are not the roles'
    for below, (certificate, issuer) in enumerate(zip(chain, (*chain[1:], chain[-1]), strict=True)):
        issued_by(certificate, issuer)
        if below:
            authority(certificate, below - 1)
        else:
            leaf(certificate)


def certificate_signatures(presented: Presented) -> None:
    """Each is signed by the next; the root, which is pinned, need not be."""
    for certificate, issuer in zip(presented.chain, presented.chain[1:], strict=False):
        verify_link(certificate, issuer)


def firmware_identity(presented: Presented) -> None:
    """The key's certificate states its firmware as NVIDIA's do, in one form and strictly, or not at all."""
    fwid = presented.fwid
    if fwid is None or fwid.issuer_key is None:
        return
    if fwid.issuer_key not in {issuer.key for issuer in presented.chain[1:2]}:
        raise Mismatch("the firmware's identity names another boot ROM's key than the issuer's")


CHECKS: tuple[Check[Presented], ...] = (
    Check("chain-length", None, "the chain has its five certificates", chain_length),
    Check("root-pinned", None, "the root is one that is trusted, by its digest", root_pinned),
    Check("signature-parameters", None, "certificates are signed as NVIDIA signs", signature_parameters),
    Check("certificate-roles", None, "names, issuers and permitted uses are their roles'", certificate_roles),
    Check("certificate-signatures", None, "each certificate is signed by the next", certificate_signatures),
    Check(
        "firmware-identity", None, "the key's certificate states its firmware, strictly", firmware_identity
    ),
)


def require_p384(certificate: Certificate) -> None:
    """Raises `Mismatch` for another key or another signature algorithm than NVIDIA's."""
    name = certificate.common_name
    if certificate.algorithm != ECDSA_SHA384:
        raise Mismatch(f"{name!r} is not signed with ECDSA and SHA-384")
    if certificate.outer_algorithm != certificate.algorithm:
        raise Mismatch(f"{name!r} states another signature algorithm beside the signature than inside")
    key_of(certificate)


def issued_by(
    certificate: Certificate, issuer: Certificate, understood: frozenset[bytes] = frozenset()
) -> None:
    """Names chain, key identifiers where both state them, and no extension is critical and not understood.

    `understood`: extensions that the caller looks at, beside those of this file.
    """
    name = certificate.common_name
    if certificate.issuer != issuer.subject:
        raise Mismatch(f"{name!r} names another issuer than the certificate of {issuer.common_name!r}")
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _UNDERSTOOD | understood:
            raise Mismatch(f"{name!r} has the critical extension {dotted(extension.oid)}, which is not known")
    wanted, own = authority_key(certificate), subject_key(issuer)
    if wanted is not None and own is not None and wanted != own:
        raise Mismatch(f"{name!r} names another key of its issuer than that of {issuer.common_name!r}")


def leaf(certificate: Certificate) -> None:
    """Raises `Mismatch` unless it may sign data, and nothing else (RFC 5280, 4.2.1.3 and 4.2.1.9)."""
    if constraints(certificate)[0] or key_usage(certificate) != _SIGNS_DATA:
        raise Mismatch(f"{certificate.common_name!r} may do something else than sign data")


def authority(certificate: Certificate, below: int) -> None:
    """Raises `Mismatch` unless it may sign certificates, with `below` authorities under it."""
    name = certificate.common_name
    found, most = constraints(certificate)
    if not found or not any(e.critical for e in certificate.extensions if e.oid == BASIC_CONSTRAINTS):
        raise Mismatch(f"{name!r} is not marked as an authority")
    if most is not None and most < below:
        raise Mismatch(f"{name!r} allows {most} authorities below it, and there are {below}")
    if not (key_usage(certificate) or 0) & _SIGNS_CERTIFICATES:
        raise Mismatch(f"{name!r} may not sign certificates")


def subject_key(certificate: Certificate) -> bytes | None:
    """RFC 5280, 4.2.1.2."""
    value = extension_of(certificate, SUBJECT_KEY)
    if value is None:
        return None
    reader = Der(value)
    found = reader.content(OCTET_STRING)
    reader.done()
    return found


def authority_key(certificate: Certificate) -> bytes | None:
    """RFC 5280, 4.2.1.1: [0] the key's identifier. [1] and [2] repeat the issuer's own issuer and serial."""
    value = extension_of(certificate, AUTHORITY_KEY)
    if value is None:
        return None
    reader = Der(value)
    body = reader.take(SEQUENCE)
    reader.done()
    found = body.content(0x80) if body.next_is(0x80) else None
    if body.next_is(context(1)):
        body.take(context(1))
        body.integer(0x82)
    body.done()
    return found


def key_of(certificate: Certificate) -> ec.EllipticCurvePublicKey:
    """Raises `Mismatch` unless it is of P-384."""
    if not certificate.key.startswith(_P384) or len(certificate.key) != len(_P384) + _POINT - 1:
        raise Mismatch(f"the key of {certificate.common_name!r} is not of P-384")
    try:
        return _public_key(certificate.key[-_POINT:])
    except ValueError as error:
        raise Malformed(f"the key of {certificate.common_name!r} cannot be read: {error}") from None


def verify_bytes(signature: bytes, signed: bytes, key: ec.EllipticCurvePublicKey, what: str) -> None:
    """`signature` in DER. Raises `Mismatch` unless it is `key`'s of `signed`."""
    try:
        key.verify(signature, signed, p384.SCHEME)
    except InvalidSignature:
        raise Mismatch(f"the signature of {what} does not hold") from None


def verify_link(certificate: Certificate, issuer: Certificate) -> None:
    """Raises `Mismatch` unless `issuer`'s key signed `certificate`."""
    what = f"{certificate.common_name!r} by {issuer.common_name!r}"
    key_of(issuer)
    _verified(certificate.signature, certificate.signed, issuer.key[-_POINT:], what)


@lru_cache(maxsize=32)
def _verified(signature: bytes, signed: bytes, point: bytes, what: str) -> None:
    """Kept where it holds: the GPUs of a machine share the upper half of their chains."""
    verify_bytes(signature, signed, _public_key(point), what)


@lru_cache(maxsize=32)
def _parsed(der: bytes) -> Certificate:
    """What the same bytes say does not change, and the upper half is shared."""
    return parse(der)


@lru_cache(maxsize=32)
def _public_key(point: bytes) -> ec.EllipticCurvePublicKey:
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), point)
