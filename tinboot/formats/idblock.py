"""The ID block: what its author expects of a launch, which the PSP checks before the guest starts.

It carries the launch digest, names and a version of the guest, and its policy; the launch fails where they
differ. Two keys vouch for it: the ID key signs the block, the author key signs the ID key. The report then
holds the SHA-384 of both keys, ID_KEY_DIGEST and AUTHOR_KEY_DIGEST.

AMD SEV-SNP Firmware ABI Specification (56860) 1.55: 8.18 (SNP_LAUNCH_FINISH), "Structure of the ID Block" and
"ID Authentication Information Structure"; keys and signatures: chapter 10, "ECDSA P-384 with SHA-384".
Numbers are little-endian.
"""

from __future__ import annotations

import hashlib
import struct
from typing import NamedTuple

SIZE, AUTH_SIZE = 96, 4096

_BLOCK = struct.Struct("<48s16s16sIIQ")  # digest, family, image, version of the format, guest's SVN, policy
_VERSION = 1

_NUMBER = 72  # bytes of a coordinate, and of each half of a signature
_KEY = struct.Struct(f"<I{_NUMBER}s{_NUMBER}s880x")
_SIGNATURE = struct.Struct(f"<{_NUMBER}s{_NUMBER}s368x")
_P384 = 2  # curve
_ECDSA_P384_SHA384 = 1  # algorithm

#: Algorithms of both keys, signature of the block, ID key, its signature, author key.
_AUTH = struct.Struct("<II56x512s1028s60x512s1028s892x")


class IdBlock(NamedTuple):
    """`digest`: 48 bytes. `family` and `image`: 16 bytes, the author's own. `svn` and `policy`: numbers."""

    digest: bytes
    policy: int
    family: bytes = bytes(16)
    image: bytes = bytes(16)
    svn: int = 0

    def pack(self) -> bytes:
        """The 96 bytes that the ID key signs."""
        if (len(self.digest), len(self.family), len(self.image)) != (48, 16, 16):
            raise ValueError("an ID block has a digest of 48 bytes, and a family and an image of 16")
        return _BLOCK.pack(self.digest, self.family, self.image, _VERSION, self.svn, self.policy)


def public_key(x: int, y: int) -> bytes:
    """A P-384 key as the PSP reads it, 1028 bytes."""
    return _KEY.pack(_P384, x.to_bytes(_NUMBER, "little"), y.to_bytes(_NUMBER, "little"))


def key_digest(key: bytes) -> bytes:
    """What the report says of a `public_key`: 48 bytes."""
    return hashlib.sha384(key).digest()


def signature(r: int, s: int) -> bytes:
    """A signature as the PSP reads it, 512 bytes."""
    return _SIGNATURE.pack(r.to_bytes(_NUMBER, "little"), s.to_bytes(_NUMBER, "little"))


def authentication(
    block_signature: bytes, id_key: bytes, id_key_signature: bytes, author_key: bytes
) -> bytes:
    """The ID authentication information, 4096 bytes, from `signature`s and `public_key`s."""
    algorithms = (_ECDSA_P384_SHA384, _ECDSA_P384_SHA384)
    return _AUTH.pack(*algorithms, block_signature, id_key, id_key_signature, author_key)
