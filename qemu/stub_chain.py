"""A fake AMD: roots, intermediates, chip and provider keys, revocation lists, as genuine ones are built.

Everything that the stub PSP signs with, and that the verifier's tests break. The common names are AMD's, for
the verifier demands them; the organisation is `MARK`, and no root of these is ever AMD's.

A certificate is a `Form` until it is issued, so that a test replaces one field and nothing else:

    amd = authority(folder, GENOA, now)
    vcek = amd.issue(amd.vcek(key, tcb, chip_id)._replace(serial=7))

Genuine certificates: AMD's Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface Specification
(57230) 1.00, chapter 3. What it leaves open, such as the order of extensions, is as in certificates of AMD's.
"""

from __future__ import annotations

import fcntl
from base64 import encodebytes
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from hashlib import sha1, sha256
from pathlib import Path
from typing import Literal, NamedTuple

import stub_der as der
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from tinboot.formats.snptcb import TURIN, Line, Tcb

MARK = "TINBOOT STUB - NOT AMD"

Signer = Literal["ark", "ask", "asvk"]
SIGNERS: tuple[Signer, ...] = ("ark", "ask", "asvk")

AMD = "1.3.6.1.4.1.3704.1"
STRUCT_VERSION, PRODUCT_NAME, HWID, CSP_ID = f"{AMD}.1", f"{AMD}.2", f"{AMD}.4", f"{AMD}.5"
BL, TEE, SNP, UCODE, FMC = f"{AMD}.3.1", f"{AMD}.3.2", f"{AMD}.3.3", f"{AMD}.3.8", f"{AMD}.3.9"
RESERVED = tuple(f"{AMD}.3.{number}" for number in (4, 5, 6, 7))
SUBJECT_KEY, KEY_USAGE, CONSTRAINTS = "2.5.29.14", "2.5.29.15", "2.5.29.19"
CRL_NUMBER, AUTHORITY_KEY = "2.5.29.20", "2.5.29.35"

_SHA384 = der.sequence(der.oid("2.16.840.1.101.3.4.2.2"), der.null())
_MGF1 = der.sequence(der.oid("1.2.840.113549.1.1.8"), _SHA384)


def pss(
    salt: int = 48, *, hash_: bytes = _SHA384, mask: bytes = _MGF1, trailer: bytes | None = None
) -> bytes:
    """The algorithm identifier of RSASSA-PSS (RFC 4055 3.1). AMD's states the default trailer, 1, too."""
    parameters = (
        der.context(0, hash_),
        der.context(1, mask),
        der.context(2, der.integer(salt)),
        der.context(3, der.integer(1)) if trailer is None else trailer,
    )
    return der.sequence(der.oid("1.2.840.113549.1.1.10"), der.sequence(*parameters))


class Extension(NamedTuple):
    oid: str
    value: bytes
    critical: bool = False


class Form(NamedTuple):
    """What a certificate says. `subject` and `issuer` are common names, `key` a SubjectPublicKeyInfo.

    `salt`: bytes of salt that the signature really has, whatever `algorithm` says.
    """

    subject: str
    issuer: str
    serial: int
    not_before: datetime
    not_after: datetime
    key: bytes
    extensions: tuple[Extension, ...]
    signer: Signer
    version: int = 2
    algorithm: bytes = pss()
    outer_algorithm: bytes | None = None  # None: `algorithm`
    salt: int = 48
    organisation: str = MARK

    def with_extension(self, oid: str, value: bytes, *, critical: bool = False) -> Form:
        """The same with `value` in the place of that extension, or added last."""
        changed = Extension(oid, value, critical)
        if oid not in {extension.oid for extension in self.extensions}:
            return self._replace(extensions=(*self.extensions, changed))
        return self._replace(extensions=tuple(changed if e.oid == oid else e for e in self.extensions))

    def without_extension(self, oid: str) -> Form:
        return self._replace(extensions=tuple(e for e in self.extensions if e.oid != oid))


class Revocations(NamedTuple):
    """What a revocation list says: serials, and the time in which it holds."""

    serials: tuple[int, ...]
    issuer: str
    this_update: datetime
    next_update: datetime | None
    signer: Signer = "ark"
    algorithm: bytes = pss()
    extensions: tuple[Extension, ...] = (Extension(CRL_NUMBER, der.integer(1)),)


