"""What this machine lacks to run a guest under SEV-SNP with H100s: the checks, in order.

A check is ok, missing, or cannot tell. Nothing of it is trusted by anyone: a host that lies about
itself starts guests that fail attestation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tinboot.host.checks import gpu, kernel, processor, software
from tinboot.host.machine import Finding, Machine, Status

CHECKS: tuple[Callable[[Machine], Finding], ...] = (
    processor.cpu,
    processor.cpu_flags,
    processor.psp_device,
    processor.psp_firmware,
    processor.rmp,
    processor.asids,
    kernel.kernel,
    kernel.kvm,
    kernel.kvm_sev,
    kernel.kvm_sev_es,
    kernel.kvm_sev_snp,
    kernel.iommu,
    kernel.iommu_snp,
    software.qemu,
    software.ovmf,
    software.memory,
    gpu.vfio,
    gpu.iommufd,
    gpu.vfio_limit,
    gpu.memlock,
    gpu.gpus,
    gpu.gpu_driver,
    gpu.gpu_group,
    gpu.gpu_cc_mode,
)


def run(machine: Machine) -> list[Finding]:
    """One finding a check, in order; no check depends on another's."""
    return [check(machine) for check in CHECKS]


def exit_code(findings: Sequence[Finding]) -> int:
    """0 all ok; 5 something is missing; 6 nothing is, but something cannot be told."""
    statuses = {finding.status for finding in findings}
    if Status.MISSING in statuses:
        return 5
    return 6 if Status.UNKNOWN in statuses else 0
