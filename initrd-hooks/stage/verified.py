"""A dm-verity device whose first block Python has verified before the kernel sees the disk.

The kernel panics on the first corrupt block; that is right after hand-over and useless as a message.
So what can be told by name is told here first: the disk's form, the tree's top block, and the path
from it down to data block 0, which holds the file system's superblock. The on-disk verity superblock
is never read. The root hash does not bind the number of blocks: the verified file system's own count
does, together with the disk's exact length.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from stage import devmapper
from stage.disks import Disk, pread
from stage.kernel import MS_NODEV, MS_NOSUID, MS_RDONLY, Kernel
from tinboot.formats import erofs
from tinboot.formats import verity as form
from tinboot.formats.halt import Refusal
from tinboot.formats.verity import BLOCK, Verity

_BLOCK_BITS = 12  # EROFS blocks of 4096 bytes, as verity's
_READ_ONLY_MOUNT = MS_RDONLY | MS_NODEV | MS_NOSUID


class Checked(NamedTuple):
    """A disk whose first block hashed up to the root hash: `check` makes it. `kind` is root or volume."""

    disk: Disk
    verity: Verity
    kind: str
    block: bytes
    superblock: erofs.Superblock


def check(disk: Disk, verity: Verity, kind: str) -> Checked:
    """Reads the disk in Python: its form, the path from the tree's top to block 0, the file system's size.

    Refusals: <kind>-writable, -size, -hash-mismatch, -data-mismatch, -mount (no EROFS), -block-count.
    """
    if not disk.read_only:
        raise Refusal(f"{kind}-writable", f"{disk.name} is writable; attach it read-only")
    blocks = verity.blocks
    length = form.file_blocks(blocks) * BLOCK
    if disk.size != length:
        raise Refusal(f"{kind}-size", f"{disk.name} has {disk.size} bytes, {blocks} blocks make it {length}")
    block = _verified_block(disk, verity, kind)
    try:
        superblock = erofs.parse_superblock(block)
    except ValueError as error:
        raise Refusal(f"{kind}-mount", f"{disk.name}: {error}") from None
    if (superblock.blocks, superblock.block_bits) != (blocks, _BLOCK_BITS):
        size = f"{superblock.blocks} blocks of 2^{superblock.block_bits} bytes"
        raise Refusal(f"{kind}-block-count", f"{disk.name} holds {size}, attested are {blocks} of 2^12")
    return Checked(disk, verity, kind, block, superblock)


def _verified_block(disk: Disk, verity: Verity, kind: str) -> bytes:
    """Data block 0, hashed up to the root hash: from the tree's top down, the first entry of each level."""
    salt = bytes.fromhex(verity.salt)
    expected = bytes.fromhex(verity.root_hash)
    reason = f"{kind}-hash-mismatch"
    block = b""
    for start in [*reversed(form.level_starts(verity.blocks)), 0]:
        block = pread(disk, BLOCK, start * BLOCK)
        digest = form.block_digest(salt, block)
        if digest != expected:
            wrong = f"block {start} of {disk.name} hashes to {digest.hex()}, not {expected.hex()}"
            raise Refusal(reason, wrong)
        expected, reason = block[: form.DIGEST], f"{kind}-data-mismatch"
    return block


def open_device(kernel: Kernel, dev: str, name: str, checked: Checked) -> str:
    """Makes the device-mapper device `name`, reads it back, returns its node's path.

    Refusal: <kind>-verity.
    """
    disk, verity, kind, block, _ = checked
    node = f"{dev}/mapper/{name}"
    sectors = verity.blocks * BLOCK // form.SECTOR
    parameters = form.table(verity, disk.number)
    mapper = devmapper.Mapper(kernel.ioctl, f"{dev}/mapper/control")
    try:
        device = mapper.create(name)
        mapper.load(name, sectors, "verity", parameters)
        mapper.resume(name)
        kernel.block_node(node, device)
        first = pread(disk._replace(node=node), BLOCK, 0)
        table, state = mapper.table(name), mapper.state(name)
    except (OSError, ValueError) as error:
        raise Refusal(f"{kind}-verity", f"{name} on {disk.name}: {error}") from None
    wanted = devmapper.Target(devmapper.READ_ONLY | devmapper.ACTIVE, 0, sectors, "verity", parameters)
    if table != wanted:
        raise Refusal(f"{kind}-verity", f"{name} reads back as {table}, not {wanted}")
    if state.text.split()[:1] != ["V"] or first != block:
        raise Refusal(f"{kind}-verity", f"{name} is in state {state.text!a} or gives another first block")
    return node


def mount(kernel: Kernel, node: str, target: str, kind: str, extra: int = 0) -> None:
    """Mounts the EROFS at `node` ro,nodev,nosuid and what `extra` adds. Refusal: <kind>-mount."""
    try:
        os.makedirs(target, exist_ok=True)
        kernel.mount(node, target, "erofs", _READ_ONLY_MOUNT | extra)
    except OSError as error:
        raise Refusal(f"{kind}-mount", f"{node} on {target}: {error}") from None
