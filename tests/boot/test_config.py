"""The config's disk: nothing is parsed before its hash is right, and nothing but plain YAML after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from arguments import Disk
from hostile_disks import Append, Flip, Write, from_bytes

from tinboot.formats import configdisk

if TYPE_CHECKING:
    from guest import Guest

BASE = b"cvm-version: 0.1.0\ncpus: 1\nmemory: 1024\n"
SHIM = b"shim:\n  upstream-port: 8080\n"

Copy = Callable[..., Path]


def with_disk(guest: Guest, path: Path) -> list[Disk]:
    return [Disk(path, configdisk.SERIAL), *guest.disks[1:]]


def test_no_config_disk(guest: Guest) -> None:
    guest.boot(disks=guest.disks[1:]).expect_halt("config-missing", hook="10-config")


def test_no_disk_at_all(guest: Guest) -> None:
    guest.boot(disks=[]).expect_halt("config-missing", hook="10-config")


def test_two_config_disks(guest: Guest) -> None:
    guest.boot(disks=[guest.disks[0], *guest.disks]).expect_halt("config-duplicate", hook="10-config")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (bytes(512), "config-empty"),
        (b"", "config-empty"),
        (b"#" * (configdisk.LIMIT + 512), "config-too-large"),
    ],
    ids=["zeros", "no sector", "over 1 MiB"],
)
def test_size(guest: Guest, disk_dir: Path, content: bytes, reason: str) -> None:
    path = from_bytes(content, disk_dir)
    guest.boot(disks=with_disk(guest, path)).expect_halt(reason, hook="10-config")


@pytest.mark.parametrize("offset", [0, 40, -1], ids=["first byte", "in the middle", "padding"])
def test_one_bit_off(guest: Guest, copy: Copy, offset: int) -> None:
    """A bit in the config changes its hash; a bit in the padding is not padding any more."""
    reason = "config-padding" if offset < 0 else "config-hash-mismatch"
    path = copy(guest.config_disk.path, Flip(offset))
    guest.boot(disks=with_disk(guest, path)).expect_halt(reason, hook="10-config")


def test_nul_inside(guest: Guest, copy: Copy) -> None:
    path = copy(guest.config_disk.path, Write(30, b"\0"))
    guest.boot(disks=with_disk(guest, path)).expect_halt("config-padding", hook="10-config")


@pytest.mark.parametrize("more", [bytes(512), b"more".ljust(512, b"\0")], ids=["zeros", "bytes"])
def test_more_behind_the_padding(guest: Guest, copy: Copy, more: bytes) -> None:
    path = copy(guest.config_disk.path, Append(more))
    guest.boot(disks=with_disk(guest, path)).expect_halt("config-padding", hook="10-config")


def test_swapped_for_another_valid_config(guest: Guest, disk_dir: Path) -> None:
    other = guest.with_config(BASE + SHIM, disk_dir)
    disks = [other.config_disk, *guest.disks[1:]]
    guest.boot(disks=disks).expect_halt("config-hash-mismatch", hook="10-config")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (BASE + b"cpus: 2\n" + SHIM, "config-malformed"),
        (BASE + b"cpuz: 2\n" + SHIM, "config-unknown-key"),
        (b"x: &a 1\n" + BASE + b"y: *a\n" + SHIM, "config-malformed"),
        (BASE + SHIM + b"---\n" + BASE + SHIM, "config-malformed"),
        (BASE + b"models: " + b"[" * 100 + b"]" * 100 + b"\n" + SHIM, "config-too-complex"),
        (BASE + b"# \xff\xfe\n" + SHIM, "config-not-utf8"),
        (BASE + b"models: []\nmemory: !!int 1024\n" + SHIM, "config-malformed"),
        (b"cpus: yes\nmemory: 1024\n" + SHIM, "config-invalid"),
    ],
    ids=[
        "duplicate key",
        "unknown key",
        "alias",
        "second document",
        "deep nesting",
        "not UTF-8",
        "tag",
        "wrong type",
    ],
)
def test_attested_but_not_acceptable(guest: Guest, disk_dir: Path, config: bytes, reason: str) -> None:
    """Its hash is right: the operator attested to something that must not run."""
    changed = guest.with_config(config, disk_dir)
    changed.boot().expect_halt(reason, hook="10-config")


def test_memory_too_small(guest: Guest, disk_dir: Path) -> None:
    changed = guest.with_config(guest.config.replace(b"memory: 1024", b"memory: 2048"), disk_dir)
    changed.boot(memory=1024).expect_halt("memory-too-small", hook="10-config")
