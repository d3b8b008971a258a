"""GPUs, and what passing them to a guest takes."""

from __future__ import annotations

import re
from collections.abc import Callable

from tinboot.host.machine import Finding, Machine, Status

_DEVICES = "sys/bus/pci/devices"

#: Device ids of H100 boards under vendor 10de (pci.ids): NVL, SXM5, PCIe, and two that it calls H100 only.
_H100 = {
    "0x2321": "H100 NVL",
    "0x2330": "H100 SXM5",
    "0x2331": "H100 PCIe",
    "0x2336": "H100",
    "0x2339": "H100",
}

#: linux/capability.h: a process with it pins memory whatever its limit.
_CAP_IPC_LOCK = 14


def gpus(machine: Machine) -> Finding:
    """Display controllers (class 03) of NVIDIA. Anything that is not an H100 has no CC mode tinboot knows."""
    found = [_id(machine, address) for address in _nvidia(machine)]
    h100 = [name for name in found if name in _H100]
    if h100:
        names = sorted({_H100[name] for name in h100})
        return Finding("gpus", Status.OK, f"{len(h100)}: {', '.join(names)}")
    shown = f"NVIDIA {', '.join(sorted(set(found)))}, no H100" if found else "no NVIDIA GPU on the bus"
    return Finding("gpus", Status.MISSING, shown, "use a server with H100s; lspci -D -nn -d 10de: shows them")


def gpu_driver(machine: Machine) -> Finding:
    return _each(
        machine,
        "gpu-driver",
        lambda address: None if _link(machine, address, "driver") == "vfio-pci" else
        f"{address} is bound to {_link(machine, address, 'driver') or 'no driver'}",
        "bound to vfio-pci",
        "driverctl set-override PCI vfio-pci, and keep nouveau and nvidia from loading on the host",
    )  # fmt: skip


def gpu_group(machine: Machine) -> Finding:
    def shares(address: str) -> str | None:
        members = machine.names(f"{_DEVICES}/{address}/iommu_group/devices")
        if members == [address]:
            return None
        others = [member for member in members if member != address]
        return f"{address} with {', '.join(others)}" if others else f"{address} is in none"

    return _each(
        machine,
        "gpu-group",
        shares,
        "each alone in its IOMMU group",
        "enable ACS and the IOMMU in the BIOS, or move the card to another slot",
    )


def gpu_cc_mode(machine: Machine) -> Finding:
    """The mode is in a register behind BAR 0, which a guest may be using: not read from here."""
    if not _h100(machine):
        return _none("gpu-cc-mode")
    return Finding(
        "gpu-cc-mode",
        Status.UNKNOWN,
        "no file of the host shows it",
        "nvidia_gpu_tools.py --devices gpus --query-cc-mode (NVIDIA gpu-admin-tools) has to say on; "
        "--set-cc-mode=on --reset-after-cc-mode-switch sets it",
    )


def vfio(machine: Machine) -> Finding:
    if machine.exists("sys/bus/pci/drivers/vfio-pci"):
        return Finding("vfio", Status.OK, "vfio-pci")
    return Finding("vfio", Status.MISSING, "the driver vfio-pci is not there", "modprobe vfio-pci")


def iommufd(machine: Machine) -> Finding:
    missing = [path for path in ("dev/iommu", "sys/class/vfio-dev") if not machine.exists(path)]
    if not missing:
        return Finding("iommufd", Status.OK, "/dev/iommu, VFIO character devices")
    return Finding(
        "iommufd",
        Status.MISSING,
        f"no {', '.join('/' + path for path in missing)}",
        "modprobe iommufd vfio-pci; the kernel needs CONFIG_IOMMUFD and CONFIG_VFIO_DEVICE_CDEV",
    )


def vfio_limit(machine: Machine) -> Finding:
    """Each shared 4 KiB page may be a mapping of its own; iommufd, which the launcher takes, has no limit."""
    if machine.exists("dev/iommu"):
        return Finding("vfio-limit", Status.OK, "iommufd has no limit on mappings")
    text = (machine.text("sys/module/vfio_iommu_type1/parameters/dma_entry_limit") or "").strip()
    if not re.fullmatch("[0-9]{1,10}", text):
        return Finding(
            "vfio-limit", Status.UNKNOWN, "vfio_iommu_type1 is not loaded", "see iommufd, which has no limit"
        )
    needed = machine.memory << 8
    found = f"dma_entry_limit {text}, {needed} pages to map"
    if int(text) >= needed:
        return Finding("vfio-limit", Status.OK, found)
    remedy = f"options vfio_iommu_type1 dma_entry_limit={needed} in /etc/modprobe.d, or iommufd"
    return Finding("vfio-limit", Status.MISSING, found, remedy)


def memlock(machine: Machine) -> Finding:
    """VFIO pins what the guest shares, counted against the limit of this user."""
    status = re.search(r"^CapEff:\s*([0-9a-f]+)$", machine.text("proc/self/status") or "", re.MULTILINE)
    if status is not None and int(status[1], 16) >> _CAP_IPC_LOCK & 1:
        return Finding("memlock", Status.OK, "no limit (CAP_IPC_LOCK)")
    limits = machine.text("proc/self/limits") or ""
    match = re.search(r"^Max locked memory\s+(\S+)", limits, re.MULTILINE)
    if match is None:
        return Finding("memlock", Status.UNKNOWN, "/proc/self/limits tells nothing", "ulimit -l")
    if match[1] == "unlimited" or int(match[1]) >> 20 >= machine.memory:
        return Finding("memlock", Status.OK, f"limit {match[1]}")
    return Finding(
        "memlock",
        Status.MISSING,
        f"limit {int(match[1]) >> 20} MiB, the guest has {machine.memory} MiB",
        "ulimit -l unlimited as root, or LimitMEMLOCK=infinity in the unit that launches",
    )


def _each(machine: Machine, name: str, wrong: Callable[[str], str | None], good: str, remedy: str) -> Finding:
    addresses = _h100(machine)
    if not addresses:
        return _none(name)
    found = [text for address in addresses if (text := wrong(address)) is not None]
    if found:
        return Finding(name, Status.MISSING, "; ".join(found), remedy)
    return Finding(name, Status.OK, good)


def _none(name: str) -> Finding:
    return Finding(name, Status.UNKNOWN, "no H100 to look at", "see gpus; then run this once more")


def _nvidia(machine: Machine) -> list[str]:
    return [
        address
        for address in machine.names(_DEVICES)
        if _value(machine, address, "vendor") == "0x10de" and _value(machine, address, "class")[:4] == "0x03"
    ]


def _h100(machine: Machine) -> list[str]:
    return [address for address in _nvidia(machine) if _id(machine, address) in _H100]


def _id(machine: Machine, address: str) -> str:
    return _value(machine, address, "device")


def _value(machine: Machine, address: str, name: str) -> str:
    return (machine.text(f"{_DEVICES}/{address}/{name}") or "").strip()


def _link(machine: Machine, address: str, name: str) -> str:
    try:
        return (machine.root / _DEVICES / address / name).readlink().name
    except OSError:
        return ""
