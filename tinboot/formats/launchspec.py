"""What one launch is made of: what the launch digest covers, kept apart from what it does not.

    LaunchSpec
    ├── measured    in MEASUREMENT: firmware, kernel, initrd, command line, vCPUs, their model,
    │               guest features, and the VMM, whose way of building the first CPU state it covers
    ├── policy      in the report beside the measurement; a verifier has to look at it separately
    └── the rest    in neither: memory, disks, GPUs, ports. A disk is safe through dm-verity, whose
                    root hashes are in the command line and in the config that it hashes.

The launcher turns a spec into arguments, `tinboot measure` turns the same spec into the digest.
Paths are the host's; the digest takes the bytes behind them.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tinboot.formats import bootlog, cmdline, configdisk, gpugate, vcpumodels
from tinboot.formats.errors import Refused
from tinboot.formats.halt import Refusal

#: Without interrupt remapping (the launcher makes no vIOMMU) an APIC id has 8 bits, and 255 broadcasts.
MAX_VCPUS = 255

#: MiB. Below, no kernel unpacks; above, more than any server of this generation holds.
MIN_MEMORY, MAX_MEMORY = 64, 16 << 20

#: Tinfoil's published schema: at most 24 model disks and 8 GPUs.
MAX_VOLUMES, MAX_GPUS = 24, 8

#: virtio-blk (VIRTIO_BLK_ID_BYTES, Virtio 1.2, 5.2.6.1). QEMU cuts a longer one without a word.
SERIAL_BYTES = 20

DEFAULT_MODEL = "EPYC-v4"

#: SEV_FEATURES in the VMSA (AMD APM 2, table B-4): bit 0 SNP active, bit 5 debug swap, bit 9 secure TSC.
SNP_ACTIVE, SNP_DEBUG_SWAP, SNP_SECURE_TSC = 0x1, 0x21, 0x201
FEATURES = (SNP_ACTIVE, SNP_DEBUG_SWAP, SNP_SECURE_TSC)

#: Guest policy (SEV-SNP ABI 1.55, table 9): bit 16 allows SMT, bit 17 must be one, from bit 26 on zero.
DEFAULT_POLICY = 0x30000
POLICY_MBO, POLICY_MIGRATE, POLICY_DEBUG, _POLICY_BITS = 1 << 17, 1 << 18, 1 << 19, 26

PCI_ADDRESS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")


class Measured(NamedTuple):
    """What the launch digest covers. Without firmware there is no digest: emulation only."""

    firmware: str | None
    kernel: str
    initrd: str
    command_line: cmdline.CommandLine
    vcpus: int
    vcpu_model: str = DEFAULT_MODEL
    guest_features: int = SNP_ACTIVE
    vmm: str = "QEMU"


class Disk(NamedTuple):
    """A raw disk, read-only in every launch. `role` is "config", "root", "volume" or one of `_EXTRAS`."""

    role: str
    path: str
    serial: str


class Forward(NamedTuple):
    """A TCP port of the host (IPv4 address) that leads to a port of the guest."""

    address: str
    port: int
    guest_port: int


class LaunchSpec(NamedTuple):
    """One launch. `memory` in MiB; GPUs by PCI address, `dddd:bb:dd.f` in lower case."""

    measured: Measured
    memory: int
    disks: tuple[Disk, ...]
    policy: int = DEFAULT_POLICY
    gpus: tuple[str, ...] = ()
    forwards: tuple[Forward, ...] = ()


def command_line(spec: LaunchSpec) -> str:
    """The measured command line, without the NUL that its hash covers and QEMU adds."""
    return cmdline.render(spec.measured.command_line)


def validate(spec: LaunchSpec) -> LaunchSpec:
    """`spec` itself; raises `Refused` for one that could not be measured or would not start."""
    _measured(spec.measured)
    if not MIN_MEMORY <= spec.memory <= MAX_MEMORY:
        raise Refused(f"memory is {spec.memory} MiB, expected {MIN_MEMORY} to {MAX_MEMORY}")
    check_policy(spec.policy)
    _disks(spec.disks)
    _gpus(spec.gpus)
    _forwards(spec.forwards)
    return spec


def _measured(measured: Measured) -> None:
    try:
        cmdline.render(measured.command_line)
    except Refusal as error:
        raise Refused(f"the command line: {error.detail}") from error
    for name, path in (("kernel", measured.kernel), ("initrd", measured.initrd)):
        _path(name, path)
    if measured.firmware is not None:
        _path("firmware", measured.firmware)
    if not 1 <= measured.vcpus <= MAX_VCPUS:
        raise Refused(
            f"vcpus is {measured.vcpus}, expected 1 to {MAX_VCPUS}",
            "lower `cpus` in the config: more need an interrupt-remapping vIOMMU, which no SNP guest has",
        )
    if measured.vcpu_model not in vcpumodels.SIGNATURES:
        raise Refused(
            f"the vCPU model is {measured.vcpu_model!r}, expected a named EPYC model",
            "the model's CPUID signature is measured, so it may not depend on the host's CPU",
        )
    if measured.guest_features not in FEATURES:
        expected = ", ".join(hex(f) for f in FEATURES)
        raise Refused(f"guest features are {measured.guest_features:#x}, expected one of {expected}")
    if measured.vmm != "QEMU":
        raise Refused(f"the VMM is {measured.vmm!r}, expected 'QEMU'")


def check_policy(policy: int) -> None:
    """Raises `Refused` for a guest policy that no launch may or can have."""
    if policy < 0 or policy >> _POLICY_BITS or not policy & POLICY_MBO:
        raise Refused(f"policy is {policy:#x}: bit 17 must be one and every bit from 26 on zero")
    if policy & POLICY_DEBUG:
        raise Refused(f"policy is {policy:#x}: with bit 19 (debug) the host may read the guest's memory")
    if policy & POLICY_MIGRATE:
        raise Refused(f"policy is {policy:#x}: KVM starts no guest with bit 18 (migration agent)")


def _disks(disks: tuple[Disk, ...]) -> None:
    roles = [disk.role for disk in disks]
    for role in ("config", "root"):
        if roles.count(role) != 1:
            raise Refused(f"{roles.count(role)} disks have the role {role}, expected one")
    if unknown := set(roles) - {"config", "root", "volume", *_EXTRAS}:
        extras = " or ".join(_EXTRAS)
        raise Refused(f"a disk has the role {min(unknown)!r}, expected config, root, volume, {extras}")
    if len(roles) - 2 > MAX_VOLUMES:
        raise Refused(f"{len(roles) - 2} disks beside config and root, expected at most {MAX_VOLUMES}")
    for role, what in _EXTRAS.items():
        if roles.count(role) > 1:
            raise Refused(f"{roles.count(role)} disks of {what}, expected one")
    serials: set[str] = set()
    for disk in disks:
        _path(disk.role, disk.path)
        if not re.fullmatch(r"[0-9a-z-]+", disk.serial) or len(disk.serial) > SERIAL_BYTES:
            raise Refused(
                f"the serial of {disk.path} is {disk.serial!r}, "
                f"expected 1 to {SERIAL_BYTES} of 0-9, a-z and -"
            )
        if disk.serial in serials:
            raise Refused(
                f"two disks have the serial {disk.serial}, {disk.path} is the second",
                "the guest halts when it finds two; is one volume given twice?",
            )
        serials.add(disk.serial)
        fixed = _SERIALS.get(disk.role, disk.serial)
        if disk.serial != fixed:
            raise Refused(f"the {disk.role}'s serial is {disk.serial!r}, expected {fixed!r}")


#: Disks that a launch may have beside those that are attested: role to content.
_EXTRAS = {"gpu-ocsp": "OCSP responses", "operator": "operator's input"}

#: Of those whose content does not say it.
_SERIALS = {
    "config": configdisk.SERIAL,
    "gpu-ocsp": gpugate.OCSP_SERIAL,
    "operator": bootlog.OPERATOR_SERIAL,
}


def _gpus(gpus: tuple[str, ...]) -> None:
    if len(gpus) > MAX_GPUS:
        raise Refused(f"{len(gpus)} GPUs, expected at most {MAX_GPUS}")
    for gpu in gpus:
        if not PCI_ADDRESS.fullmatch(gpu):
            raise Refused(f"the GPU {gpu!r} is not a PCI address like 0000:41:00.0")
    if len(set(gpus)) != len(gpus):
        raise Refused(f"a GPU is given twice: {', '.join(gpus)}")


def _forwards(forwards: tuple[Forward, ...]) -> None:
    for forward in forwards:
        octets = forward.address.split(".")
        if len(octets) != 4 or not all(re.fullmatch("0|[1-9][0-9]{0,2}", o) and int(o) < 256 for o in octets):
            raise Refused(f"a port is forwarded from {forward.address!r}, expected an IPv4 address")
        if not (0 < forward.port < 65536 and 0 < forward.guest_port < 65536):
            raise Refused(
                f"port {forward.port} is forwarded to {forward.guest_port}, expected two of 1 to 65535"
            )
    if len({(f.address, f.port) for f in forwards}) != len(forwards):
        raise Refused("one port of the host is forwarded twice")


def _path(name: str, path: str) -> None:
    """Commas are the renderer's to escape; what no argument list can carry is refused here."""
    if not path or any(ord(c) < 32 or ord(c) == 127 for c in path):
        raise Refused(f"the path of {name} is {path!r}: empty, or with control characters")
