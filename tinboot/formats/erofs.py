"""The few EROFS superblock fields that bind a file system to its place.

Offsets from the kernel's fs/erofs/erofs_fs.h, `struct erofs_super_block`, at byte 1024 of the device.
Parsed only from a block that dm-verity's tree has vouched for.
"""

from __future__ import annotations

from typing import NamedTuple

OFFSET = 1024
MAGIC = 0xE0F5E1E2


class Superblock(NamedTuple):
    """`blocks` of `1 << block_bits` bytes; `uuid` in lower-case 8-4-4-4-12 form."""

    block_bits: int
    blocks: int
    uuid: str


def parse_superblock(block: bytes) -> Superblock:
    """From the device's first 4096 bytes; raises ValueError if there is no EROFS in it."""
    if len(block) < OFFSET + 128:
        raise ValueError(f"{len(block)} bytes are too few for an EROFS superblock at {OFFSET}")
    sb = block[OFFSET : OFFSET + 128]
    magic = int.from_bytes(sb[0:4], "little")
    if magic != MAGIC:
        raise ValueError(f"EROFS magic is {magic:#010x}, not {MAGIC:#010x}")
    uuid = sb[48:64].hex()
    return Superblock(
        block_bits=sb[12],
        blocks=int.from_bytes(sb[36:40], "little"),
        uuid="-".join((uuid[:8], uuid[8:12], uuid[12:16], uuid[16:20], uuid[20:])),
    )
