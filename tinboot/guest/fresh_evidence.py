"""What a caller's nonce gets: the GPUs' evidence for it, then a report that binds both, in a v3 document.

Runs in a process of its own (collector.py). Nothing here is kept or used twice: where a device refuses, is
busy or answers something else there is no document.
"""

from __future__ import annotations

from tinboot.formats import attestationcollateral, attestationdocument, certtable, deviceevidence, reportdata
from tinboot.formats.attestationcollateral import Collateral, Vcek
from tinboot.formats.attestationdocument import DocumentV3
from tinboot.formats.errors import Malformed
from tinboot.formats.gpuevidence import ARCHITECTURES, GpuEvidence
from tinboot.formats.servicesettings import Settings
from tinboot.guest import report
from tinboot.guest.attended import Attendance
from tinboot.guest.certificate_der import pem


def challenged(attendance: Attendance, settings: Settings, material: bytes, nonce: bytes) -> DocumentV3:
    """`material`: the guest's keys (cryptomaterial.py). Raises EvidenceError and `Refusal`."""
    device = deviceevidence.render(_gpus(attendance, settings, nonce))
    report_data = reportdata.v3(nonce, material, device)
    with attendance.call("the CPU's report"):
        evidence = report.collect(report_data)
    report.judge(evidence, report_data)
    return attestationdocument.compose_v3(
        nonce, evidence.report, material, device, endorsement(evidence.certificates)
    )


def load(settings: Settings) -> None:
    """Imports what `challenged` needs, once and before the first process, instead of in each."""
    if settings.gpus:
        from tinboot.guest import nvml  # noqa: F401, PLC0415


def _gpus(attendance: Attendance, settings: Settings, nonce: bytes) -> list[GpuEvidence]:
    """Not appraised: that is for whoever gave the nonce. The gate has, once, before they took work."""
    if not settings.gpus:
        return []
    from tinboot.guest import nvml  # noqa: PLC0415 a machine without GPUs does without its cost

    calls = nvml.Nvml(attendance)
    found = nvml.collect(calls, settings.gpus, settings.architecture, nonce, ready=True)
    arch = next(word for word, name in ARCHITECTURES.items() if name == settings.architecture)
    return [GpuEvidence(arch, gpu.chain, gpu.report, nonce) for gpu in found.gpus]


def endorsement(table: bytes) -> tuple[Collateral, ...]:
    """The host's certificates for this chip, where it gave all of them: a hint, which spares a fetch."""
    given = certtable.parse(table)
    chip = given.vcek or given.vlek
    if chip is None or given.ask is None or given.ark is None:
        return ()
    from tinboot.verify import certificate  # noqa: PLC0415 few hosts give any

    try:
        ders = [certificate.ders(one, "CERTIFICATE") for one in (chip, given.ask, given.ark)]
    except Malformed:
        return ()
    chain = "".join(pem("CERTIFICATE", der) for der in (*ders[1], *ders[2]))
    return (attestationcollateral.of_vcek(Vcek(ders[0][0], chain)),)
