"""From a launch specification to QEMU's arguments: pure, and the same for the same specification.

Two forms share kernel, initrd, command line and disks:

    PRODUCTION  SEV-SNP under KVM: firmware with kernel hashes, memory behind guest_memfd, GPUs by VFIO
    HARNESS     emulation: any machine, no SNP, no GPU

Each option and property has its reason in docs/launch.md; a test keeps that table complete.
Nothing here can weaken the guest: what counts is measured, and the guest refuses the rest.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from tinboot.formats import launchspec
from tinboot.formats.errors import Refused
from tinboot.formats.launchspec import Disk, LaunchSpec

QEMU = "qemu-system-x86_64"

#: RDRAND, which the default model lacks; not AVX2, whose SHA-256 QEMU emulates at half the speed of AVX's.
HARNESS_CPU = "max,avx2=off"

#: MiB of 64-bit MMIO that one H100 needs: its BAR 1 is 128 GiB, as large as the next power of two
#: above its 80 GB of memory; the smaller BARs make the window the next power of two above the sum.
_GPU_WINDOW = 128 << 10

#: MiB. QEMU's named CPU models have 40 address bits (target/i386/cpu.c, TCG_PHYS_ADDR_BITS); its PCI hole
#: above memory is 32 GiB (hw/pci-host/q35.c); from 1012 GiB on it has to move memory above AMD's
#: HyperTransport range (hw/i386/pc.c, AMD_HT_START), which those 40 bits do not reach.
_MODEL_LIMIT, _PCI_HOLE, _AMD_HOLE = 1 << 20, 32 << 10, 1012 << 10

#: Slots of pcie.0 on q35: 0 is the host bridge and 31 the ICH9. Fixed, so that adding one device
#: moves no other: the NIC, up to 26 disks, and the GPUs' root ports as functions of one slot.
_NIC_SLOT, _FIRST_DISK_SLOT, _GPU_SLOT = 1, 2, 28


class Form(enum.Enum):
    """How the guest is run."""

    PRODUCTION = "production"
    HARNESS = "harness"


def qemu_arguments(spec: LaunchSpec, form: Form, program: str = QEMU) -> list[str]:
    """The whole argument list, `program` first; raises `Refused` for a specification that cannot start."""
    launchspec.validate(spec)
    confidential = form is Form.PRODUCTION
    machine = _production_machine(spec) if confidential else _harness_machine(spec)
    measured = spec.measured
    firmware = [] if measured.firmware is None else ["-bios", measured.firmware]
    return [
        program,
        *machine,
        *("-smp", str(measured.vcpus)),
        *("-m", f"{spec.memory}M"),
        *("-no-user-config", "-nodefaults", "-no-reboot"),
        *("-display", "none", "-serial", "stdio"),
        *firmware,
        *("-kernel", measured.kernel),
        *("-initrd", measured.initrd),
        *("-append", launchspec.command_line(spec)),
        *_disks(spec.disks),
        *_network(spec),
        *_gpus(spec.gpus),
    ]


def option(driver: str, properties: Mapping[str, str | int]) -> str:
    """`driver,key=value,…` as QEMU's option parser reads it: a comma in a value is doubled."""
    return ",".join(
        [driver, *(f"{key}={str(value).replace(',', ',,')}" for key, value in properties.items())]
    )


