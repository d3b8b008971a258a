"""A fake NVIDIA: device chains of Hopper and Blackwell and the signers of RIMs, as genuine ones are built.

Everything that the stub GPUs sign with, and that the verifier's tests break. The common names are NVIDIA's;
the organisation is `MARK`, and no root of these is ever NVIDIA's. A certificate is a `Form` until it is
issued, so that a test replaces one field and nothing else:

    gpu = chain("HOPPER", number=1)
    expired = gpu.replace(0, not_after=NOW - DAY)
    expired.pem(), expired.key

Every key follows from its name alone, and signatures from the key and what is signed: the same roots in every
process, nothing kept in files. Nor is any key a secret, so who trusts these roots trusts anybody.

Form, names and order of extensions are those of the certificates in NVIDIA/attestation-sdk's test data
(hopperCertChain.txt, blackwellFspCertChain.txt) and of the signer of NV_GPU_DRIVER_GH100_550.144.03.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha1, sha384
from typing import Any, Literal, NamedTuple, Self

import stub_der as der
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from stub_chain import AUTHORITY_KEY, CONSTRAINTS, KEY_USAGE, SUBJECT_KEY, Extension, spki

MARK = "TINBOOT STUB - NOT NVIDIA"

Arch = Literal["HOPPER", "BLACKWELL"]
CHIPS: dict[Arch, str] = {"HOPPER": "GH100", "BLACKWELL": "GB100"}

#: The firmware that the leaf's key belongs to; SPDM opaque field 20 repeats it.
FWID = sha384(b"tinboot stub firmware").digest()

SAN, AIA, CRL_POINTS, EXTENDED_USAGE = "2.5.29.17", "1.3.6.1.5.5.7.1.1", "2.5.29.31", "2.5.29.37"
OCSP_SIGNING, OCSP_NO_CHECK = "1.3.6.1.5.5.7.3.9", "1.3.6.1.5.5.7.48.1.5"
DMTF_DEVICE = "1.3.6.1.4.1.412.274.1"  # DMTF DSP0274 1.1, 10.8: manufacturer:product:serial number
#: TCG DICE Attestation Architecture 1.0, 6.1.1: tcg-dice-TcbInfo; its arc alone is what Hopper writes a
#: composite device id with (DICE Layering 1.0, 5.4).
HOPPER_FWID, TCB_INFO = "2.23.133.5.4.1", "2.23.133.5.4.1.1"
FWID_OIDS: dict[Arch, str] = {"HOPPER": HOPPER_FWID, "BLACKWELL": TCB_INFO}
SHA384 = "2.16.840.1.101.3.4.2.2"
ECDSA_SHA384 = der.sequence(der.oid("1.2.840.10045.4.3.3"))

SIGN, CERTS, CERTS_AND_CRLS = b"\x03\x02\x07\x80", b"\x03\x02\x02\x04", b"\x03\x02\x01\x06"  # keyUsage

DAY = timedelta(days=1)
FOREVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)  # RFC 5280 4.1.2.5

#: P-384's order, NIST SP 800-186, 3.2.1.4.
_ORDER = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16
)

_ATTRIBUTES = {
    "serialNumber": ("2.5.4.5", der.PRINTABLE),
    "C": ("2.5.4.6", der.PRINTABLE),
    "ST": ("2.5.4.8", der.UTF8),
    "L": ("2.5.4.7", der.UTF8),
    "O": ("2.5.4.10", der.UTF8),
    "CN": ("2.5.4.3", der.UTF8),
}

Name = tuple[tuple[str, str], ...]
Key = ec.EllipticCurvePrivateKey


class Form(NamedTuple):
    """What a certificate says. `key`: a SubjectPublicKeyInfo; `signer`: the issuer's key."""

    subject: Name
    issuer: Name
    serial: int
    not_before: datetime
    not_after: datetime
    key: bytes
    extensions: tuple[Extension, ...]
    signer: Key
    version: int = 2
    algorithm: bytes = ECDSA_SHA384
    hash: hashes.HashAlgorithm = hashes.SHA384()

    def with_extension(self, oid: str, value: bytes, *, critical: bool = False) -> Form:
        """The same with `value` in the place of that extension, or added last."""
        changed = Extension(oid, value, critical)
        if oid not in {extension.oid for extension in self.extensions}:
            return self._replace(extensions=(*self.extensions, changed))
        return self._replace(extensions=tuple(changed if e.oid == oid else e for e in self.extensions))

    def without_extension(self, oid: str) -> Form:
        return self._replace(extensions=tuple(e for e in self.extensions if e.oid != oid))

    def issue(self) -> bytes:
        """The certificate, DER."""
        extensions = der.sequence(*map(_extension, self.extensions))
        body = der.sequence(
            der.context(0, der.integer(self.version)),
            der.integer(self.serial),
            self.algorithm,
            name(self.issuer),
            der.sequence(der.time(self.not_before), der.time(self.not_after)),
            name(self.subject),
            self.key,
            *((der.context(3, extensions),) if self.extensions else ()),
        )
        return der.sequence(body, self.algorithm, der.bits(sign(self.signer, body, self.hash)))


