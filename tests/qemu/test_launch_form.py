"""The harness's argument list is the launcher's."""

from __future__ import annotations

from pathlib import Path

import pytest
from arguments import Disk, arguments

from tinboot.formats import cmdline, launchspec
from tinboot.host.launch import Form, qemu_arguments

LINE = cmdline.CommandLine("1" * 64, "2" * 64, "3" * 64, 4)
SPEC = launchspec.LaunchSpec(
    launchspec.Measured(None, "/b/kernel", "/b/initrd", LINE, vcpus=2),
    memory=1536,
    disks=(
        launchspec.Disk("config", "/b/config,disk", "tinboot-config"),
        launchspec.Disk("root", "/b/root", "2" * 20),
        launchspec.Disk("volume", "/v/model", "4" * 20),
    ),
)


def test_for_a_good_launch_it_is_the_launcher_s_own() -> None:
    disks = [Disk(Path(disk.path), disk.serial) for disk in SPEC.disks]
    ours = arguments(Path("/b/kernel"), Path("/b/initrd"), cmdline.render(LINE), disks, memory=1536, smp=2)
    sharing = ",file.locking=off,cache.no-flush=on"
    assert sum(sharing in argument for argument in ours) == len(disks)
    assert [argument.replace(sharing, "") for argument in ours] == qemu_arguments(SPEC, Form.HARNESS)[1:]


def test_what_the_launcher_would_not_start() -> None:
    listed = arguments(
        Path("k"), Path("i"), "init=/bin/sh", [Disk(Path("a"), read_only=False)], cpu="qemu64", accel="kvm"
    )
    assert listed[listed.index("-append") + 1] == "init=/bin/sh"
    assert listed[listed.index("-cpu") + 1] == "qemu64"
    assert listed[listed.index("-accel") + 1] == "kvm"
    assert "read-only=off" in listed[listed.index("-blockdev") + 1]
    assert "serial=," in listed[listed.index("-device") + 1]


def test_limits() -> None:
    with pytest.raises(ValueError, match="at most 20 bytes"):
        arguments(Path("k"), Path("i"), "", [Disk(Path("a"), "s" * 21)])
    with pytest.raises(ValueError, match="27 disks"):
        arguments(Path("k"), Path("i"), "", [Disk(Path("a"))] * 27)
