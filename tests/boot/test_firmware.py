"""What the host hands to the production firmware: nothing but what is measured starts, and no code of a card.

Every boot here has the table of hashes of the good kernel, initrd and command line where the firmware looks
for it, unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import deadloop
import host_code
import measured_boot
import pytest
from arguments import arguments
from boot import BootResult, boot, run
from guest import HANDOVER
from machine import Machine
from serial_log import Outcome

from tinboot.formats import ovmf

if TYPE_CHECKING:
    from guest import Guest

OPTIONS = ("-kernel", "-initrd", "-append")

#: The firmware's word where a good table let nothing start. It says nothing where a hash differs.
NOTHING_STARTED = "BdsDxe: No verified kernel was started."

#: What code of the host's prints where it runs.
CODE_RAN = "host-code-ran"


class Host:
    """A host that boots `guest` under `firmware` and changes what the test is about."""

    def __init__(self, guest: Guest, firmware: Path) -> None:
        folder = guest.image.folder
        self.listed = arguments(folder / "kernel", guest.initrd(), guest.cmdline, guest.disks)
        self.table: bytes | None = measured_boot.hashes(self.listed)
        self.firmware = firmware
        self.logs = guest.log_dir

    def value(self, option: str) -> str:
        return self.listed[self.listed.index(option) + 1]

    def give(self, option: str, value: str | None) -> None:
        """Another value for `option`; None leaves it out."""
        at = self.listed.index(option)
        self.listed[at : at + 2] = [] if value is None else [option, value]

    def change(self, option: str, content: bytes) -> None:
        """Other content: a file, or the text of the command line."""
        if option == "-append":
            return self.give(option, content.decode())
        path = self.logs / option.removeprefix("-")
        path.write_bytes(content)
        return self.give(option, str(path))

    def content(self, option: str) -> bytes:
        value = self.value(option)
        return value.encode() if option == "-append" else Path(value).read_bytes()

    def boot(self, extra: Sequence[str] = (), marker: str | None = None) -> BootResult:
        listed = measured_boot.under([*self.listed, *extra], self.firmware, self.logs, self.table)
        return run(listed, self.logs, 120, marker)


@pytest.fixture
def guest(guest: Guest) -> Guest:
    """None gets so far as to ask for a report: the production initrd alone."""
    return replace(guest, behaviour=None)


@pytest.fixture
def host(guest: Guest, firmware: Path) -> Host:
    return Host(guest, firmware)


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("place", ["middle", "last"])
def test_one_bit_is_different(host: Host, option: str, place: str) -> None:
    content = host.content(option)
    host.change(option, flipped(content, len(content) // 2 if place == "middle" else len(content) - 1))
    host.boot().expect_dead_loop()


@pytest.mark.parametrize("option", OPTIONS)
def test_one_byte_more(host: Host, option: str) -> None:
    host.change(option, host.content(option) + b" ")
    host.boot().expect_dead_loop()


@pytest.mark.parametrize("option", OPTIONS)
def test_missing(host: Host, option: str) -> None:
    host.give(option, None)
    host.boot().expect_dead_loop()


def test_nothing_at_all(host: Host) -> None:
    for option in OPTIONS:
        host.give(option, None)
    host.boot().expect_dead_loop()


def test_kernel_and_initrd_swapped(host: Host) -> None:
    kernel, initrd = host.value("-kernel"), host.value("-initrd")
    host.give("-kernel", initrd)
    host.give("-initrd", kernel)
    host.boot().expect_dead_loop()


@pytest.mark.parametrize("name", ["shim", "kernel.efi", "Kernel", "x" * 40])
def test_a_blob_that_no_hash_is_for(host: Host, name: str) -> None:
    """Beside the three good ones, with a kernel in it that would boot."""
    host.boot(measured_boot.blob(name, Path(host.value("-kernel")))).expect_dead_loop()


def test_no_table(host: Host) -> None:
    host.table = None
    host.boot().expect_dead_loop(said=NOTHING_STARTED)


@pytest.mark.parametrize("at", [0, 17, 100], ids=["identity", "length", "hash"])
def test_another_table(host: Host, at: int) -> None:
    """Its identity or length gone it is no table; a hash of something else is one that nothing has."""
    assert host.table is not None
    host.table = flipped(host.table, at) if at != 17 else host.table[:16] + b"\xff\xff" + host.table[18:]
    host.boot().expect_dead_loop(said="" if at == 100 else NOTHING_STARTED)


def test_a_measured_kernel_that_is_none(host: Host) -> None:
    """The hash is right, the firmware cannot start it: it starts nothing in its place."""
    host.change("-kernel", b"not a kernel\n" * 100)
    host.table = measured_boot.hashes(host.listed)
    host.boot().expect_dead_loop(said=NOTHING_STARTED)


def test_a_kernel_that_comes_back(host: Host) -> None:
    """So little memory that the good kernel gives up: the firmware does not go on to what a disk has."""
    host.listed[host.listed.index("-m") + 1] = "128M"
    result = host.boot(boot_disk(host.logs), CODE_RAN)
    assert result.outcome is Outcome.DEAD_LOOP, result.describe()
    assert result.text().rstrip().endswith(NOTHING_STARTED)
    assert "EFI stub: ERROR" in result.text(), result.describe()


@pytest.mark.parametrize("table", [True, False])
def test_a_disk_that_boots_and_no_kernel(host: Host, table: bool) -> None:
    """With the table the firmware misses the kernel; without one it is a guest that was told of none."""
    for option in OPTIONS:
        host.give(option, None)
    host.table = host.table if table else None
    host.boot(boot_disk(host.logs), CODE_RAN).expect_dead_loop(said="" if table else NOTHING_STARTED)


def boot_disk(folder: Path) -> list[str]:
    """A disk with the program that UEFI firmware starts from one when it has nothing else to start."""
    place = folder / "disk/EFI/BOOT"
    place.mkdir(parents=True)
    (place / "BOOTX64.EFI").write_bytes(host_code.application(f"{CODE_RAN}\r\n".encode()))
    drive = f"file=fat:{folder / 'disk'},format=raw,if=none,id=fat,read-only=on"
    return ["-drive", drive, "-device", "virtio-blk-pci,drive=fat,disable-legacy=on,bus=pcie.0,addr=0x1d"]


def nic(folder: Path) -> list[str]:
    """A network card whose ROM says that it ran."""
    rom = folder / "rom"
    rom.write_bytes(host_code.option_rom(0x1AF4, 0x1041, f"{CODE_RAN}\r\n".encode()))
    device = f"virtio-net-pci,netdev=net0,disable-legacy=on,bus=pcie.0,addr=0x1e,romfile={rom}"
    return ["-netdev", "user,id=net0,restrict=on", "-device", device]


def test_the_option_rom_runs_where_it_may(guest: Guest) -> None:
    """QEMU's BIOS runs it: the ROM of the next test is one that a firmware would take."""
    folder = guest.image.folder
    result = boot(
        *(folder / "kernel", guest.initrd(), guest.cmdline, guest.disks),
        log_dir=guest.log_dir,
        marker=CODE_RAN,
        extra=nic(guest.log_dir),
    )
    assert result.outcome is Outcome.MARKER, result.describe()


