"""The root's disk: refused by name before the kernel reads it, or a panic at the first bad block."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from arguments import Disk
from hostile_disks import Append, Flip, Resize, Write
from readers import LATE_READER, READ_EVERYTHING
from serial_log import Outcome

from tinboot.builder import hashtree
from tinboot.formats import verity
from tinboot.formats.verity import BLOCK

if TYPE_CHECKING:
    from guest import Guest

Copy = Callable[..., Path]

#: struct verity_sb (cryptsetup, lib/verity/verity.c): field -> offset in the superblock and a lie.
SUPERBLOCK_LIES = {
    "signature": (0, b"ytirev\0\0"),
    "version": (8, b"\xff\xff\xff\xff"),
    "hash type": (12, b"\0\0\0\0"),
    "uuid": (16, bytes(16)),
    "algorithm": (32, b"md5".ljust(32, b"\0")),
    "data block size": (64, (512).to_bytes(4, "little")),
    "hash block size": (68, (512).to_bytes(4, "little")),
    "data blocks": (72, (1).to_bytes(8, "little")),
    "salt size": (80, (1).to_bytes(2, "little")),
    "salt": (88, b"\xff" * 32),
}


def test_boots_and_reads_whole(guest: Guest) -> None:
    """The positive control of every flip below: the same reader gets every byte of good disks."""
    result = guest.with_hook("35-read", READ_EVERYTHING).hands_over()
    root = guest.image.verity.blocks * BLOCK
    assert f"read root {root}" in result.text()
    for volume in guest.volumes:
        name = f"volume-{verity.serial_for(volume.ref.root_hash)}"
        assert f"read {name} {volume.ref.hash_offset}" in result.text()


def test_no_root_disk(guest: Guest) -> None:
    guest.boot(disks=[d for d in guest.disks if d != guest.root]).expect_halt("root-missing", hook="20-root")


def test_two_root_disks(guest: Guest) -> None:
    guest.boot(disks=[*guest.disks, guest.root]).expect_halt("root-duplicate", hook="20-root")


def test_another_serial(guest: Guest) -> None:
    disks = [Disk(d.path, "0" * 20) if d == guest.root else d for d in guest.disks]
    guest.boot(disks=disks).expect_halt("root-missing", hook="20-root")


def test_writable(guest: Guest, copy: Copy) -> None:
    writable = Disk(copy(guest.root.path), guest.root.serial, read_only=False)
    disks = [writable if d == guest.root else d for d in guest.disks]
    guest.boot(disks=disks).expect_halt("root-writable", hook="20-root")


@pytest.mark.parametrize(
    "change",
    [Resize(-BLOCK), Resize(-512), Resize(BLOCK), Append(b"more".ljust(512, b"\0"))],
    ids=["tree truncated", "a sector short", "a block longer", "bytes behind"],
)
def test_length(guest: Guest, copy: Copy, change: Resize | Append) -> None:
    changed = guest.with_root(copy(guest.root.path, change))
    changed.boot().expect_halt("root-size", hook="20-root")


def test_wrong_root_hash(guest: Guest) -> None:
    """Of the same first 20 digits, so that the disk is found."""
    other = guest.line.root_hash[:-1] + ("0" if guest.line.root_hash[-1] != "0" else "1")
    line = guest.cmdline.replace(guest.line.root_hash, other)
    guest.boot(line).expect_halt("root-hash-mismatch", hook="20-root")


def test_wrong_salt(guest: Guest) -> None:
    line = guest.cmdline.replace(guest.line.root_salt, "0" * 64)
    guest.boot(line).expect_halt("root-hash-mismatch", hook="20-root")


@pytest.mark.parametrize("by", [-1, 1, -128, 128])
def test_wrong_block_count(guest: Guest, by: int) -> None:
    """The kernel alone would open a table of fewer blocks over the same tree."""
    line = guest.cmdline.replace(
        f"root-blocks={guest.line.root_blocks}", f"root-blocks={guest.line.root_blocks + by}"
    )
    guest.boot(line).expect_halt("root-size", hook="20-root")


def test_wrong_block_count_and_a_disk_to_match(guest: Guest, disk_dir: Path) -> None:
    """One block less, with the same tree behind it: root hash, salt and length hold, the count does not."""
    blocks = guest.line.root_blocks
    data = guest.root.path.read_bytes()
    assert verity.level_sizes(blocks) == verity.level_sizes(blocks - 1), "choose another count"
    moved = disk_dir / "moved"
    moved.write_bytes(data[: (blocks - 1) * BLOCK] + data[blocks * BLOCK :])
    line = guest.cmdline.replace(f"root-blocks={blocks}", f"root-blocks={blocks - 1}")
    guest.with_root(moved).boot(line).expect_halt("root-block-count", hook="20-root")


@pytest.mark.parametrize(
    ("where", "reason"),
    [("top of the tree", "root-hash-mismatch"), ("first data block", "root-data-mismatch")],
)
def test_one_bit_that_the_hook_reads(guest: Guest, copy: Copy, where: str, reason: str) -> None:
    blocks = guest.line.root_blocks
    offset = (blocks + 1) * BLOCK if where == "top of the tree" else 1024
    changed = guest.with_root(copy(guest.root.path, Flip(offset)))
    changed.boot().expect_halt(reason, hook="20-root")


def test_another_valid_image(guest: Guest, copy: Copy) -> None:
    """A root of the same size that would open with a root hash of its own."""
    other = copy(guest.root.path, Resize(-guest.root.path.stat().st_size + guest.line.root_blocks * BLOCK))
    made = hashtree.append_tree(other, "00" * 32, "00000000-0000-0000-0000-000000000000")
    assert made.root_hash != guest.line.root_hash
    guest.with_root(other).boot().expect_halt("root-hash-mismatch", hook="20-root")


@pytest.mark.parametrize("field", SUPERBLOCK_LIES)
def test_superblock_that_lies_changes_nothing(guest: Guest, copy: Copy, field: str) -> None:
    offset, lie = SUPERBLOCK_LIES[field]
    at = guest.line.root_blocks * BLOCK + offset
    assert guest.root.path.read_bytes()[at : at + len(lie)] != lie
    guest.with_root(copy(guest.root.path, Write(at, lie))).hands_over()


def unread_block(guest: Guest, where: str) -> int:
    """A byte that the boot does not read on its way to the reader."""
    blocks = guest.line.root_blocks
    leaves = verity.level_starts(blocks)[0]
    return {
        "middle data block": blocks // 2 * BLOCK + 99,
        "last data block": blocks * BLOCK - 1,
        "leaf of the tree": (leaves + verity.level_sizes(blocks)[0] // 2) * BLOCK + 7,
    }[where]


@pytest.mark.parametrize("where", ["middle data block", "last data block", "leaf of the tree"])
def test_one_bit_that_the_boot_does_not_read(guest: Guest, copy: Copy, where: str) -> None:
    """The hook refuses nothing; whoever reads the block never gets its data, nor an error to ignore."""
    changed = guest.with_root(copy(guest.root.path, Flip(unread_block(guest, where))))
    result = changed.with_hook("35-read", READ_EVERYTHING).boot()
    result.expect_panic("dm-verity device corrupted")
    assert "read root" not in result.text()


def test_one_bit_after_hand_over(guest: Guest, copy: Copy) -> None:
    """The disk changes under a machine that is up: the next read of the block ends it."""
    from boot import finish

    root = copy(guest.root.path)
    changed = guest.with_root(root).with_hook("35-late", LATE_READER)
    offset = unread_block(guest, "last data block")
    with changed.machine() as machine:
        event = machine.wait(180)
        assert event.outcome is Outcome.UP, event
        Flip(offset).apply(root)
        result = finish(machine, machine.wait(60))
    result.expect_panic("dm-verity device corrupted", after_up=True)