class Chain(NamedTuple):
    """Certificates, leaf first, and the leaf's key."""

    forms: tuple[Form, ...]
    key: Key

    def replace(self, at: int, **fields: Any) -> Self:
        """The same with other `fields` in certificate `at`."""
        return self.put(at, self.forms[at]._replace(**fields))

    def put(self, at: int, form: Form) -> Self:
        return self._replace(forms=(*self.forms[:at], form, *self.forms[at + 1 :]))

    def der(self) -> tuple[bytes, ...]:
        return tuple(form.issue() for form in self.forms)

    def pem(self) -> bytes:
        """As NVML gives it: leaf first, root last."""
        return pem(self.der())


@cache
def key(label: str) -> Key:
    """The P-384 key of that name; the same ever after."""
    number = int.from_bytes(sha384(f"{MARK}: {label}".encode()).digest(), "big")
    return ec.derive_private_key(number % (_ORDER - 1) + 1, ec.SECP384R1())


def chain(arch: Arch = "HOPPER", number: int = 0, *, fwid: bytes = FWID, realm: str = "") -> Chain:
    """Of GPU `number`: attestation key, boot ROM, provisioner, identity, root. `realm`: of another root."""
    chip = CHIPS[arch]
    unit = f"{chip} A01 GSP" if arch == "HOPPER" else f"{chip} A01 FSP"
    owner = f"{realm} {chip} {number}"
    keys = [key(f"{owner} {part}") for part in ("attestation", "boot ROM")]
    keys += [key(f"{realm} {chip} {part}") for part in ("provisioner", "identity")]
    keys.append(key(f"{realm} device root"))
    leaf, rom = (_key_id(k) for k in keys[:2])
    leaf_serial = bytes((leaf[0] & 0x3F | 0x40,)) + leaf[1:]
    rom_serial = b"\x41" + sha384(rom).digest()[:8]
    made = datetime(2020, 10, 17, tzinfo=UTC) if arch == "HOPPER" else datetime(2023, 6, 20, tzinfo=UTC)
    provisioner = f"NVIDIA {chip} Provisioner ICA {'1' if arch == 'HOPPER' else '00000'}"
    names: list[Name] = [
        (("serialNumber", leaf_serial.hex().upper()), ("C", "US"), ("O", MARK), ("CN", f"{unit} FMC LF")),
        (("serialNumber", rom_serial.hex().upper()), ("C", "US"), ("O", MARK), ("CN", f"{unit} BROM")),
        (("CN", provisioner), ("O", MARK), ("C", "US")),
        (("CN", f"NVIDIA {chip} Identity"), ("O", MARK)),
        (("CN", "NVIDIA Device Identity CA"), ("O", MARK)),
    ]
    serials = [int.from_bytes(data, "big") for data in (leaf_serial, rom_serial)]
    serials += [_serial(names[2]), _serial(names[3]), _serial(names[4])]
    identity = f"NVIDIA:{chip}:{pdi(arch, number).hex().upper()}"
    extensions: list[tuple[Extension, ...]] = [
        (
            *(Extension(KEY_USAGE, SIGN, critical=True), *_key_ids(keys[0], keys[1])),
            Extension(SAN, other_name(identity)),
            Extension(FWID_OIDS[arch], fwid_extension(arch, fwid, keys[1])),
        ),
        (*_authority(CERTS), *(() if arch == "HOPPER" else (_OCSP,)), *_key_ids(keys[1], keys[2])),
        (
            *_authority(CERTS_AND_CRLS),
            *(_crl(f"l2-{chip.lower()}.crl"), _OCSP, *_key_ids(keys[2], keys[3])),
        ),
        (*_authority(CERTS_AND_CRLS), *(_crl("l1-root.crl"), _OCSP, *_key_ids(keys[3], keys[4]))),
        (*_authority(CERTS_AND_CRLS), *_key_ids(keys[4], keys[4])),
    ]
    begins = [made, made, datetime(2022, 3, 1, tzinfo=UTC), datetime(2022, 1, 12, tzinfo=UTC)]
    begins.append(datetime(2021, 11, 5, tzinfo=UTC))
    forms = tuple(
        Form(
            names[i],
            names[min(i + 1, 4)],
            serials[i],
            begins[i],
            FOREVER,
            spki(keys[i].public_key()),
            extensions[i],
            keys[min(i + 1, 4)],
        )
        for i in range(5)
    )
    return Chain(forms, keys[0])