class Authority(NamedTuple):
    """The fake AMD of one product line. `keys`: of ARK, ASK, ASVK; RSA-4096 all."""

    line: Line
    keys: dict[Signer, rsa.RSAPrivateKey]
    now: datetime

    def ark(self) -> Form:
        extensions = (
            Extension(KEY_USAGE, b"\x03\x02\x01\x06", critical=True),  # keyCertSign, cRLSign
            Extension(SUBJECT_KEY, der.octets(self._key_id("ark"))),
            Extension(CONSTRAINTS, der.sequence(der.true()), critical=True),
        )
        return self._ca(f"ARK-{self.line.name}", 0x10000, "ark", extensions)

    def ask(self) -> Form:
        return self._intermediate(f"SEV-{self.line.name}", 0x10001, "ask")

    def asvk(self) -> Form:
        return self._intermediate(f"SEV-VLEK-{self.line.name}", 0x10101, "asvk")

    def vcek(self, key: ec.EllipticCurvePrivateKey, tcb: Tcb, chip_id: bytes) -> Form:
        """Of a chip. `chip_id`: the report's 64 bytes, of which the certificate holds as many as its line."""
        chip = Extension(HWID, chip_id[: self.line.hwid])
        product = {"Milan": "Milan-B0"}.get(self.line.name, self.line.name)
        years = timedelta(days=7 * 365)
        return self._vek("SEV-VCEK", f"SEV-{self.line.name}", "ask", key, tcb, (product, chip, years))

    def vlek(
        self, key: ec.EllipticCurvePrivateKey, tcb: Tcb, csp_id: str = "CN=stub.provider.example"
    ) -> Form:
        """Of a cloud service provider."""
        provider = Extension(CSP_ID, der.element(der.IA5, csp_id.encode()))
        rest = (self.line.name, provider, timedelta(days=365))
        return self._vek("SEV-VLEK", f"SEV-VLEK-{self.line.name}", "asvk", key, tcb, rest)

    def issue(self, form: Form) -> bytes:
        """The certificate, DER."""
        body = der.sequence(
            der.context(0, der.integer(form.version)),
            der.integer(form.serial),
            form.algorithm,
            name(form.issuer, form.organisation),
            der.sequence(der.time(form.not_before), der.time(form.not_after)),
            name(form.subject, form.organisation),
            form.key,
            *((der.context(3, der.sequence(*map(_extension, form.extensions))),) if form.extensions else ()),
        )
        outer = form.algorithm if form.outer_algorithm is None else form.outer_algorithm
        return der.sequence(body, outer, der.bits(self._sign(form.signer, body, form.salt)))

    def chain(self, kind: Literal["vcek", "vlek"] = "vcek") -> tuple[bytes, bytes]:
        """The intermediate that issues `kind`, and the root; DER."""
        return self.issue(self.ask() if kind == "vcek" else self.asvk()), self.issue(self.ark())

    def revocations(self, *serials: int) -> Revocations:
        day = timedelta(days=1)
        return Revocations(serials, f"ARK-{self.line.name}", self.now - day, self.now + 30 * day)

    def revoke(self, form: Revocations) -> bytes:
        """The revocation list, DER."""
        revoked = [der.sequence(der.integer(serial), der.time(form.this_update)) for serial in form.serials]
        body = der.sequence(
            der.integer(1),
            form.algorithm,
            name(form.issuer),
            der.time(form.this_update),
            *((der.time(form.next_update),) if form.next_update is not None else ()),
            *((der.sequence(*revoked),) if revoked else ()),
            *((der.context(0, der.sequence(*map(_extension, form.extensions))),) if form.extensions else ()),
        )
        return der.sequence(body, form.algorithm, der.bits(self._sign(form.signer, body, 48)))

    def _intermediate(self, subject: str, serial: int, own: Signer) -> Form:
        authority = der.sequence(der.element(0x80, self._key_id("ark")))
        extensions = (
            Extension(SUBJECT_KEY, der.octets(self._key_id(own))),
            Extension(AUTHORITY_KEY, authority),
            Extension(CONSTRAINTS, der.sequence(der.true(), der.integer(0)), critical=True),
            Extension(KEY_USAGE, b"\x03\x02\x01\x04", critical=True),  # keyCertSign, alone as in ASKs of 2020
        )
        form = self._ca(f"ARK-{self.line.name}", serial, own, extensions)
        return form._replace(subject=subject)

    def _ca(self, issuer: str, serial: int, own: Signer, extensions: tuple[Extension, ...]) -> Form:
        start, end = self.now - timedelta(days=365), self.now + timedelta(days=20 * 365)
        return Form(issuer, issuer, serial, start, end, self._public(own), extensions, "ark")

    def _vek(
        self,
        subject: str,
        issuer: str,
        signer: Signer,
        key: ec.EllipticCurvePrivateKey,
        tcb: Tcb,
        rest: tuple[str, Extension, timedelta],
    ) -> Form:
        product, owner, lifetime = rest
        turin = self.line is TURIN
        parts = [(BL, tcb.bl), (TEE, tcb.tee), *((oid, 0) for oid in RESERVED[turin:])]
        parts += [(SNP, tcb.snp), (UCODE, tcb.ucode)]
        if tcb.fmc is not None:
            parts.append((FMC, tcb.fmc))
        extensions = (
            Extension(STRUCT_VERSION, der.integer(int(turin))),
            Extension(PRODUCT_NAME, der.element(der.IA5, product.encode())),
            *(Extension(oid, der.integer(value)) for oid, value in parts),
            owner,
        )
        start = self.now - timedelta(days=1)
        return Form(subject, issuer, 0, start, start + lifetime, spki(key.public_key()), extensions, signer)

    def _public(self, own: Signer) -> bytes:
        return spki(self.keys[own].public_key())

    def _key_id(self, own: Signer) -> bytes:
        return sha1(self._public(own), usedforsecurity=False).digest()

    def _sign(self, signer: Signer, body: bytes, salt: int) -> bytes:
        scheme = padding.PSS(padding.MGF1(hashes.SHA384()), salt)
        return self.keys[signer].sign(body, scheme, hashes.SHA384())