@pytest.mark.parametrize("window", [None, "0"], ids=["as it is", "no 64-bit window"])
def test_no_option_rom_runs(host: Host, window: str | None) -> None:
    """With and without the setting that keeps edk2's own filter of ROMs from starting. The guest comes up."""
    extra = nic(host.logs)
    if window is not None:
        extra += ["-fw_cfg", f"name=opt/ovmf/X-PciMmio64Mb,string={window}"]
    result = host.boot(extra, HANDOVER)
    assert result.outcome is Outcome.MARKER, result.describe()
    assert CODE_RAN not in result.text()


def test_what_is_in_memory_before_the_first_instruction(host: Host) -> None:
    """The firmware at the top of the first 4 GiB and the table at its place; then the same machine boots."""
    image = host.firmware.read_bytes()
    place = ovmf.parse(image).hash_table
    assert place is not None
    assert host.table is not None
    listed = measured_boot.under([*host.listed, "-S"], host.firmware, host.logs, host.table)
    with Machine(listed, log=host.logs / "boot.log") as machine:
        assert machine.physical_memory((4 << 30) - len(image), len(image)) == image
        assert machine.physical_memory(*place) == host.table.ljust(place[1], b"\0")
        machine.execute("cont")
        event = deadloop.wait(machine, 120, marker=HANDOVER)
    assert event.outcome is Outcome.MARKER, event