def rim_chain(now: datetime, chip: str = "GH100", *, realm: str = "") -> Chain:
    """The signer of RIMs and its issuers, root last. The signer's certificate lives for two years."""
    keys = [key(f"{realm} RIM {chip} {part}") for part in ("L4", "L3", "CA")] + [key(f"{realm} RIM root")]
    place = (("C", "US"), ("ST", "CA"), ("L", "Santa Clara"))
    names: list[Name] = [
        (*place, ("O", MARK), ("CN", "HCC RIM L4 Signer")),
        (("CN", f"NVIDIA Reference Value L3 {chip} 002"), ("O", MARK), ("C", "US")),
        (("CN", f"NVIDIA Reference Value {chip} CA"), ("O", MARK), ("C", "US")),
        (("C", "US"), ("O", MARK), ("CN", "NVIDIA CoRIM signing Root CA")),
    ]
    no_authority = Extension(CONSTRAINTS, der.sequence(), critical=True)
    last_authority = Extension(CONSTRAINTS, der.sequence(der.true(), der.integer(0)), critical=True)
    usage = Extension(KEY_USAGE, CERTS_AND_CRLS, critical=True)
    extensions: list[tuple[Extension, ...]] = [
        (*_key_ids(keys[0], keys[1]), no_authority, Extension(KEY_USAGE, SIGN, critical=True), _OCSP),
        (last_authority, usage, _OCSP, *_key_ids(keys[1], keys[2])),
        (
            *(*_authority(CERTS_AND_CRLS), _crl("l1-corim", "crl-corim")),
            *(_OCSP, *_key_ids(keys[2], keys[3])),
        ),
        (*_key_ids(keys[3], keys[3]), *_authority(CERTS_AND_CRLS)),
    ]
    years = [(1, 1), (2, 2), (3, 7), (3, 27)]  # before and after
    forms = tuple(
        Form(
            names[i],
            names[min(i + 1, 3)],
            _serial((*names[i], *names[1]) if i == 0 else names[i]),
            now - 365 * DAY * years[i][0],
            now + 365 * DAY * years[i][1],
            spki(keys[i].public_key()),
            extensions[i],
            keys[min(i + 1, 3)],
        )
        for i in range(4)
    )
    return Chain(forms, keys[0])


def responder(issuer: Form, issuer_key: Key, now: datetime) -> Chain:
    """One that `issuer` lets answer for the certificates it issued (RFC 6960 4.2.2.2): one certificate."""
    own = key(f"OCSP responder of {issuer.subject}")
    extensions = (
        Extension(KEY_USAGE, SIGN, critical=True),
        Extension(EXTENDED_USAGE, der.sequence(der.oid(OCSP_SIGNING))),
        Extension(OCSP_NO_CHECK, der.null()),
        Extension(SUBJECT_KEY, der.octets(_key_id(own))),
        Extension(AUTHORITY_KEY, der.sequence(der.element(0x80, _key_id(issuer_key)))),
    )
    subject = (("CN", "NVIDIA OCSP Responder"), ("O", MARK), ("C", "US"))
    serial = _serial((*subject, *issuer.subject))
    public = spki(own.public_key())
    dates = (now - 30 * DAY, now + 30 * DAY)
    return Chain((Form(subject, issuer.subject, serial, *dates, public, extensions, issuer_key),), own)


