"""dm-verity as tinboot uses it: SHA-256, salted, 4096-byte blocks, data and tree in one file.

    | data blocks | superblock (one block) | hash tree, top level first |

The layout is `veritysetup format --hash-offset=<data bytes> FILE FILE` (cryptsetup, format version
1; kernel: Documentation/admin-guide/device-mapper/verity.rst). The superblock is written so that
other tools can read the file and is never read by tinboot: it is under the host's control.
"""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

BLOCK = 4096
DIGEST = 32
PER_BLOCK = BLOCK // DIGEST
SECTOR = 512

#: virtio-blk serials hold 20 bytes (VIRTIO_BLK_ID_BYTES); a disk is found by this much of its root hash.
SERIAL_DIGITS = 20


class Verity(NamedTuple):
    """What opens one device. `root_hash` and `salt` in lower-case hex, `blocks` of data."""

    root_hash: str
    salt: str
    blocks: int


class VolumeRef(NamedTuple):
    """`<roothash>_<hashoffset>_<uuid>`: how a config names a volume (Tinfoil's `mpk`)."""

    root_hash: str
    hash_offset: int
    uuid: str

    def __str__(self) -> str:
        return f"{self.root_hash}_{self.hash_offset}_{self.uuid}"


def parse_volume_ref(text: str) -> VolumeRef:
    """Raises ValueError, naming the part, unless `text` is canonical: `str(parse(x)) == x`."""
    parts = text.split("_")
    if len(parts) != 3:
        raise ValueError("expected <roothash>_<hashoffset>_<uuid>")
    root_hash, offset, uuid = parts
    if len(root_hash) != 64 or not _is_hex(root_hash):
        raise ValueError(f"the root hash {root_hash[:80]!a} is not 64 lower-case hex digits")
    if not (offset.isascii() and offset.isdigit() and offset[0] != "0" and len(offset) <= 16):
        raise ValueError(f"the hash offset {offset[:80]!a} is not a positive decimal number")
    if int(offset) % BLOCK:
        raise ValueError(f"the hash offset {offset} is not a multiple of {BLOCK}")
    groups = uuid.split("-")
    if [len(g) for g in groups] != [8, 4, 4, 4, 12] or not _is_hex("".join(groups)):
        raise ValueError(f"the UUID {uuid[:80]!a} is not in lower-case 8-4-4-4-12 form")
    return VolumeRef(root_hash, int(offset), uuid)


def _is_hex(text: str) -> bool:
    return all(c in "0123456789abcdef" for c in text)


def salt_for(identity: str) -> str:
    """The salt of a volume or a root: SHA-256 of its identity (a model's `name@revision`), in hex."""
    return sha256(identity.encode()).hexdigest()


def serial_for(root_hash: str) -> str:
    """The virtio serial of the disk that should carry `root_hash`: a hint, never a proof."""
    return root_hash[:SERIAL_DIGITS]


def level_sizes(blocks: int) -> list[int]:
    """Blocks of each tree level, from the leaves up; empty for a single data block."""
    sizes = []
    while blocks > 1:
        blocks = -(-blocks // PER_BLOCK)
        sizes.append(blocks)
    return sizes


def level_starts(blocks: int) -> list[int]:
    """First block in the file of each level, from the leaves up: the top lies behind the superblock."""
    sizes = level_sizes(blocks)
    return [blocks + 1 + sum(sizes[level + 1 :]) for level in range(len(sizes))]


def file_blocks(blocks: int) -> int:
    """Blocks of the whole file: data, superblock, tree."""
    return blocks + 1 + sum(level_sizes(blocks))


def block_digest(salt: bytes, block: bytes) -> bytes:
    """Digest of one data or tree block (format version 1: salt first)."""
    return sha256(salt + block).digest()


def superblock(verity: Verity, uuid: bytes) -> bytes:
    """The 512-byte superblock, padded to its block (cryptsetup lib/verity/verity.c, struct verity_sb)."""
    salt = bytes.fromhex(verity.salt)
    head = (
        b"verity\0\0"
        + (1).to_bytes(4, "little")  # superblock version
        + (1).to_bytes(4, "little")  # hash type: 1 is "normal", salt in front
        + uuid
        + b"sha256".ljust(32, b"\0")
        + BLOCK.to_bytes(4, "little")
        + BLOCK.to_bytes(4, "little")
        + verity.blocks.to_bytes(8, "little")
        + len(salt).to_bytes(2, "little")
        + bytes(6)
        + salt.ljust(256, b"\0")
    )
    return head.ljust(BLOCK, b"\0")


def table(verity: Verity, device: str) -> str:
    """Target parameters for the kernel: one file as data and hash device, any corruption panics."""
    return (
        f"1 {device} {device} {BLOCK} {BLOCK} {verity.blocks} {verity.blocks + 1} sha256 "
        f"{verity.root_hash} {verity.salt} 2 panic_on_corruption panic_on_error"
    )
