"""HPKE (RFC 9180), base mode, the one suite that EHBP has, out of primitives that every image's library has.

    DHKEM(X25519, HKDF-SHA256)   0x0020   RFC 9180, 7.1
    HKDF-SHA256                  0x0001   RFC 9180, 7.2
    AES-256-GCM                  0x0002   RFC 9180, 7.3

Why not the library's own: docs/adr/0014-hpke-from-primitives.md. Base mode authenticates no sender.
"""

from __future__ import annotations

from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tinboot.formats.errors import Malformed, Mismatch

#: Bytes of a public, private or encapsulated key and of a shared secret (Npk, Nsk, Nenc, Nsecret).
KEY = 32

#: Nh, Nk, Nn and Nt.
_HASH, _AEAD_KEY, NONCE, TAG = 32, 32, 12, 16

#: RFC 9180, 4.1 and 5.1: what separates this suite's derivations from every other's.
_KEM = b"KEM" + (0x0020).to_bytes(2, "big")
_SUITE = b"HPKE" + b"".join(number.to_bytes(2, "big") for number in (0x0020, 0x0001, 0x0002))
_BASE = b"\x00"  # mode_base, RFC 9180, table 1

Buffer = bytes | bytearray | memoryview


class Encapsulated(NamedTuple):
    """What the sender of `key` and the holder of the private key share."""

    key: bytes
    shared_secret: bytes


class Sequence:
    """AES-256-GCM under one key, each message with the next nonce: base XOR number (RFC 9180, 5.2)."""

    __slots__ = ("_aead", "_base", "_next")

    def __init__(self, key: bytes, base_nonce: bytes) -> None:
        self._aead = AESGCM(key)
        self._base = int.from_bytes(base_nonce, "big")
        self._next = 0

    def seal(self, plaintext: Buffer, aad: bytes = b"") -> bytes:
        """The ciphertext, `TAG` bytes longer."""
        sealed = self._aead.encrypt(self._nonce(), plaintext, aad)
        self._next += 1
        return sealed

    def open(self, ciphertext: Buffer, aad: bytes = b"") -> bytes:
        """Raises `Mismatch` for what was not sealed as the next message; the number stays, then."""
        try:
            opened = self._aead.decrypt(self._nonce(), ciphertext, aad)
        except (
            InvalidTag,
            ValueError,
        ) as error:  # the latter: shorter than a tag
            raise Mismatch(f"message {self._next} was not sealed under this key") from error
        self._next += 1
        return opened

    def _nonce(self) -> bytes:
        if self._next >= (1 << 8 * NONCE) - 1:
            raise OverflowError("no nonce is left: MessageLimitReachedError of RFC 9180, 5.2")
        return (self._base ^ self._next).to_bytes(NONCE, "big")


class Context(Sequence):
    """Either end's, once it is set up. Both directions have one key, so an end either seals or opens."""

    __slots__ = ("_exporter_secret",)

    def __init__(self, shared_secret: bytes, info: bytes) -> None:
        """RFC 9180, 5.1: KeySchedule with the default psk and psk_id."""
        context = (
            _BASE
            + labeled_extract(_SUITE, b"", b"psk_id_hash", b"")
            + labeled_extract(_SUITE, b"", b"info_hash", info)
        )
        secret = labeled_extract(_SUITE, shared_secret, b"secret", b"")
        super().__init__(
            labeled_expand(_SUITE, secret, b"key", context, _AEAD_KEY),
            labeled_expand(_SUITE, secret, b"base_nonce", context, NONCE),
        )
        self._exporter_secret = labeled_expand(_SUITE, secret, b"exp", context, _HASH)

    def export(self, exporter_context: bytes, length: int) -> bytes:
        """A secret of `length` bytes that only the two ends know (RFC 9180, 5.3)."""
        return labeled_expand(_SUITE, self._exporter_secret, b"sec", exporter_context, length)


def sender(public: bytes, info: bytes, ephemeral: X25519PrivateKey | None = None) -> tuple[bytes, Context]:
    """SetupBaseS: the encapsulated key and the context that seals. `ephemeral` is for vectors alone.

    Raises `Malformed` for a public key that is none.
    """
    encapsulated = encapsulate(public, X25519PrivateKey.generate() if ephemeral is None else ephemeral)
    return encapsulated.key, Context(encapsulated.shared_secret, info)


def recipient(encapsulated: bytes, private: X25519PrivateKey, info: bytes) -> Context:
    """SetupBaseR: the context that opens. Raises `Malformed` for an encapsulated key that is none."""
    return Context(decapsulate(encapsulated, private), info)


def encapsulate(public: bytes, ephemeral: X25519PrivateKey) -> Encapsulated:
    """RFC 9180, 4.1: Encap."""
    key = raw(ephemeral.public_key())
    return Encapsulated(key, _shared(_exchange(ephemeral, public), key + public))


def decapsulate(encapsulated: bytes, private: X25519PrivateKey) -> bytes:
    """RFC 9180, 4.1: Decap."""
    return _shared(_exchange(private, encapsulated), encapsulated + raw(private.public_key()))


def raw(public: X25519PublicKey) -> bytes:
    """SerializePublicKey: RFC 9180, 7.1.1."""
    return public.public_bytes(Encoding.Raw, PublicFormat.Raw)


def _exchange(private: X25519PrivateKey, public: bytes) -> bytes:
    """RFC 9180, 7.1.4: either end refuses a key that makes every secret zero."""
    if len(public) != KEY:
        raise Malformed(f"an X25519 key of {len(public)} bytes, expected {KEY}")
    try:
        secret = private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:  # how the library says so
        secret = bytes(KEY)
    if secret == bytes(KEY):
        raise Malformed("an X25519 key of small order, with which there is no secret")
    return secret


def _shared(secret: bytes, context: bytes) -> bytes:
    """RFC 9180, 4.1: ExtractAndExpand."""
    extracted = labeled_extract(_KEM, b"", b"eae_prk", secret)
    return labeled_expand(_KEM, extracted, b"shared_secret", context, KEY)


def labeled_extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    """RFC 9180, 4."""
    return extract(salt, b"HPKE-v1" + suite + label + ikm)


def labeled_expand(suite: bytes, secret: bytes, label: bytes, info: bytes, length: int) -> bytes:
    """RFC 9180, 4."""
    return expand(secret, length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info, length)


def extract(salt: bytes, ikm: bytes) -> bytes:
    """HKDF-Extract (RFC 5869, 2.2)."""
    mac = HMAC(salt or bytes(_HASH), hashes.SHA256())
    mac.update(ikm)
    return mac.finalize()


def expand(secret: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand (RFC 5869, 2.3)."""
    return HKDFExpand(hashes.SHA256(), length, info).derive(secret)