def pdi(arch: Arch, number: int) -> bytes:
    """A GPU's own 8 bytes, as its leaf names it."""
    return b"\x48\xb0\x2d" + sha384(f"{arch} {number}".encode()).digest()[:5]


def fwid_extension(arch: Arch, fwid: bytes, device: Key) -> bytes:
    """What carries the FWID in a leaf: of 189 bytes (Hopper, FWID last), or 180 (Blackwell, FWID first)."""
    digest = der.sequence(der.oid(SHA384), der.octets(fwid))
    if arch == "HOPPER":
        return der.sequence(der.integer(1), spki(device.public_key()), digest)
    return der.sequence(
        der.element(0x80, b"NVIDIA"),
        der.element(0x81, b"GB100 A01 FSP"),
        der.element(0x82, b"03"),
        der.element(0x83, b"\x03"),
        der.element(0x84, b"\0"),
        der.element(0x85, b"\0"),
        der.element(0xA6, digest + der.sequence(der.oid(SHA384), der.octets(bytes(48)))),
        der.element(0x87, b"\0\x90\0\0\x01"),
        der.element(0x88, b"\xc0"),
        der.element(0x89, b"\0"),
    )


def other_name(text: str, oid: str = DMTF_DEVICE) -> bytes:
    """A subjectAltName of one otherName (RFC 5280 4.2.1.6)."""
    return der.sequence(der.context(0, der.oid(oid), der.context(0, der.element(der.UTF8, text.encode()))))


def name(parts: Name) -> bytes:
    """DER of a distinguished name."""
    return der.sequence(
        *(
            der.element(der.SET, der.sequence(der.oid(_ATTRIBUTES[what][0]), _text(what, text)))
            for what, text in parts
        )
    )


def pem(certificates: Sequence[bytes]) -> bytes:
    """`certificates`, DER, one after another in lines of 64 (RFC 7468 2)."""
    out = b""
    for certificate in certificates:
        text = b64encode(certificate)
        lines = [text[at : at + 64] for at in range(0, len(text), 64)]
        out += b"\n".join((b"-----BEGIN CERTIFICATE-----", *lines, b"-----END CERTIFICATE-----", b""))
    return out


def sign(signer: Key, data: bytes, algorithm: hashes.HashAlgorithm | None = None) -> bytes:
    """An ECDSA signature, DER, the same for the same data (RFC 6979)."""
    return signer.sign(data, ec.ECDSA(algorithm or hashes.SHA384(), deterministic_signing=True))


def _text(what: str, text: str) -> bytes:
    return der.element(_ATTRIBUTES[what][1], text.encode())


def _serial(parts: Name) -> int:
    """16 bytes that follow from the name."""
    return int.from_bytes(sha384(repr(parts).encode()).digest()[:16], "big") >> 2 | 1 << 126


def _key_id(own: Key) -> bytes:
    """RFC 5280 4.2.1.2 (1): SHA-1 of the public key's bits."""
    return sha1(spki(own.public_key())[-97:], usedforsecurity=False).digest()


def _key_ids(own: Key, issuer: Key) -> tuple[Extension, Extension]:
    authority = der.sequence(der.element(0x80, _key_id(issuer)))
    return Extension(SUBJECT_KEY, der.octets(_key_id(own))), Extension(AUTHORITY_KEY, authority)


def _authority(usage: bytes) -> tuple[Extension, Extension]:
    constraints = Extension(CONSTRAINTS, der.sequence(der.true()), critical=True)
    return constraints, Extension(KEY_USAGE, usage, critical=True)


def _crl(file: str, folder: str = "crl") -> Extension:
    address = der.element(0x86, f"http://crl.ndis.nvidia.com/{folder}/{file}".encode())
    return Extension(CRL_POINTS, der.sequence(der.sequence(der.context(0, der.context(0, address)))))


_OCSP = Extension(
    AIA,
    der.sequence(
        der.sequence(der.oid("1.3.6.1.5.5.7.48.1"), der.element(0x86, b"http://ocsp.ndis.nvidia.com"))
    ),
)


def _extension(extension: Extension) -> bytes:
    critical = der.true() if extension.critical else b""
    return der.sequence(der.oid(extension.oid), critical, der.octets(extension.value))
