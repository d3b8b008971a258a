"""What the REPORT_DATA of a served document binds: 64 bytes, of two layouts.

    v2   SHA-256 of the TLS key's SubjectPublicKeyInfo, then the X25519 public key of HPKE
    v3   SHA-256 of a label, the nonce and the SHA-256 of both endorsed sections, then 32 zeros

The report of the boot binds a SHA-512 (bootreport.py). None can be taken for another: a caller chooses the
nonce alone, which goes in behind a label, and no key of HPKE is all zeros.
"""

from __future__ import annotations

import hashlib

SIZE = 64
NONCE = 32  # bytes
KEY = 32  # bytes of a SHA-256, and of an X25519 public key

ALGORITHM = "https://tinfoil.sh/report-data/v1"


def v2(spki_sha256: bytes, hpke: bytes) -> bytes:
    """`spki_sha256`: of the DER of the TLS key's SubjectPublicKeyInfo. `hpke`: the raw X25519 public key."""
    return _exactly("hash of a TLS key", spki_sha256, KEY) + _exactly("HPKE key", hpke, KEY)


def v3(nonce: bytes, crypto_material: bytes, device_evidence: bytes) -> bytes:
    """Both sections as they are transmitted, before their base64."""
    return v3_of_hashes(
        nonce, hashlib.sha256(crypto_material).digest(), hashlib.sha256(device_evidence).digest()
    )


def v3_of_hashes(nonce: bytes, crypto_material: bytes, device_evidence: bytes) -> bytes:
    """The SHA-256 of both sections."""
    bound = ALGORITHM.encode() + _exactly("nonce", nonce, NONCE)
    bound += _exactly("hash", crypto_material, KEY) + _exactly("hash", device_evidence, KEY)
    return hashlib.sha256(bound).digest() + bytes(32)


def _exactly(what: str, data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise ValueError(f"a {what} of {len(data)} bytes, expected {size}")
    return data
