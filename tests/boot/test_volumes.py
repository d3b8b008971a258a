"""Volumes: exactly those that the config names, and no disk beyond them."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from arguments import Disk
from guest import Wrapped, make_config, make_guest, make_volume
from hostile_disks import Flip, Resize, from_bytes
from oci_layouts import Layout, folder, member, tar
from readers import READ_EVERYTHING

from tinboot.builder import oci_wrap
from tinboot.formats.verity import BLOCK, VolumeRef, file_blocks, level_starts

if TYPE_CHECKING:
    from guest import Guest

Copy = Callable[..., Path]


def other_disk(guest: Guest, volume: Wrapped, path: Path) -> list[Disk]:
    """`path` in the place of `volume`, under its serial."""
    return [Disk(path, volume.disk.serial) if d == volume.disk else d for d in guest.disks]


def test_all_there(guest: Guest) -> None:
    up = guest.boot().expect_up()
    boot = up["boot"]
    assert isinstance(boot, dict)
    found = {hook["hook"]: hook["found"] for hook in boot["hooks"]}
    volumes = {volume.name: volume.ref.root_hash for volume in guest.volumes}
    assert found["30-volumes"] == {"images": {}, "volumes": volumes}


def test_order_of_the_disks_does_not_matter(guest: Guest) -> None:
    guest.hands_over(disks=list(reversed(guest.disks)))


def test_one_missing(guest: Guest) -> None:
    guest.boot(disks=guest.disks[:-1]).expect_halt("volume-missing", hook="30-volumes")


@pytest.mark.parametrize("serial", ["", "another-disk"])
def test_an_extra_disk(guest: Guest, disk_dir: Path, serial: str) -> None:
    extra = Disk(from_bytes(bytes(4096), disk_dir, "extra"), serial)
    guest.boot(disks=[*guest.disks, extra]).expect_halt("disk-unexpected", hook="30-volumes")


def test_a_volume_that_the_config_does_not_name(guest: Guest, tmp_path: Path) -> None:
    third = make_volume(tmp_path, "gamma", "test/gamma@1", seed=3)
    guest.boot(disks=[*guest.disks, third.disk]).expect_halt("disk-unexpected", hook="30-volumes")


def test_two_with_one_serial(guest: Guest) -> None:
    disks = [*guest.disks, guest.volumes[0].disk]
    guest.boot(disks=disks).expect_halt("volume-duplicate", hook="30-volumes")


def test_two_swapped(guest: Guest) -> None:
    """Each under the other's serial: the root hash decides."""
    a, b = guest.volumes
    disks = [guest.config_disk, guest.root, Disk(a.path, b.disk.serial), Disk(b.path, a.disk.serial)]
    guest.boot(disks=disks).expect_halt("volume-hash-mismatch", hook="30-volumes")


@pytest.mark.parametrize("honest", [True, False], ids=["its own serial", "the new one's serial"])
def test_an_older_revision(guest: Guest, tmp_path: Path, honest: bool) -> None:
    older = make_volume(tmp_path, "alpha", "test/alpha@0", seed=1)
    current = guest.volumes[0]
    serial = older.disk.serial if honest else current.disk.serial
    disks = [Disk(older.path, serial) if d == current.disk else d for d in guest.disks]
    guest.boot(disks=disks).expect_halt(
        "volume-missing" if honest else "volume-hash-mismatch", hook="30-volumes"
    )


def changed_reference(guest: Guest, disk_dir: Path, ref: VolumeRef) -> Guest:
    """The config with `ref` for the first volume, attested."""
    first, second = guest.volumes
    return guest.with_config(make_config([replace(first, ref=ref), second]), disk_dir)


def test_wrong_uuid(guest: Guest, disk_dir: Path) -> None:
    first, second = guest.volumes
    changed = changed_reference(guest, disk_dir, first.ref._replace(uuid=second.ref.uuid))
    changed.boot().expect_halt("volume-uuid", hook="30-volumes")


def test_wrong_hash_offset(guest: Guest, disk_dir: Path) -> None:
    offset = guest.volumes[0].ref.hash_offset - BLOCK
    changed_reference(guest, disk_dir, guest.volumes[0].ref._replace(hash_offset=offset)).boot().expect_halt(
        "volume-size", hook="30-volumes"
    )


