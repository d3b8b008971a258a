"""ECDSA with P-384 and SHA-384, with which chips and GPUs sign reports."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tinboot.formats.errors import Mismatch

COORDINATE = 48  # bytes of a number

#: NIST SP 800-186, 3.2.1.4: the order of the base point; r and s are below it and above zero.
ORDER = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16
)

_SHA384 = hashes.SHA384()


class _Scheme(ec.ECDSA):
    """ECDSA with SHA-384. The class's own constructor imports ciphers and RSA, for a way of signing."""

    def __init__(self) -> None:
        pass

    @property
    def algorithm(self) -> hashes.HashAlgorithm:
        return _SHA384


#: What `verify` of a key of cryptography takes.
SCHEME = _Scheme()


def verify(key: ec.EllipticCurvePublicKey, r: int, s: int, signed: bytes, failure: Mismatch) -> None:
    """Raises `failure` unless `key` signed these bytes."""
    try:
        key.verify(encode_dss_signature(r, s), signed, SCHEME)
    except InvalidSignature:
        raise failure from None
