"""HPKE, held to the vectors that RFC 9180 points to, and to the library's own where it has the same."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from hypothesis import given
from hypothesis import strategies as st

from tinboot.ehbp import hpke
from tinboot.formats.errors import Malformed, Mismatch

H = bytes.fromhex

#: RFC 9180, appendix A: its introduction points to a file with every suite; these are mode 0, KEM 0x20,
#: KDF 1, AEAD 2. The appendix itself prints this KEM and KDF with other AEADs (A.1, A.2).
INFO = H("4f6465206f6e2061204772656369616e2055726e")  # "Ode on a Grecian Urn"
EPHEMERAL = H("179d4b53b6365c45b600c4163b61d95cbc2f4d9e36f1695558dce265ab8bab11")
ENCAPSULATED = H("6c93e09869df3402d7bf231bf540fadd35cd56be14f97178f0954db94b7fc256")
PRIVATE = H("497b4502664cfea5d5af0b39934dac72242a74f8480451e1aee7d6a53320333d")
PUBLIC = H("430f4b9859665145a6b1ba274024487bd66f03a2dd577d7753c68d7d7d00c00c")
SHARED = H("3101c54c3a4f87439eaac080699ed9bbcc726ffe44e860c0424ccb7e3e2ead7b")
PLAINTEXT = b"Beauty is truth, truth beauty"
FIRST = H("e5d84cd531cfb583096e7cfa9641bd3079cf3a91cda813c52deb5f512be9931980a41de125a925cdad859d5b7a")
EXPORTED = {
    b"": H("ded6cffafaea6b812cbf3e241e88332adbc077aca81512914213810ee291770a"),
    b"\x00": H("04d3cb6cc116b28ffd22ad5bc276c60d31fec71ceb87ae24db811c64b7507339"),
    b"TestContext": H("7c5ded445732c14fe09727d29b4251c0fd38455fe8440571e687f0886aac94d2"),
}

#: RFC 9180, A.1.1: KEM and KDF are ours, so the shared secret is derived as ours is, from other keys.
A1_EPHEMERAL = H("52c4a758a802cd8b936eceea314432798d5baf2d7e9235dc084ab1b9cfa2f736")
A1_ENCAPSULATED = H("37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431")
A1_PUBLIC = H("3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d")
A1_SHARED = H("fe0e18c9f024ce43799ae393c7e8fe8fce9d218875e8227b0187c04e7d2ea1fc")

#: Points of small order: RFC 7748, 6.1 and the list that draws on; 0, 1, two of order 8, p - 1, p, p + 1.
SMALL = (
    bytes(32),
    b"\x01" + bytes(31),
    H("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    H("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    H("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    H("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    H("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
)

SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def key(raw: bytes = PRIVATE) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(raw)


def ends(info: bytes = INFO) -> tuple[hpke.Context, hpke.Context]:
    encapsulated, sealing = hpke.sender(PUBLIC, info, key(EPHEMERAL))
    return sealing, hpke.recipient(encapsulated, key(), info)


def test_the_vectors_setup() -> None:
    assert hpke.raw(key().public_key()) == PUBLIC
    assert hpke.encapsulate(PUBLIC, key(EPHEMERAL)) == (ENCAPSULATED, SHARED)
    assert hpke.decapsulate(ENCAPSULATED, key()) == SHARED
    assert hpke.sender(PUBLIC, INFO, key(EPHEMERAL))[0] == ENCAPSULATED


def test_the_appendix_shared_secret() -> None:
    assert hpke.encapsulate(A1_PUBLIC, key(A1_EPHEMERAL)) == (A1_ENCAPSULATED, A1_SHARED)


def test_the_vectors_first_message_from_either_end() -> None:
    sealing, opening = ends()
    assert sealing.seal(PLAINTEXT, b"Count-0") == FIRST
    assert opening.open(FIRST, b"Count-0") == PLAINTEXT


@pytest.mark.parametrize(("context", "secret"), EXPORTED.items())
def test_the_vectors_exports_from_either_end(context: bytes, secret: bytes) -> None:
    for end in ends():
        assert end.export(context, 32) == secret


@given(info=st.binary(max_size=64), plaintext=st.binary(max_size=2000))
def test_the_library_opens_what_is_sealed_here(info: bytes, plaintext: bytes) -> None:
    encapsulated, sealing = hpke.sender(PUBLIC, info)
    assert SUITE.decrypt(encapsulated + sealing.seal(plaintext), key(), info) == plaintext


@given(info=st.binary(max_size=64), plaintext=st.binary(max_size=2000))
def test_what_the_library_seals_is_opened_here(info: bytes, plaintext: bytes) -> None:
    sealed = SUITE.encrypt(plaintext, X25519PublicKey.from_public_bytes(PUBLIC), info)
    assert hpke.recipient(sealed[:32], key(), info).open(sealed[32:]) == plaintext


@given(st.lists(st.binary(max_size=100), max_size=300))
def test_messages_follow_one_another(messages: list[bytes]) -> None:
    sealing, opening = ends()
    assert [opening.open(sealing.seal(message)) for message in messages] == messages


def test_each_message_has_a_nonce_of_its_own() -> None:
    sealing, opening = ends()
    sealed = [sealing.seal(b"the same") for _ in range(300)]
    assert len(set(sealed)) == 300
    with pytest.raises(Mismatch, match="message 0 was not sealed"):
        opening.open(sealed[1])
    assert opening.open(sealed[0]) == b"the same"  # what failed took no number
    with pytest.raises(Mismatch, match="message 1 was not sealed"):
        opening.open(sealed[0])


@given(st.binary(max_size=200))
def test_nothing_else_opens(data: bytes) -> None:
    with pytest.raises(Mismatch, match="was not sealed under this key"):
        ends()[1].open(data)


@given(at=st.integers(0, len(FIRST) * 8 - 1))
def test_every_bit_counts(at: int) -> None:
    altered = bytearray(FIRST)
    altered[at // 8] ^= 1 << at % 8
    with pytest.raises(Mismatch):
        ends()[1].open(bytes(altered), b"Count-0")


def test_info_aad_and_keys_count() -> None:
    sealed = ends()[0].seal(b"x", b"aad")
    with pytest.raises(Mismatch):
        ends(b"another")[1].open(sealed, b"aad")
    with pytest.raises(Mismatch):
        ends()[1].open(sealed, b"another")
    with pytest.raises(Mismatch):
        hpke.recipient(ENCAPSULATED, X25519PrivateKey.generate(), INFO).open(sealed, b"aad")
    with pytest.raises(Mismatch):
        hpke.recipient(PUBLIC, key(), INFO).open(sealed, b"aad")


@pytest.mark.parametrize("point", SMALL, ids=bytes.hex)
def test_no_secret_that_is_zero(point: bytes) -> None:
    with pytest.raises(Malformed, match="small order"):
        hpke.sender(point, INFO)
    with pytest.raises(Malformed, match="small order"):
        hpke.recipient(point, key(), INFO)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_no_key_of_another_length(length: int) -> None:
    with pytest.raises(Malformed, match=f"of {length} bytes, expected 32"):
        hpke.sender(bytes(length), INFO)
    with pytest.raises(Malformed, match=f"of {length} bytes, expected 32"):
        hpke.recipient(bytes(length), key(), INFO)


def test_nonces_come_to_an_end() -> None:
    sealing, opening = ends()
    for end in (sealing, opening):
        end._next = (1 << 96) - 1
    with pytest.raises(OverflowError, match="no nonce is left"):
        sealing.seal(b"")
    with pytest.raises(OverflowError, match="no nonce is left"):
        opening.open(bytes(16))


@pytest.mark.parametrize("aead", [AEAD.AES_128_GCM, AEAD.CHACHA20_POLY1305], ids=str)
def test_no_other_suite_opens(aead: AEAD) -> None:
    public = X25519PublicKey.from_public_bytes(PUBLIC)
    sealed = Suite(KEM.X25519, KDF.HKDF_SHA256, aead).encrypt(b"x", public, INFO)
    with pytest.raises(Mismatch):
        hpke.recipient(sealed[:32], key(), INFO).open(sealed[32:])
