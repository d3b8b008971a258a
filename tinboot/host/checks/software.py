"""QEMU, the firmware for guests, and room for one."""

from __future__ import annotations

import re
from pathlib import Path

from tinboot.formats import ovmf as ovmf_format
from tinboot.formats.errors import Malformed, Refused
from tinboot.host import qemu as host_qemu
from tinboot.host.launch import Form
from tinboot.host.machine import Finding, Machine, Status

#: Where distributions put an AmdSev build (Debian and Ubuntu, Fedora, openSUSE).
_FIRMWARE = (
    "usr/share/ovmf/OVMF.amdsev.fd",
    "usr/share/edk2/ovmf/OVMF.amdsev.fd",
    "usr/share/qemu/ovmf-x86_64-sev.bin",
)
_FIRMWARE_LIMIT = ovmf_format.MAX_SIZE + 1


def qemu(machine: Machine) -> Finding:
    least = ".".join(map(str, host_qemu.MINIMUM[Form.PRODUCTION]))
    remedy = f"install QEMU {least} or newer (Debian 13, Ubuntu 25.04), or name one by --qemu"
    if machine.qemu is None:
        return Finding("qemu", Status.MISSING, "no QEMU that answers --version", remedy)
    version = host_qemu.parse_version(machine.qemu)
    if version is None:
        return Finding("qemu", Status.UNKNOWN, f"{machine.qemu[:40]!r} is no version of QEMU", remedy)
    found = ".".join(map(str, version))
    if version >= host_qemu.MINIMUM[Form.PRODUCTION]:
        return Finding("qemu", Status.OK, found)
    return Finding("qemu", Status.MISSING, f"{found}; SNP guests from {least} on", remedy)


def ovmf(machine: Machine) -> Finding:
    """A firmware with room for the kernel hashes. Whose it is only the launch digest tells."""
    remedy = "`tinboot firmware build` makes one; builds of other platforms do not check the kernel"
    places = [machine.root / place for place in _FIRMWARE] if machine.firmware is None else [machine.firmware]
    for path in places:
        data = _firmware(path)
        if data is None:
            continue
        shown = f"/{path.relative_to(machine.root)}" if path.is_relative_to(machine.root) else str(path)
        try:
            ovmf_format.kernel_hashes_at(ovmf_format.parse(data))
        except (Malformed, Refused) as error:
            return Finding("ovmf", Status.MISSING, f"{shown}: {error.message}", remedy)
        return Finding("ovmf", Status.OK, f"{shown}, with room for kernel hashes")
    where = "no AmdSev OVMF installed" if machine.firmware is None else f"{machine.firmware} cannot be read"
    return Finding("ovmf", Status.MISSING, where, remedy)


def memory(machine: Machine) -> Finding:
    """SNP guests take 4 KiB pages of ordinary memory; reserved huge pages are lost to them."""
    text = machine.text("proc/meminfo") or ""
    fields = {m[1]: int(m[2]) for m in re.finditer(r"^(\w+):\s+(\d+)", text, re.MULTILINE)}
    if "MemAvailable" not in fields:
        return Finding("memory", Status.UNKNOWN, "/proc/meminfo tells nothing", "mount /proc")
    available = fields["MemAvailable"] >> 10
    reserved = fields.get("HugePages_Free", 0) * fields.get("Hugepagesize", 0) >> 10
    found = f"{available >> 10} GiB available, {machine.memory >> 10} GiB asked for"
    if available >= machine.memory:
        return Finding("memory", Status.OK, found)
    remedy = "stop other guests, or plan for a smaller one with --memory"
    if available + reserved >= machine.memory:
        remedy = "release reserved huge pages (vm.nr_hugepages=0): SNP guests cannot use them"
    return Finding("memory", Status.MISSING, found, remedy)


def _firmware(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(_FIRMWARE_LIMIT)
    except OSError:
        return None
