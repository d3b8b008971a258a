"""`tinboot host check` on made-up trees: a good host, and one fault at a time."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_ovmf import SECTIONS, image

from tinboot.host import check
from tinboot.host.machine import Finding, Machine, SnpStatus, Status, observe, parse_snp_status

GPUS = ("0000:41:00.0", "0000:c1:00.0")
KVM = "sys/module/kvm_amd/parameters"
PCI = "sys/bus/pci/devices"
LIMIT = "sys/module/vfio_iommu_type1/parameters/dma_entry_limit"
IVHD = "sys/class/iommu/ivhd0/amd-iommu/features"

FILES = {
    "proc/cpuinfo": "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\n"
    "model name\t: AMD EPYC 9354 32-Core Processor\n"
    "flags\t\t: fpu sme sev sev_es sev_snp\n\nprocessor\t: 1\n",
    "proc/sys/kernel/osrelease": "6.12.48+deb13-amd64\n",
    "proc/cmdline": "BOOT_IMAGE=/vmlinuz root=/dev/sda1 ro quiet\n",
    "proc/meminfo": "MemTotal: 792000000 kB\nMemAvailable:   700000000 kB\n"
    "HugePages_Free:        0\nHugepagesize:       2048 kB\n",
    "proc/self/limits": "Limit  Soft Limit  Hard Limit  Units\n"
    "Max locked memory         unlimited            unlimited            bytes     \n",
    "proc/self/status": "Name:\tpython\nCapEff:\t0000000000000000\n",
    "sys/fs/cgroup/misc.capacity": "sev 410\nsev_es 99\n",
    f"{KVM}/sev": "Y\n",
    f"{KVM}/sev_es": "Y\n",
    f"{KVM}/sev_snp": "Y\n",
    IVHD: "a5bf7320a2294aee:1d\n",
    "sys/class/iommu/ivhd1/amd-iommu/features": "1d:a5bf7320a2294aee\n",
    "dev/kvm": "",
    "dev/sev": "",
    "dev/iommu": "",
    LIMIT: "65535\n",
}
GOOD_SNP = SnpStatus((1, 55), 38, rmp=True)


def put(root: Path, path: str, content: str | bytes) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(content.encode() if isinstance(content, str) else content)


def gpu(root: Path, address: str, device: str = "0x2331", driver: str = "vfio-pci") -> None:
    at = f"{PCI}/{address}"
    put(root, f"{at}/vendor", "0x10de\n")
    put(root, f"{at}/device", f"{device}\n")
    put(root, f"{at}/class", "0x030200\n")
    (root / at / "driver").symlink_to(f"../../drivers/{driver}")
    put(root, f"{at}/iommu_group/devices/{address}", "")


@pytest.fixture
def good(tmp_path: Path) -> Machine:
    for path, content in FILES.items():
        put(tmp_path, path, content)
    put(tmp_path, "usr/share/ovmf/OVMF.amdsev.fd", image())
    (tmp_path / "sys/bus/pci/drivers/vfio-pci").mkdir(parents=True)
    (tmp_path / "sys/class/vfio-dev").mkdir(parents=True)
    for address in GPUS:
        gpu(tmp_path, address)
    put(tmp_path, f"{PCI}/0000:00:00.0/vendor", "0x1022\n")
    return Machine(tmp_path, "QEMU emulator version 10.0.2 (Debian)", GOOD_SNP, 131_072)


def found(machine: Machine) -> dict[str, Finding]:
    return {finding.name: finding for finding in check.run(machine)}


def test_good_host_leaves_only_what_no_host_can_tell(good: Machine) -> None:
    findings = found(good)
    assert len(findings) == len(check.CHECKS)
    wrong = {name: f for name, f in findings.items() if f.status is not Status.OK}
    assert set(wrong) == {"gpu-cc-mode"}
    assert wrong["gpu-cc-mode"].status is Status.UNKNOWN
    assert "--query-cc-mode" in wrong["gpu-cc-mode"].remedy
    assert check.exit_code(list(findings.values())) == 6
    assert check.exit_code([f for f in findings.values() if f.status is Status.OK]) == 0


def test_an_empty_tree_is_never_ok_and_never_a_traceback(tmp_path: Path) -> None:
    findings = check.run(Machine(tmp_path, None, None, 1024))
    assert not [f for f in findings if f.status is Status.OK]
    assert all(f.remedy and f.found for f in findings)
    assert check.exit_code(findings) == 5


def change(path: str, content: str) -> Callable[[Machine], Machine]:
    def apply(machine: Machine) -> Machine:
        put(machine.root, path, content)
        return machine

    return apply


def edit(path: str, old: str, new: str) -> Callable[[Machine], Machine]:
    assert old in FILES[path]
    return change(path, FILES[path].replace(old, new))


def drop(path: str) -> Callable[[Machine], Machine]:
    def apply(machine: Machine) -> Machine:
        target = machine.root / path
        target.rename(machine.root / "dropped")
        return machine

    return apply


def rebind(driver: str | None) -> Callable[[Machine], Machine]:
    def apply(machine: Machine) -> Machine:
        link = machine.root / PCI / GPUS[1] / "driver"
        link.unlink()
        if driver:
            link.symlink_to(f"../../drivers/{driver}")
        return machine

    return apply


def no_rmp(machine: Machine) -> Machine:
    return replace(machine, snp=SnpStatus((1, 55), 38, rmp=False))


def without_iommufd(limit: str) -> Callable[[Machine], Machine]:
    def apply(machine: Machine) -> Machine:
        return change(LIMIT, limit)(drop("dev/iommu")(machine))

    return apply


CPU = "proc/cpuinfo"
MISSING, UNKNOWN = Status.MISSING, Status.UNKNOWN
FAULTS: list[tuple[str, Callable[[Machine], Machine], Status, str]] = [
    ("cpu", edit(CPU, "AuthenticAMD", "GenuineIntel"), MISSING, "GenuineIntel"),
    ("cpu", edit(CPU, "model\t\t: 17", "model\t\t: 33"), MISSING, "family 0x19 model 0x21"),
    ("cpu", edit(CPU, "fpu sme", "fpu hypervisor sme"), MISSING, "inside a virtual machine"),
    ("cpu", drop(CPU), UNKNOWN, "tells nothing"),
    ("cpu-flags", edit(CPU, " sev_snp", ""), MISSING, "no sev_snp in"),
    ("cpu-flags", edit(CPU, "sme sev sev_es sev_snp", ""), MISSING, "no sev, sev_es, sev_snp"),
    ("psp-device", drop("dev/sev"), MISSING, "no /dev/sev"),
    ("psp-firmware", lambda m: replace(m, snp=SnpStatus((1, 55), 20, rmp=True)), MISSING, "build 20"),
    ("psp-firmware", lambda m: replace(m, snp=SnpStatus((1, 51), 99, rmp=True)), MISSING, "API 1.51"),
    ("psp-firmware", lambda m: replace(m, snp=None), UNKNOWN, "gives no SNP status"),
    ("rmp", no_rmp, MISSING, "not set up"),
    ("asids", change("sys/fs/cgroup/misc.capacity", "sev 509\nsev_es 0\n"), MISSING, "none for SEV-ES"),
    ("asids", change("sys/fs/cgroup/misc.capacity", "sev 509\n"), MISSING, "none for SEV-ES"),
    ("asids", drop("sys/fs/cgroup/misc.capacity"), UNKNOWN, "misc.capacity"),
    ("kernel", change("proc/sys/kernel/osrelease", "6.8.0-45-generic\n"), MISSING, "6.8.0-45"),
    ("kernel", change("proc/sys/kernel/osrelease", "6.1.0\n"), MISSING, "6.1.0"),
    ("kernel", drop("proc/sys/kernel/osrelease"), UNKNOWN, "no version"),
    ("kvm", drop("dev/kvm"), MISSING, "no /dev/kvm"),
    ("kvm", drop("sys/module/kvm_amd"), MISSING, "kvm_amd is not loaded"),
    ("kvm-sev", change(f"{KVM}/sev", "N\n"), MISSING, "sev=N"),
    ("kvm-sev-es", change(f"{KVM}/sev_es", "0\n"), MISSING, "sev_es=0"),
    ("kvm-sev-snp", change(f"{KVM}/sev_snp", "N\n"), MISSING, "sev_snp=N"),
    ("kvm-sev-snp", drop(f"{KVM}/sev_snp"), MISSING, "no parameter sev_snp"),
    ("kvm-sev-snp", drop("sys/module/kvm_amd"), UNKNOWN, "not loaded"),
    ("iommu", change("proc/cmdline", "ro iommu=pt\n"), MISSING, "iommu=pt on"),
    ("iommu", change("proc/cmdline", "ro iommu=memaper,pt\n"), MISSING, "iommu=memaper,pt"),
    ("iommu", change("proc/cmdline", "amd_iommu=off\n"), MISSING, "amd_iommu=off"),
    ("iommu", change("proc/cmdline", "iommu.passthrough=1\n"), MISSING, "iommu.passthrough=1"),
    ("iommu", drop("sys/class/iommu"), MISSING, "no AMD IOMMU"),
    ("iommu-snp", change(IVHD, "1d:8000000000000000\n"), Status.OK, "SNPSup"),
    ("iommu-snp", change(IVHD, "a5bf7320a2294aee\n"), Status.OK, "SNPSup"),
    ("iommu-snp", change(IVHD, "25bf732fa2295afe:1d\n"), MISSING, "ivhd0 without SNPSup"),
    ("iommu-snp", change(IVHD, "?\n"), UNKNOWN, "ivhd0 shows no features"),
    ("iommu-snp", drop("sys/class/iommu"), UNKNOWN, "no AMD IOMMU"),
    ("qemu", lambda m: replace(m, qemu="QEMU emulator version 9.0.4"), MISSING, "9.0; SNP guests from 9.1"),
    ("qemu", lambda m: replace(m, qemu=None), MISSING, "no QEMU"),
    ("qemu", lambda m: replace(m, qemu="hello"), UNKNOWN, "'hello'"),
    ("ovmf", drop("usr/share/ovmf/OVMF.amdsev.fd"), MISSING, "no AmdSev OVMF"),
    ("ovmf", lambda m: replace(m, firmware=m.root / "none.fd"), MISSING, "none.fd cannot be read"),
    ("memory", edit("proc/meminfo", "700000000", "70000000"), MISSING, "66 GiB available"),
    ("memory", edit("proc/meminfo", "MemAvailable", "MemFree"), UNKNOWN, "tells nothing"),
    ("vfio", drop("sys/bus/pci/drivers/vfio-pci"), MISSING, "vfio-pci"),
    ("iommufd", drop("dev/iommu"), MISSING, "no /dev/iommu"),
    ("iommufd", drop("sys/class/vfio-dev"), MISSING, "no /sys/class/vfio-dev"),
    ("vfio-limit", without_iommufd("65535\n"), MISSING, "dma_entry_limit 65535, 33554432 pages"),
    ("vfio-limit", without_iommufd("33554432\n"), Status.OK, "dma_entry_limit 33554432"),
    ("vfio-limit", without_iommufd(""), UNKNOWN, "not loaded"),
    ("memlock", edit("proc/self/limits", "unlimited", "8388608"), MISSING, "limit 8 MiB"),
    ("memlock", edit("proc/self/limits", "Max locked", "Max unlocked"), UNKNOWN, "tells nothing"),
    ("gpus", drop(PCI), MISSING, "no NVIDIA GPU"),
    ("gpu-driver", rebind("nvidia"), MISSING, "0000:c1:00.0 is bound to nvidia"),
    ("gpu-driver", rebind(None), MISSING, "bound to no driver"),
    ("gpu-driver", drop(PCI), UNKNOWN, "no H100"),
    (
        "gpu-group",
        change(f"{PCI}/{GPUS[0]}/iommu_group/devices/0000:41:00.1", ""),
        MISSING,
        "0000:41:00.0 with 0000:41:00.1",
    ),
    ("gpu-group", drop(f"{PCI}/{GPUS[0]}/iommu_group"), MISSING, "0000:41:00.0 is in none"),
    ("gpu-cc-mode", drop(PCI), UNKNOWN, "no H100"),
]


@pytest.mark.parametrize(("name", "fault", "status", "text"), FAULTS, ids=[f"{f[0]}: {f[3]}" for f in FAULTS])
def test_one_fault(
    good: Machine, name: str, fault: Callable[[Machine], Machine], status: Status, text: str
) -> None:
    finding = found(fault(good))[name]
    assert finding.status is status
    assert text in finding.found
    assert bool(finding.remedy) == (status is not Status.OK)


def test_rmp_follows_from_kvm_where_the_device_is_silent(good: Machine) -> None:
    assert found(replace(good, snp=None))["rmp"].status is Status.OK
    put(good.root, f"{KVM}/sev_snp", "N")
    assert found(replace(good, snp=None))["rmp"].status is Status.UNKNOWN


@pytest.mark.parametrize(
    ("family", "model", "product"),
    [(25, 1, "Milan"), (25, 17, "Genoa"), (25, 160, "Genoa"), (26, 2, "Turin")],
)
def test_products(good: Machine, family: int, model: int, product: str) -> None:
    text = FILES[CPU].replace(": 25", f": {family}").replace(": 17", f": {model}")
    put(good.root, CPU, text)
    assert found(good)["cpu"].found.startswith(f"{product}, ")


def test_firmware_without_room_for_hashes(good: Machine) -> None:
    put(good.root, "plain.fd", image(hash_table=(0, 0)))
    put(good.root, "sections.fd", image(SECTIONS[:-1]))
    put(good.root, "other.fd", bytes(8192))
    for name in ("plain.fd", "sections.fd", "other.fd"):
        finding = found(replace(good, firmware=good.root / name))["ovmf"]
        assert (finding.status, "kernel hashes" in finding.found) == (MISSING, True)


def test_what_is_no_firmware(good: Machine) -> None:
    put(good.root, "short.fd", bytes(100))
    finding = found(replace(good, firmware=good.root / "short.fd"))["ovmf"]
    assert (finding.status, "100 bytes" in finding.found) == (MISSING, True)


def test_reserved_huge_pages_are_named_as_the_reason(good: Machine) -> None:
    text = FILES["proc/meminfo"].replace("700000000", "7000000").replace("        0\n", "    80000\n")
    put(good.root, "proc/meminfo", text)
    finding = found(good)["memory"]
    assert (finding.status, "huge pages" in finding.remedy) == (MISSING, True)


def test_a_capability_lifts_the_limit_on_locked_memory(good: Machine) -> None:
    put(good.root, "proc/self/limits", FILES["proc/self/limits"].replace("unlimited", "8388608"))
    put(good.root, "proc/self/status", "CapEff:\t0000000000004000\n")
    assert found(good)["memlock"].status is Status.OK
    put(good.root, "proc/self/status", "CapEff:\t0000000000008000\n")
    assert found(good)["memlock"].status is MISSING


def test_another_nvidia_gpu_is_no_h100(good: Machine) -> None:
    gpu(good.root, "0000:05:00.0", device="0x20b5")
    assert found(good)["gpus"].found == "2: H100 PCIe"
    for address in GPUS:
        put(good.root, f"{PCI}/{address}/device", "0x20b5\n")
    finding = found(good)["gpus"]
    assert (finding.status, finding.found) == (MISSING, "NVIDIA 0x20b5, no H100")


def test_snp_status_layout() -> None:
    data = bytes([1, 55, 1, 0x01]) + (38).to_bytes(4, "little") + bytes(24)
    assert parse_snp_status(data) == GOOD_SNP
    assert not parse_snp_status(data[:3] + b"\xfe" + data[4:]).rmp


def test_observing_a_tree_without_devices(tmp_path: Path) -> None:
    machine = observe(1024, None, str(tmp_path / "none"), tmp_path)
    assert (machine.qemu, machine.snp) == (None, None)
    put(tmp_path, "dev/sev", "")  # a file that knows no ioctl
    assert observe(1024, None, str(tmp_path / "none"), tmp_path).snp is None


def test_every_check_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs/host.md").read_text()
    names = re.findall(r"^\| `([a-z0-9-]+)` \|", text, re.MULTILINE)
    assert names == [f.name for f in check.run(Machine(Path("/nonexistent"), None, None, 1024))]
