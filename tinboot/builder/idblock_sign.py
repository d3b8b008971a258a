"""Signs an ID block with its two P-384 keys."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from tinboot.formats import idblock
from tinboot.formats.errors import Malformed, Unavailable
from tinboot.formats.idblock import IdBlock

_MAKE = "make one with: openssl ecparam -name secp384r1 -genkey -noout -out KEY.pem"
_LIMIT = 64 << 10  # bytes of a PEM file


class Signed(NamedTuple):
    """The block and its authentication as the launcher needs them, and what a report will say of the keys."""

    block: bytes
    authentication: bytes
    id_key_digest: bytes
    author_key_digest: bytes


def sign(
    block: IdBlock, id_key: ec.EllipticCurvePrivateKey, author_key: ec.EllipticCurvePrivateKey
) -> Signed:
    """Both keys are P-384; signatures are new each time, as ECDSA draws a random number for each."""
    packed, id_public, author_public = block.pack(), _public(id_key), _public(author_key)
    auth = idblock.authentication(
        _signature(id_key, packed), id_public, _signature(author_key, id_public), author_public
    )
    return Signed(packed, auth, idblock.key_digest(id_public), idblock.key_digest(author_public))


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """A P-384 private key from PEM without a password."""
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT)
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as error:
        raise Malformed(f"{path} is no private key in PEM without a password: {error}", _MAKE) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise Malformed(f"{path} is no P-384 key, and the PSP knows no other", _MAKE)
    return key


def _public(key: ec.EllipticCurvePrivateKey) -> bytes:
    numbers = key.public_key().public_numbers()
    return idblock.public_key(numbers.x, numbers.y)


def _signature(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    return idblock.signature(*utils.decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA384()))))
