"""What appraisals of GPUs say, for JSON: bytes in hex, times in RFC 3339. NVIDIA's names: gpu_claims.py."""

from __future__ import annotations

from tinboot.verify import gpu_roots
from tinboot.verify.checks import Unchecked, Verdict
from tinboot.verify.gpu_appraisal import Appraisal, Appraisals


def fields(result: Appraisals) -> dict[str, object]:
    """What refused evidence states is not called a claim."""
    failure, policy, reference = result.failure, result.policy, result.collateral.reference
    return {
        "accepted": failure is None,
        "exit_code": 0 if failure is None else failure.exit_code,
        "at": result.now.isoformat(),
        "policy": {
            "architecture": _demand(policy.architecture),
            "gpus": _demand(policy.gpus),
            "nonce": policy.nonce.hex() if isinstance(policy.nonce, bytes) else _demand(policy.nonce),
            "revocation": _demand(policy.revocation),
        },
        "reference_values": {
            "created": reference.created.isoformat(),
            "rims": [{"id": rim.id, "sha256": rim.sha256} for rim in reference.rims],
        },
        "checks": [_verdict(verdict) for verdict in result.verdicts],
        "gpus": [_gpu(gpu, accepted=failure is None) for gpu in result.gpus],
    }


def _gpu(gpu: Appraisal, *, accepted: bool) -> dict[str, object]:
    root = None if gpu.endorsement is None else gpu.endorsement.root
    return {
        "root": {"sha256": root, "nvidia": gpu_roots.is_nvidias(root)},
        "checks": [_verdict(verdict) for verdict in gpu.verdicts],
        "claims" if accepted else "unverified": claims(gpu),
    }


def claims(gpu: Appraisal) -> dict[str, object]:
    """What the evidence states, as far as it could be read. True only of an accepted GPU."""
    found: dict[str, object] = {"architecture": gpu.evidence.arch, "nonce": gpu.evidence.nonce.hex()}
    if (endorsement := gpu.endorsement) is not None:
        found["hwmodel"], found["ueid"] = endorsement.hwmodel, endorsement.ueid
    if (report := gpu.report) is not None:
        opaque = report.opaque
        found["nonce"] = report.nonce.hex()
        found["driver"], found["vbios"] = opaque.driver_version, opaque.vbios_version
        found["board"] = [opaque.project, opaque.project_sku, opaque.chip_sku]
        found["fwid"] = None if opaque.fwid is None else opaque.fwid.hex()
        found["nvdec0"] = opaque.nvdec0
        found["protected_pcie"] = opaque.protected_pcie
        found["measurements"] = [digest.hex() for digest in report.measurements]
    return found


def _demand(value: object) -> object:
    return {"unchecked": value.reason} if isinstance(value, Unchecked) else value


def _verdict(verdict: Verdict) -> dict[str, object]:
    return {"id": verdict.id, "meaning": verdict.meaning, **verdict.fields()}
