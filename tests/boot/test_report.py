"""The report that every boot begins with, and what the guest itself refuses about it.

What only a verifier can refuse is passed on as it is: the guest has nothing to compare it with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import stub_chain
from artefacts import initrd_entries
from psp import ALWAYS, Behaviour
from serial_log import Outcome
from stub_files import Kind
from stub_report import Contents, patched

from tinboot.builder import measure
from tinboot.formats import (
    bootreport,
    certtable,
    launchspec,
    snpreport,
    snptcb,
    vcpumodels,
)
from tinboot.formats.launchdigest import Vcpu
from tinboot.formats.launchmanifest import KernelHashes

if TYPE_CHECKING:
    from guest import Guest

INTERFACES: tuple[Kind, ...] = ("cuse", "tsm")
PROVIDERS = {"cuse": "sev-guest", "tsm": "configfs-tsm"}

VCPU = Vcpu(vcpumodels.SIGNATURES[launchspec.DEFAULT_MODEL], launchspec.SNP_ACTIVE)


@pytest.mark.parametrize("interface", INTERFACES)
def test_binds_what_the_hooks_verified(guest: Guest, interface: Kind) -> None:
    result = replace(guest, interface=interface).boot()
    up = result.expect_up()
    shown = result.report
    report = snpreport.parse(shown.report)
    assert shown.provider == PROVIDERS[interface]
    assert report.report_data == bootreport.report_data(shown.sealed)
    assert guest.line.root_hash.encode() in shown.sealed
    assert isinstance(up["boot"], dict)
    assert up["boot"]["cmdline"].encode() in shown.sealed
    found = certtable.parse(shown.certificates)
    for certificate in (found.vcek, found.ask, found.ark):
        assert certificate is not None
        assert stub_chain.MARK.encode() in certificate


def test_measurement_is_the_one_computed_before_the_boot(guest: Guest, firmware: Path) -> None:
    """From the files alone, as `tinboot measure` does; the stub PSP takes it from the machine's memory."""
    measured = replace(guest, firmware=firmware)
    kernel = measure.kernel_hashes(guest.image.folder / "kernel", measured.initrd(), guest.cmdline)
    result = measured.boot()
    result.expect_up()
    reported = snpreport.parse(result.report.report).measurement
    assert reported == digest(firmware, kernel)
    production = measure.kernel_hashes(
        guest.image.folder / "kernel", guest.image.folder / "initrd", guest.cmdline
    )
    assert reported != digest(firmware, production)


def digest(firmware: Path, kernel: KernelHashes) -> bytes:
    """Of one vCPU."""
    return measure.manifest(firmware, kernel, VCPU).launch_digest(1)