def test_wrong_hash_offset_and_a_disk_to_match(guest: Guest, disk_dir: Path) -> None:
    volume = guest.volumes[0]
    offset = volume.ref.hash_offset
    data = volume.path.read_bytes()
    moved = disk_dir / "moved"
    moved.write_bytes(data[: offset - BLOCK] + data[offset:])
    assert moved.stat().st_size == file_blocks(offset // BLOCK - 1) * BLOCK
    changed = changed_reference(guest, disk_dir, guest.volumes[0].ref._replace(hash_offset=offset - BLOCK))
    changed.boot(disks=other_disk(changed, volume, moved)).expect_halt(
        "volume-block-count", hook="30-volumes"
    )


def test_wrong_root_hash(guest: Guest, disk_dir: Path) -> None:
    good = guest.volumes[0].ref.root_hash
    wrong = good[:-1] + ("0" if good[-1] != "0" else "1")
    changed_reference(guest, disk_dir, guest.volumes[0].ref._replace(root_hash=wrong)).boot().expect_halt(
        "volume-hash-mismatch", hook="30-volumes"
    )


def test_wrong_repo_is_a_wrong_salt(guest: Guest, disk_dir: Path) -> None:
    first, second = guest.volumes
    lying = replace(first, repo="test/alpha@2")
    changed = guest.with_config(make_config([lying, second]), disk_dir)
    changed.boot().expect_halt("volume-hash-mismatch", hook="30-volumes")


def test_writable(guest: Guest, copy: Copy) -> None:
    volume = guest.volumes[0]
    writable = Disk(copy(volume.path), volume.disk.serial, read_only=False)
    disks = [writable if d == volume.disk else d for d in guest.disks]
    guest.boot(disks=disks).expect_halt("volume-writable", hook="30-volumes")


def test_shortened(guest: Guest, copy: Copy) -> None:
    volume = guest.volumes[0]
    disks = other_disk(guest, volume, copy(volume.path, Resize(-BLOCK)))
    guest.boot(disks=disks).expect_halt("volume-size", hook="30-volumes")


def test_bit_in_the_first_block(guest: Guest, copy: Copy) -> None:
    volume = guest.volumes[0]
    disks = other_disk(guest, volume, copy(volume.path, Flip(2000)))
    guest.boot(disks=disks).expect_halt("volume-data-mismatch", hook="30-volumes")


@pytest.mark.parametrize("where", ["last data block", "leaf of the tree"])
def test_bit_that_the_boot_does_not_read(guest: Guest, copy: Copy, where: str) -> None:
    volume = guest.volumes[0]
    blocks = volume.ref.hash_offset // BLOCK
    offset = blocks * BLOCK - 1 if where == "last data block" else (level_starts(blocks)[0] + 1) * BLOCK + 3
    disks = other_disk(guest, volume, copy(volume.path, Flip(offset)))
    reading = guest.with_hook("35-read", READ_EVERYTHING)
    reading.boot(disks=disks).expect_panic("dm-verity device corrupted")


def test_no_volumes(guest: Guest, log_dir: Path, disk_dir: Path) -> None:
    bare = make_guest(guest.image, (), log_dir, disk_dir)
    bare.hands_over()


#: Says how the images' volumes are mounted, and runs what the first of them holds.
USE_IMAGE = """
import os

def run(state):
    for line in open("/proc/mounts"):
        if "/images/" in line:
            print("mounted", line.split()[1], line.split()[3], flush=True)
    (image,) = os.listdir("/run/tinboot/images")
    place = "/run/tinboot/images/" + image + "/overlay"
    (layer,) = set(os.listdir(place)) - {"l"}
    child = os.fork()
    if not child:
        os.execv(place + "/" + layer + "/diff/bin/app", ["app"])
    print("ran", os.waitpid(child, 0)[1], flush=True)
    return {}
"""

#: A program that only exits, with 7: Elf64_Ehdr, one Elf64_Phdr; mov edi, 7; mov eax, 60; syscall.
EXIT_7 = (
    struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    + struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 132, 132, 4096)
    + bytes.fromhex("bf07000000b83c0000000f05")
)


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Wrapped:
    """The volume of an image with a program, and enough beside it for a tree of two levels."""
    here = tmp_path_factory.mktemp("image")
    layout = Layout()
    data = random.Random(4).randbytes(1_200_000)
    layout.entry(
        layout.image(
            [tar([folder("bin"), member("bin/app", data=EXIT_7, mode=0o755), member("data", data=data)])]
        )
    )
    source = oci_wrap.Source(layout.write(here / "oci"), None, "localhost/app", None)
    made = oci_wrap.wrap_image(source, here / "app.mpk")
    return Wrapped(made.identity, made.identity, made.ref, here / "app.mpk")


