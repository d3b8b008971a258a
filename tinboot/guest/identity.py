"""Who this guest is: two keys, born after every gate, in its memory alone, and gone with it.

    TLS     ECDSA on P-384, for the proxy: `tls.pem`, certificate and key
    HPKE    X25519 (RFC 9180, 4.1), for encrypted bodies: `hpke.key`, 32 raw bytes

A report binds both (formats/reportdata.py); the certificate says in its names which, for clients that see
only the handshake. Nobody has to trust its signature, which is its own key's; `install` takes any other for
the same key, such as one that an authority signed.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tinboot.formats import dcode
from tinboot.guest import certificate_der
from tinboot.guest.certificate_der import Validity, pem

FOLDER = Path("/run/tinboot-identity")  # a tmpfs, as all of /run
TLS_FILE, HPKE_FILE = "tls.pem", "hpke.key"

#: The host sets the clock: a client's may be behind it.
_EARLIER = timedelta(minutes=5)
#: The longest that clients take which limit it (CA/Browser Forum, Baseline Requirements 2.0, 6.3.2: 398
#: days): the keys live as long as the machine runs, and nothing renews the certificate before.
_LIFE = timedelta(days=397)

_SERIAL = 20  # bytes; RFC 5280, 4.1.2.2: as many at most, and positive


class Identity(NamedTuple):
    """Its private keys are in this process, and in the two files for those that serve with them."""

    tls: ec.EllipticCurvePrivateKey
    hpke: X25519PrivateKey

    @property
    def spki_sha256(self) -> bytes:
        """32 bytes, by which clients know the TLS key."""
        return sha256(certificate_der.public_key(self.tls.public_key())).digest()

    @property
    def hpke_public(self) -> bytes:
        """32 bytes."""
        return self.hpke.public_key().public_bytes_raw()


def born() -> Identity:
    """From the kernel's random numbers, for which the initrd insists on RDRAND."""
    return Identity(ec.generate_private_key(ec.SECP384R1()), X25519PrivateKey.generate())


def certificate(identity: Identity, document_hash: str, now: datetime) -> str:
    """PEM, self-signed. `document_hash`: of the v2 document, 64 hex digits."""
    names = dcode.encode(identity.hpke_public, dcode.HPKE_DOMAIN)
    names += dcode.encode(document_hash.encode("ascii"), dcode.HASH_DOMAIN)
    serial = int.from_bytes(os.urandom(_SERIAL), "big") >> 1 | 1
    validity = Validity(now - _EARLIER, now + _LIFE)
    return pem("CERTIFICATE", certificate_der.self_signed(identity.tls, names, serial, validity))


def install(identity: Identity, chain: str, folder: Path = FOLDER) -> None:
    """`chain`: PEM of the TLS key's certificate and of those above it."""
    key = pem("PRIVATE KEY", certificate_der.private_key(identity.tls))
    _write(folder / TLS_FILE, (chain + key).encode())


def install_hpke(identity: Identity, folder: Path = FOLDER) -> None:
    _write(folder / HPKE_FILE, identity.hpke.private_bytes_raw())


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all; for PID 1, which hands it on as a credential (LoadCredential= of who serves)."""
    made = path.with_suffix(".new")
    file = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
    try:
        os.write(file, data)
    finally:
        os.close(file)
    made.rename(path)
