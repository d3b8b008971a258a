"""Whether the evidence that was collected is good: by the native verifier always, by the second one if named.

Both see the same bytes, and both must accept. What decides becomes the reason of the halt.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from tinboot.formats.errors import TinbootError, Unavailable
from tinboot.formats.gpuevidence import ARCHITECTURES, GpuEvidence
from tinboot.formats.gpugate import Job
from tinboot.formats.halt import Refusal
from tinboot.verify import gpu_appraisal, gpu_binding, gpu_claims, gpu_ocsp, gpu_policy
from tinboot.verify.checks import Verdict
from tinboot.verify.gpu_appraisal import AcceptedGpus, Collateral
from tinboot.verify.gpu_platform import Versions

if TYPE_CHECKING:  # it is imported where a config names it
    from tinboot.guest.gpu_image import Image
    from tinboot.guest.nv_verifier import Place
    from tinboot.guest.nvml import Collected

#: Check of the native verifier -> reason; where its errors mean different things, by the error (`_reason`).
REASONS = {
    "chain-format": "gpu-evidence-malformed",
    "report-format": "gpu-evidence-malformed",
    "chain-length": "gpu-chain",
    "root-pinned": "gpu-root",
    "signature-parameters": "gpu-chain",
    "certificate-roles": "gpu-chain",
    "certificate-signatures": "gpu-chain",
    "firmware-identity": "gpu-chain",
    "report-signature": "gpu-signature",
    "dates": "gpu-expired",
    "revocation": "gpu-ocsp-invalid",
    "ocsp-strays": "gpu-ocsp-invalid",
    "architecture": "gpu-architecture",
    "fwid": "gpu-fwid",
    "nonce": "gpu-nonce",
    "driver-version": "gpu-version",
    "vbios-version": "gpu-version",
    "reference-values": "gpu-reference-values",
    "measurements": "gpu-measurement",
    "uncovered": "gpu-uncovered",
    "single-gpu": "gpu-mode",
    "count": "gpu-count",
    "distinct": "gpu-duplicate",
}

SECOND = "nv-local-gpu-verifier"


class Verified(NamedTuple):
    """Of GPUs that passed. `claims`: JSON, in NVIDIA's names."""

    evidence: tuple[GpuEvidence, ...]
    claims: bytes


def decide(
    job: Job,
    image: Image,
    ocsp: Sequence[bytes],
    collected: Collected,
    nonce: bytes,
    now: datetime,
    second: Place | None,
) -> Verified:
    """Raises `Refusal`."""
    word = next(word for word, name in ARCHITECTURES.items() if name == job.architecture)
    driver = collected.driver_version
    evidence = tuple(
        GpuEvidence(word, gpu.chain, gpu.report, nonce, driver, gpu.vbios_version) for gpu in collected.gpus
    )
    versions = [Versions(collected.driver_version, gpu.vbios_version) for gpu in collected.gpus]
    accepted = _native(job, image, ocsp, evidence, versions, now)
    if SECOND in job.verifiers:
        answers = ocsp if job.revocation == "ocsp" else None
        for number, item in enumerate(evidence):
            _confirm(image, answers, item, versions[number], second, f"GPU {number}")
    claims = json.dumps(gpu_claims.of(accepted), indent=1).encode() + b"\n"
    return Verified(evidence, claims)


def _native(
    job: Job,
    image: Image,
    ocsp: Sequence[bytes],
    evidence: Sequence[GpuEvidence],
    versions: Sequence[Versions],
    now: datetime,
) -> AcceptedGpus:
    policy = gpu_policy.of_config(job.architecture, job.revocation, job.gpus, evidence[0].nonce)
    collateral = Collateral(image.reference_values, ocsp, (image.fingerprint,))
    appraisals = gpu_appraisal.appraise_all(evidence, collateral, policy, now, versions)
    try:
        return appraisals.accept()
    except TinbootError as error:
        decisive = appraisals.decisive
        if decisive is None:
            raise
        raise Refusal(_reason(decisive), error.message) from error


def _reason(decisive: Verdict) -> str:
    check, error = decisive.id, decisive.outcome
    if check == "revocation" and isinstance(error, gpu_ocsp.Revoked):
        return "gpu-revoked"
    if check == "revocation" and isinstance(error, gpu_binding.Absent):
        return "gpu-ocsp-missing"
    if check in {"driver-version", "vbios-version"} and isinstance(error, Unavailable):
        return "gpu-unknown-version"
    return REASONS[check]


def _confirm(
    image: Image,
    answers: Sequence[bytes] | None,
    evidence: GpuEvidence,
    versions: Versions,
    place: Place | None,
    which: str,
) -> None:
    from tinboot.guest import nv_verifier

    try:
        nv_verifier.appraise(
            evidence,
            nv_verifier.Installed(versions.driver, versions.vbios),
            image.reference_values,
            image.rims,
            image.device_root,
            answers,
            place or nv_verifier.Place(),
        )
    except Unavailable as error:
        raise Refusal("gpu-second-verifier-failed", f"{which}: {error.message}") from error
    except TinbootError as error:
        raise Refusal("gpu-second-verifier", f"{which}: {error.message}") from error