def _production_machine(spec: LaunchSpec) -> list[str]:
    measured = spec.measured
    if measured.firmware is None:
        raise Refused(
            "the production form has no firmware",
            "name an AmdSev OVMF: without its kernel-hash check nothing that boots would be measured",
        )
    if measured.guest_features != launchspec.SNP_ACTIVE:
        raise Refused(
            f"guest features are {measured.guest_features:#x}, but QEMU starts SNP guests with "
            f"{launchspec.SNP_ACTIVE:#x} only"
        )
    cpu = option(measured.vcpu_model, {"host-phys-bits": "on"} if _needs_host_bits(spec) else {})
    return [
        "-enable-kvm",
        "-machine",
        option(
            "q35",
            {
                "confidential-guest-support": "sev0",
                "memory-backend": "ram0",
                "vmport": "off",
                "hpet": "off",
            },
        ),
        *("-cpu", cpu),
        "-object",
        option(
            "memory-backend-memfd",
            {"id": "ram0", "size": f"{spec.memory}M", "share": "true", "prealloc": "false"},
        ),
        "-object",
        option(
            "sev-snp-guest",
            {
                "id": "sev0",
                "policy": hex(spec.policy),
                "cbitpos": 51,
                "reduced-phys-bits": 1,
                "kernel-hashes": "on",
            },
        ),
    ]


def _harness_machine(spec: LaunchSpec) -> list[str]:
    if spec.gpus:
        raise Refused(
            f"{len(spec.gpus)} GPUs are given, but the harness form has none",
            "emulated memory is out of VFIO's reach; leave the GPUs out or launch in production form",
        )
    return ["-accel", "tcg", "-machine", "q35", "-cpu", HARNESS_CPU]


def _disks(disks: tuple[Disk, ...]) -> list[str]:
    arguments: list[str] = []
    for at, disk in enumerate(disks):
        node = f"disk{at}"
        arguments += [
            "-blockdev",
            option(
                "driver=raw",
                {"node-name": node, "read-only": "on", "file.driver": "file", "file.filename": disk.path},
            ),
            "-device",
            _virtio("virtio-blk-pci", _FIRST_DISK_SLOT + at, {"drive": node, "serial": disk.serial}),
        ]
    return arguments


def _network(spec: LaunchSpec) -> list[str]:
    if not spec.forwards:
        return []
    backend = option("user", {"id": "net0", "ipv6": "off", "restrict": "on"})
    for forward in spec.forwards:
        backend += f",hostfwd=tcp:{forward.address}:{forward.port}-:{forward.guest_port}"
    return ["-netdev", backend, "-device", _virtio("virtio-net-pci", _NIC_SLOT, {"netdev": "net0"})]


def _virtio(driver: str, slot: int, properties: Mapping[str, str]) -> str:
    return option(
        driver,
        {
            **properties,
            "bus": "pcie.0",
            "addr": f"{slot:#x}",
            "disable-legacy": "on",
            "iommu_platform": "true",
            "romfile": "",
        },
    )


def _gpus(gpus: tuple[str, ...]) -> list[str]:
    if not gpus:
        return []
    arguments = [
        *("-object", option("iommufd", {"id": "iommufd0"})),
        *("-fw_cfg", option("name=opt/ovmf/X-PciMmio64Mb", {"string": _mmio_window(len(gpus))})),
    ]
    for at, gpu in enumerate(gpus):
        port = option(
            "pcie-root-port",
            {
                "id": f"gpu{at}",
                "bus": "pcie.0",
                "addr": f"{_GPU_SLOT:#x}.{at}",
                "multifunction": "on",
                "chassis": at + 1,
            },
        )
        device = option("vfio-pci", {"host": gpu, "bus": f"gpu{at}", "iommufd": "iommufd0", "rombar": 0})
        arguments += ["-device", port, "-device", device]
    return arguments


def _mmio_window(gpus: int) -> int:
    """MiB, a power of two above what the BARs take: OVMF aligns the window to its own size."""
    return 1 << (gpus * _GPU_WINDOW).bit_length()


def _needs_host_bits(spec: LaunchSpec) -> bool:
    """Whether memory, PCI hole or GPU window end above what a named CPU model can address by itself."""
    top = 4096 + spec.memory  # MiB; the hole below 4 GiB moves memory up by at most that
    if top + _PCI_HOLE > _AMD_HOLE:
        return True
    if not spec.gpus:
        return False
    window = _mmio_window(len(spec.gpus))
    return -(-top // window) * window + window > _MODEL_LIMIT
