"""QEMU's argument list for the harness: the launcher's harness form, for guests that it would refuse.

For a specification that the launcher accepts the two lists are the same but for `_SHARED` (a test holds
them together); here any command line, any disks, a poorer CPU or too little memory can be given as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tinboot.host.launch import HARNESS_CPU, option

#: Counts instructions: guest time advances 2 ns with each, whatever else the machine does. Twice the CPU.
COUNT_INSTRUCTIONS = ("-icount", "shift=1,sleep=off")

#: Not locked, so that a test may change the file under a running machine; never synced, for it is a copy.
_SHARED = {"file.locking": "off", "cache.no-flush": "on"}

_SERIAL_BYTES = 20  # VIRTIO_BLK_ID_BYTES, Virtio 1.2, 5.2.6.1
_FIRST_SLOT, _SLOTS = 2, 26  # of pcie.0, as the launcher has them


@dataclass(frozen=True, slots=True)
class Disk:
    """A raw file as a virtio-blk disk. `serial`: at most 20 bytes, what the guest finds it by.

    Any number of machines may share a read-only one.
    """

    path: Path
    serial: str = ""
    read_only: bool = True


def arguments(
    kernel: Path,
    initrd: Path,
    cmdline: str,
    disks: Sequence[Disk] = (),
    *,
    memory: int = 1024,
    cpu: str = HARNESS_CPU,
    smp: int = 1,
    accel: str = "tcg",
) -> list[str]:
    """Without the binary and the monitor, which machine.Machine adds. `memory` in MiB.

    A reset ends QEMU (-no-reboot): a guest that panics with panic=-1 does not come back.
    """
    if len(disks) > _SLOTS:
        raise ValueError(f"{len(disks)} disks, expected at most {_SLOTS}")
    listed = ["-accel", accel, "-machine", "q35", "-cpu", cpu, "-smp", str(smp), "-m", f"{memory}M"]
    listed += ["-no-user-config", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"]
    listed += ["-kernel", str(kernel), "-initrd", str(initrd), "-append", cmdline]
    for at, disk in enumerate(disks):
        listed += _disk(at, disk)
    return listed


def _disk(at: int, disk: Disk) -> list[str]:
    if len(disk.serial.encode()) > _SERIAL_BYTES:
        raise ValueError(f"a virtio serial has at most {_SERIAL_BYTES} bytes, not {disk.serial!r}")
    node = {
        "node-name": f"disk{at}",
        "read-only": "on" if disk.read_only else "off",
        "file.driver": "file",
        "file.filename": str(disk.path),
    }
    device = {
        "drive": f"disk{at}",
        "serial": disk.serial,
        "bus": "pcie.0",
        "addr": f"{_FIRST_SLOT + at:#x}",
        "disable-legacy": "on",
        "iommu_platform": "true",
        "romfile": "",
    }
    return [
        "-blockdev",
        option("driver=raw", {**node, **_SHARED}),
        "-device",
        option("virtio-blk-pci", device),
    ]