def with_image(guest: Guest, stored: Wrapped, folder: Path, ref: VolumeRef | None = None) -> Guest:
    """A config that has a container of that image beside its models; a machine that has its disk."""
    lines = ("images:", f"  - image: {stored.name}", f"    mpk: {ref or stored.ref}")
    container = ("containers:", "  - name: app", f"    image: {stored.name}")
    asking = guest.with_config(make_config(guest.volumes, *lines, *container), folder)
    return replace(asking, volumes=(*guest.volumes, stored))


def test_an_image_is_mounted_to_run_from(guest: Guest, stored: Wrapped, disk_dir: Path) -> None:
    result = with_image(guest, stored, disk_dir).with_hook("35-use", USE_IMAGE).hands_over()
    place = f"/run/tinboot/images/{stored.ref.root_hash[:20]}"
    (mounted,) = (line for line in result.lines() if line.startswith("mounted "))
    assert mounted.split()[1] == place
    options = mounted.split()[2].split(",")
    assert {"ro", "nosuid", "nodev"} <= set(options)
    assert "noexec" not in options
    assert f"ran {7 << 8}" in result.lines()


def test_an_image_missing(guest: Guest, stored: Wrapped, disk_dir: Path) -> None:
    asking = with_image(guest, stored, disk_dir)
    asking.boot(disks=asking.disks[:-1]).expect_halt("volume-missing", hook="30-volumes")


def test_an_image_that_the_config_does_not_name(guest: Guest, stored: Wrapped) -> None:
    guest.boot(disks=[*guest.disks, stored.disk]).expect_halt("disk-unexpected", hook="30-volumes")


def test_an_altered_image(guest: Guest, stored: Wrapped, disk_dir: Path, copy: Copy) -> None:
    asking = with_image(guest, stored, disk_dir)
    disks = other_disk(asking, stored, copy(stored.path, Flip(2000)))
    asking.boot(disks=disks).expect_halt("volume-data-mismatch", hook="30-volumes")


def test_an_altered_layer_is_met_when_it_is_read(
    guest: Guest, stored: Wrapped, disk_dir: Path, copy: Copy
) -> None:
    """Podman would run it: it compares nothing. The kernel does, block by block."""
    asking = with_image(guest, stored, disk_dir).with_hook("35-read", READ_EVERYTHING)
    altered = copy(stored.path, Flip(stored.ref.hash_offset - 5000))
    asking.boot(disks=other_disk(asking, stored, altered)).expect_panic("dm-verity device corrupted")


def test_another_image_under_the_name(guest: Guest, stored: Wrapped, disk_dir: Path, tmp_path: Path) -> None:
    """The salt is of the name with its digest: the volume of another image has another root hash, whatever
    the config says of it."""
    layout = Layout()
    layout.entry(layout.image([tar([member("other", data=b"x" * 1_200_000)])]))
    source = oci_wrap.Source(layout.write(tmp_path / "oci"), None, "localhost/app", None)
    other = oci_wrap.wrap_image(source, tmp_path / "other.mpk")
    asking = with_image(guest, stored, disk_dir, other.ref)
    lying = Disk(tmp_path / "other.mpk", other.ref.root_hash[:20])
    asking.boot(disks=[*asking.disks[:-1], lying]).expect_halt("volume-hash-mismatch", hook="30-volumes")