#: What the guest refuses: how the PSP and its host behave -> the reason, and a word of the detail.
REFUSED: dict[str, tuple[Behaviour, str, str]] = {
    "other report data": (Behaviour(report_data=b"\x01" * 64), "report-mismatch", "01" * 64),
    "DEBUG": (Behaviour(Contents(policy=0x30000 | 1 << 19)), "report-policy", "DEBUG"),
    "MIGRATE_MA": (Behaviour(Contents(policy=0x30000 | 1 << 18)), "report-policy", "MIGRATE_MA"),
    "VMPL 1": (Behaviour(Contents(vmpl=1)), "report-policy", "VMPL 1"),
    "unknown version": (Behaviour(Contents(version=4)), "report-malformed", "version 4"),
    "short": (Behaviour(size=1183), "report-malformed", "1183 bytes"),
    "too long": (Behaviour(size=1185), "report-malformed", "1184"),
    "status": (Behaviour(status=0x16), "report-refused", ""),
    "firmware error": (Behaviour(firmware_error=0x16), "report-refused", ""),
    "VMM error": (Behaviour(vmm_error=7), "report-refused", ""),
    "busy for ever": (Behaviour(busy=ALWAYS), "report-busy", "until the deadline"),
    "no answer": (Behaviour(hang=True), "report-timeout", "no answer"),
    "wild certificates": (
        Behaviour(table=b"\x01" * 16 + b"\xf0\xff\xff\xff" * 2 + bytes(4096 - 24)),
        "report-malformed",
        "certificate table",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_refused_over_the_device(guest: Guest, fault: str) -> None:
    behaviour, reason, word = REFUSED[fault]
    halted = replace(guest, behaviour=behaviour).boot().expect_halt(reason, hook="report")
    assert word in halted.detail


@pytest.mark.parametrize(
    "fault", ["other report data", "too long", "firmware error", "busy for ever", "no answer"]
)
def test_refused_over_configfs(guest: Guest, fault: str) -> None:
    behaviour, reason, word = REFUSED[fault]
    halted = replace(guest, behaviour=behaviour, interface="tsm").boot().expect_halt(reason, hook="report")
    assert word in halted.detail


@pytest.mark.parametrize("needs", [3000, 5000, 20480])
def test_host_that_wants_an_absurd_buffer(guest: Guest, needs: int) -> None:
    """Not more than was offered, not whole pages, more than the kernel takes."""
    replace(guest, behaviour=Behaviour(needs=needs)).boot().expect_halt("report-malformed", hook="report")


def test_without_a_psp(guest: Guest) -> None:
    """The production initrd on a machine without SNP."""
    halted = replace(guest, behaviour=None).boot().expect_halt("report-unavailable", hook="report")
    assert "/dev/sev-guest" in halted.detail


def test_unit_that_cannot_even_start(guest: Guest) -> None:
    """No program is left to say why: PID 1 ends the machine."""
    hide = (
        "def run(state):\n"
        "    at = '/sysroot/usr/lib/python3/dist-packages/tinboot/guest'\n"
        "    state.kernel.mount('tmpfs', at, 'tmpfs', 0)\n"
        "    return {}\n"
    )
    result = guest.with_hook("86-hide", hide).boot()
    assert result.outcome is Outcome.ENDED, result.describe()
    assert result.powered_off
    assert result.events == ()


def test_busy_for_a_while(guest: Guest) -> None:
    result = replace(guest, behaviour=Behaviour(busy=3)).boot()
    result.expect_up()


#: What a verifier has to refuse: the guest cannot, and shows it.
PASSED_ON: dict[str, tuple[Behaviour, Callable[[snpreport.Report], bool]]] = {
    "another measurement and no signature": (
        Behaviour(
            measurement=b"\x02" * 48, alter=lambda report: patched(report, snpreport.SIGNED, bytes(144))
        ),
        lambda report: report.measurement == b"\x02" * 48 and report.signature_r == report.signature_s == 0,
    ),
    "version 5 of Turin, another TCB": (
        Behaviour(Contents(snptcb.TURIN, 5, platform_info=0x67, reported_tcb=b"\0" * 8), table=bytes(4096)),
        lambda report: (report.version, report.platform_info, report.reported_tcb) == (5, 0x67, b"\0" * 8),
    ),
}


@pytest.mark.parametrize("fault", PASSED_ON)
def test_passed_on(guest: Guest, fault: str) -> None:
    behaviour, shows = PASSED_ON[fault]
    result = replace(guest, behaviour=behaviour).boot()
    result.expect_up()
    assert shows(snpreport.parse(result.report.report))
    if behaviour.table is not None:
        assert result.report.certificates == b""


def test_kept_for_the_root_alone(guest: Guest) -> None:
    result = guest.with_hook("86-look", LOOK).boot()
    result.expect_up()
    assert "late-look: ['certificates 0o600', 'provider 0o600', 'report 0o600'] 0o700 1184" in result.text()


#: Looks into the running root from a process that outlives the hand-over.
LOOK = """
import os, stat, time

def run(state):
    root = os.open("/proc/1", os.O_RDONLY)
    comm = os.open("/proc/1/comm", os.O_RDONLY)
    if os.fork():
        return {}
    os.setsid()
    while os.pread(comm, 64, 0) != b"systemd\\n":
        time.sleep(0.2)
    for _ in range(600):
        try:
            folder = os.open("root/run/tinboot-report", os.O_RDONLY, dir_fd=root)
            names = sorted(os.listdir(folder))
            modes = [f"{n} {oct(stat.S_IMODE(os.stat(n, dir_fd=folder).st_mode))}" for n in names]
            size = os.stat("report", dir_fd=folder).st_size
            if len(names) == 3 and size:
                break
        except OSError:
            pass
        time.sleep(0.05)
    mode = oct(stat.S_IMODE(os.fstat(folder).st_mode))
    console = os.open("root/dev/console", os.O_WRONLY | os.O_NOCTTY, dir_fd=root)
    os.write(console, f"\\nlate-look: {modes} {mode} {size}\\n".encode())
    os._exit(0)
"""


def test_no_stub_in_the_production_images(guest: Guest) -> None:
    """No path and no word of the stubs'; the root's contents are an inventory of their own."""
    entries = initrd_entries(guest.image.folder / "initrd")
    words = ("tinboot-test", "stub", "cuse", "psp")
    assert [path for path in entries if any(word in path for word in words)] == []
    assert [path for path, entry in entries.items() if b"TEST ONLY" in entry.data] == []
    root = (guest.image.folder / "root").read_bytes()
    for mark in (b"tinboot-test", stub_chain.MARK.encode(), b"org.tinboot.psp", b"cuse_sev_guest"):
        assert mark not in root