def authority(folder: Path, line: Line, now: datetime) -> Authority:
    """The fake AMD of `line`, with the keys in `folder`: made there if it has none, which takes seconds."""
    return Authority(line, {signer: _kept_rsa(folder / f"{signer}.pem") for signer in SIGNERS}, now)


def chip_key(folder: Path | None = None) -> ec.EllipticCurvePrivateKey:
    """The P-384 key of a chip; the one in `folder`, made there if it has none, or a new one."""
    if folder is None:
        return _chip_key()
    key = serialization.load_pem_private_key(_kept(folder / "chip.pem", _chip_key), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def fingerprint(certificate: bytes) -> str:
    """SHA-256 of the DER, in hex: what roots are pinned by."""
    return sha256(certificate).hexdigest()


def pem(certificates: Sequence[bytes], label: str = "CERTIFICATE") -> bytes:
    """`certificates`, DER, one after another."""
    head, foot = f"-----BEGIN {label}-----\n".encode(), f"-----END {label}-----\n".encode()
    return b"".join(head + encodebytes(certificate) + foot for certificate in certificates)


def spki(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def name(common: str, organisation: str = MARK) -> bytes:
    """A name as AMD's certificates have it, part by part, with another organisation."""
    parts = (
        ("2.5.4.11", der.UTF8, "Engineering"),
        ("2.5.4.6", der.PRINTABLE, "US"),
        ("2.5.4.7", der.UTF8, "Santa Clara"),
        ("2.5.4.8", der.UTF8, "CA"),
        ("2.5.4.10", der.UTF8, organisation),
        ("2.5.4.3", der.UTF8, common),
    )
    return der.sequence(
        *(
            der.element(der.SET, der.sequence(der.oid(oid), der.element(tag, text.encode())))
            for oid, tag, text in parts
        )
    )


def _extension(extension: Extension) -> bytes:
    critical = der.true() if extension.critical else b""
    return der.sequence(der.oid(extension.oid), critical, der.octets(extension.value))


def _chip_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def _rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=4096)


def _kept_rsa(path: Path) -> rsa.RSAPrivateKey:
    key = serialization.load_pem_private_key(_kept(path, _rsa_key), None, unsafe_skip_rsa_key_validation=True)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def _kept(path: Path, make: Callable[[], rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey]) -> bytes:
    """The key file at `path`. One process makes it, all others wait and read that one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            pkcs8 = serialization.PrivateFormat.PKCS8
            data = make().private_bytes(serialization.Encoding.PEM, pkcs8, serialization.NoEncryption())
            temporary = path.with_suffix(".part")
            temporary.write_bytes(data)
            temporary.rename(path)
    return path.read_bytes()
