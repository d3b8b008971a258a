"""The ID block's layout against sev-snp-measure's, and the signatures in it."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from hypothesis import given
from hypothesis import strategies as st
from sevsnpmeasure import id_block

from tinboot.builder import idblock_sign
from tinboot.formats import idblock, launchspec
from tinboot.formats.errors import Malformed, Unavailable
from tinboot.formats.idblock import IdBlock

BLOCK = IdBlock(bytes(range(48)), launchspec.DEFAULT_POLICY)
NUMBERS = st.integers(0, (1 << 384) - 1)


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    paths = (tmp_path / "id.pem", tmp_path / "author.pem")
    for path in paths:
        key = ec.generate_private_key(ec.SECP384R1())
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    return paths


def test_sizes() -> None:
    assert len(BLOCK.pack()) == idblock.SIZE == 96
    key, signature = idblock.public_key(1, 2), idblock.signature(3, 4)
    assert (len(key), len(signature)) == (1028, 512)
    assert len(idblock.authentication(signature, key, signature, key)) == idblock.AUTH_SIZE


def test_block_keys_and_offsets_are_sev_snp_measures(keys: tuple[Path, Path]) -> None:
    text = id_block.snp_calc_id_block(BLOCK.digest, *map(str, keys))
    parts = dict(re.findall(r"([a-z_-]+)[=:] ?([A-Za-z0-9+/]+=*)", text))
    theirs_block, theirs = (base64.b64decode(parts[name]) for name in ("id-block", "id-auth"))
    signed = idblock_sign.sign(BLOCK, *map(idblock_sign.load_key, keys))
    assert signed.block == theirs_block
    assert base64.b64encode(signed.id_key_digest).decode() == parts["id_key_hash"]
    assert base64.b64encode(signed.author_key_digest).decode() == parts["author_key"]
    ours = bytearray(signed.authentication)
    for start in (0x40, 0x680):  # the signatures: another random number each time
        ours[start : start + 144] = theirs[start : start + 144]
    assert bytes(ours) == theirs


def test_signatures_hold(keys: tuple[Path, Path]) -> None:
    id_key, author_key = map(idblock_sign.load_key, keys)
    signed = idblock_sign.sign(BLOCK, id_key, author_key)

    def signature(at: int) -> bytes:
        numbers = (signed.authentication[at + start : at + start + 72] for start in (0, 72))
        return utils.encode_dss_signature(*(int.from_bytes(number, "little") for number in numbers))

    algorithm = ec.ECDSA(hashes.SHA384())
    id_key.public_key().verify(signature(0x40), signed.block, algorithm)
    author_key.public_key().verify(signature(0x680), signed.authentication[0x240 : 0x240 + 1028], algorithm)


@given(
    st.builds(
        IdBlock,
        st.binary(min_size=48, max_size=48),
        st.integers(0, (1 << 64) - 1),
        st.binary(min_size=16, max_size=16),
        st.binary(min_size=16, max_size=16),
        st.integers(0, (1 << 32) - 1),
    )
)
def test_each_field_stands_at_its_offset(block: IdBlock) -> None:
    """Written out, not taken from the code: sev-snp-measure leaves most of them at their defaults."""
    data = block.pack()
    numbers = [int.from_bytes(data[start:end], "little") for start, end in ((80, 84), (84, 88), (88, 96))]
    assert (data[:48], data[48:64], data[64:80]) == (block.digest, block.family, block.image)
    assert numbers == [1, block.svn, block.policy]


@pytest.mark.parametrize(
    "block",
    [BLOCK._replace(digest=b""), BLOCK._replace(family=bytes(15)), BLOCK._replace(image=bytes(17))],
)
def test_wrong_sizes_are_not_packed(block: IdBlock) -> None:
    with pytest.raises(ValueError, match="an ID block has a digest"):
        block.pack()


def test_keys_that_the_psp_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="No such file"):
        idblock_sign.load_key(tmp_path / "none")
    (tmp_path / "text").write_text("no key")
    with pytest.raises(Malformed, match="is no private key in PEM"):
        idblock_sign.load_key(tmp_path / "text")
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "p256").write_bytes(other)
    with pytest.raises(Malformed, match="is no P-384 key"):
        idblock_sign.load_key(tmp_path / "p256")
