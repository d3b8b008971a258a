"""The kernel: version, KVM, IOMMU."""

from __future__ import annotations

import re

from tinboot.host.machine import Finding, Machine, Status

#: The first Linux whose KVM starts SNP guests (guest_memfd behind them).
_KERNEL = (6, 11)

#: SNPSup of the IOMMU's extended feature register (Linux, drivers/iommu/amd/amd_iommu_types.h, FEATURE_SNP).
_IOMMU_SNP_BIT = 63


def kernel(machine: Machine) -> Finding:
    text = (machine.text("proc/sys/kernel/osrelease") or "").strip()
    match = re.match(r"(\d+)\.(\d+)", text)
    if match is None:
        return Finding(
            "kernel", Status.UNKNOWN, "no version in /proc", "uname -r; it has to be 6.11 or newer"
        )
    if (int(match[1]), int(match[2])) >= _KERNEL:
        return Finding("kernel", Status.OK, text)
    return Finding(
        "kernel", Status.MISSING, f"{text}; SNP hosts from 6.11 on", "install Linux 6.11 or newer (Debian 13)"
    )


def kvm(machine: Machine) -> Finding:
    if not machine.exists("sys/module/kvm_amd"):
        other = [name for name in machine.names("sys/module") if name.startswith("kvm_")]
        found = f"kvm_amd is not loaded{', but ' + ', '.join(other) if other else ''}"
        return Finding("kvm", Status.MISSING, found, "modprobe kvm_amd; enable SVM in the BIOS")
    if not machine.exists("dev/kvm"):
        return Finding("kvm", Status.MISSING, "no /dev/kvm", "modprobe kvm_amd; enable SVM in the BIOS")
    return Finding("kvm", Status.OK, "kvm_amd, /dev/kvm")


def kvm_sev(machine: Machine) -> Finding:
    return _parameter(machine, "sev")


def kvm_sev_es(machine: Machine) -> Finding:
    return _parameter(machine, "sev_es")


def kvm_sev_snp(machine: Machine) -> Finding:
    return _parameter(machine, "sev_snp")


def _parameter(machine: Machine, parameter: str) -> Finding:
    name = f"kvm-{parameter.replace('_', '-')}"
    text = machine.text(f"sys/module/kvm_amd/parameters/{parameter}")
    if not machine.exists("sys/module/kvm_amd"):
        return Finding(name, Status.UNKNOWN, "kvm_amd is not loaded", "see kvm; then run this once more")
    if text is None:
        return Finding(
            name,
            Status.MISSING,
            f"kvm_amd has no parameter {parameter}",
            "use a kernel with CONFIG_KVM_AMD_SEV, 6.11 or newer",
        )
    if text.strip() in {"Y", "1"}:
        return Finding(name, Status.OK, f"kvm_amd {parameter}=Y")
    return Finding(
        name,
        Status.MISSING,
        f"kvm_amd {parameter}={text.strip()[:20]}",
        f"put `options kvm_amd {parameter}=1` into /etc/modprobe.d and reload it; "
        "if it stays N, the CPU, the BIOS or the IOMMU is why",
    )


def iommu(machine: Machine) -> Finding:
    """Linux gives SNP up when the IOMMU is off or passes DMA through (drivers/iommu/amd/init.c)."""
    words = (machine.text("proc/cmdline") or "").split()
    if against := [word for word in words if _against_snp(word)]:
        return Finding(
            "iommu",
            Status.MISSING,
            f"{' '.join(against)} on the kernel command line",
            f"take {' '.join(against)} out: SNP needs the IOMMU on, translating, with v1 page tables",
        )
    devices = [name for name in machine.names("sys/class/iommu") if name.startswith("ivhd")]
    if devices:
        return Finding("iommu", Status.OK, f"{len(devices)} AMD IOMMU{'s' if len(devices) > 1 else ''}")
    return Finding(
        "iommu", Status.MISSING, "no AMD IOMMU in /sys/class/iommu", "enable the IOMMU in the BIOS"
    )


def _against_snp(word: str) -> bool:
    name, _, values = word.partition("=")
    bad = {
        "amd_iommu": {"off", "pgtbl_v2"},
        "iommu": {"off", "pt"},
        "iommu.passthrough": {"1", "y", "Y", "on"},
    }
    return bool(bad.get(name, set()) & set(values.split(",")))


def iommu_snp(machine: Machine) -> Finding:
    """`features` holds one or two hex words, in an order that changed; bit 63 of the other is reserved."""
    devices = [name for name in machine.names("sys/class/iommu") if name.startswith("ivhd")]
    if not devices:
        return Finding(
            "iommu-snp", Status.UNKNOWN, "no AMD IOMMU to ask", "see iommu; then run this once more"
        )
    without: list[str] = []
    for device in devices:
        words = (machine.text(f"sys/class/iommu/{device}/amd-iommu/features") or "").strip().split(":")
        if not all(re.fullmatch("[0-9a-f]{1,16}", word) for word in words):
            return Finding(
                "iommu-snp", Status.UNKNOWN, f"{device} shows no features", "journalctl -k | grep 'AMD-Vi'"
            )
        if not any(int(word, 16) >> _IOMMU_SNP_BIT & 1 for word in words):
            without.append(device)
    if without:
        return Finding(
            "iommu-snp",
            Status.MISSING,
            f"{', '.join(without)} without SNPSup",
            "update the BIOS and enable SEV-SNP in it",
        )
    return Finding("iommu-snp", Status.OK, "SNPSup in every IOMMU")
