"""Claims about GPUs in the names of NVIDIA's version 3, so that what reads a verdict of NVIDIA's reads ours.

Names, nesting and values are nv-local-gpu-verifier's (2.7, `claims_utils.py`); a claim is null where nothing
was found out, as there. Not signed: who gives them to somebody else says so by what carries them.

Three things are said as they are, and not as that verifier would:

    x-nvidia-cert-ocsp-status        null unless OCSP answers were given and hold; of RIMs always null, as
                                     `tinboot gpu pin` asks nobody
    ...-rim-signature-verified etc.  true where there are reference values: they were made from a RIM that was
                                     verified then, and nothing reads it again
    ...-rim-cert-chain               "expired" once the RIM's signer is, although that refuses nothing here
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives import hashes

from tinboot.formats.errors import TinbootError
from tinboot.formats.gpureference import Rim
from tinboot.verify.checks import Verdict
from tinboot.verify.gpu_appraisal import AcceptedGpus, Appraisal, Appraisals
from tinboot.verify.gpu_ocsp import Revoked, Unknown
from tinboot.verify.gpu_platform import Subject

VERSION = "3.0"
ISSUER = "LOCAL_GPU_VERIFIER"  # the kind of verifier, in NVIDIA's words
NVIDIA = "5703"  # the maker's number, IANA private enterprise numbers
_SUBJECT = "NVIDIA-PLATFORM-ATTESTATION"

_BEFORE, _AFTER = timedelta(seconds=120), timedelta(hours=1)

Claims = dict[str, object]

_CHAIN = ("chain-format", "chain-length", "root-pinned", "signature-parameters", "certificate-roles")
_CHAIN_CHECKS = (*_CHAIN, "certificate-signatures", "dates")


def of(accepted: AcceptedGpus) -> list[object]:
    """Of GPUs that passed: NVIDIA's detached form, decoded, which is the machine's claims and each GPU's."""
    return [*platform(accepted.appraisals)]


def platform(appraisals: Appraisals) -> tuple[Claims, dict[str, Claims]]:
    """Of the machine, and of each GPU by its name there: what NVIDIA's tokens hold, decoded."""
    now, accepted = appraisals.now, appraisals.failure is None
    gpus: dict[str, Claims] = {}
    digests: dict[str, object] = {}
    for number, appraisal in enumerate(appraisals.gpus):
        name = f"GPU-{number}"
        claims = gpu(appraisal, now)
        digests[name] = ["DIGEST", ["SHA256", _sha256(json.dumps(claims).encode())]]
        gpus[name] = {**claims, **_times(now, f"{name} {digests[name]}")}
    nonce = appraisals.gpus[0].evidence.nonce.hex() if appraisals.gpus else None
    overall: Claims = {
        "sub": _SUBJECT,
        **_times(now, str(digests)),
        "x-nvidia-ver": VERSION,
        "iss": ISSUER,
        "x-nvidia-overall-att-result": accepted,
        "submods": digests,
        "eat_nonce": nonce,
    }
    return overall, gpus


def gpu(appraisal: Appraisal, now: datetime) -> Claims:
    """Of one GPU, without the times that a token has."""
    found = {verdict.id: verdict for verdict in appraisal.verdicts}
    subject = appraisal.subject
    matching = _all(found, "measurements", "uncovered", "reference-values")
    claims: Claims = {
        "measres": {True: "success", False: "fail", None: None}[matching],
        "x-nvidia-gpu-arch-check": _asked(found, "architecture", appraisal.endorsement is not None),
        "x-nvidia-gpu-driver-version": _version(subject, "driver"),
        "x-nvidia-gpu-vbios-version": _version(subject, "vbios"),
        "x-nvidia-gpu-attestation-report-cert-chain": _device_chain(appraisal, found, now),
        "x-nvidia-gpu-attestation-report-cert-chain-fwid-match": _passed(found, "fwid"),
        "x-nvidia-gpu-attestation-report-parsed": appraisal.report is not None or None,
        "x-nvidia-gpu-attestation-report-nonce-match": _asked(found, "nonce", subject is not None),
        "x-nvidia-gpu-attestation-report-signature-verified": _passed(found, "report-signature"),
    }
    for kind in ("driver", "vbios"):
        claims |= _rim(subject, found, kind, now)
    conflict = subject is not None and _no_conflict(subject)
    claims["x-nvidia-gpu-vbios-index-no-conflict"] = conflict if subject is not None else None
    if matching:
        claims["secboot"] = True
        claims["dbgstat"] = "disabled"
    endorsement = appraisal.endorsement
    claims["eat_nonce"] = appraisal.evidence.nonce.hex()
    claims["hwmodel"] = None if endorsement is None else endorsement.hwmodel
    claims["ueid"] = "" if endorsement is None else endorsement.ueid
    claims["oemid"] = NVIDIA if claims["x-nvidia-gpu-driver-rim-fetched"] else None
    claims["iss"] = ISSUER
    return claims


def _passed(found: dict[str, Verdict], name: str) -> bool | None:
    """None where it was not asked."""
    outcome = found[name].outcome
    if outcome is None:
        return True
    return False if isinstance(outcome, TinbootError) else None


def _asked(found: dict[str, Verdict], name: str, reached: bool) -> bool | None:
    """Of a check that compares evidence with itself before it asks the policy, which may demand nothing."""
    return not isinstance(found[name].outcome, TinbootError) if reached else None


def _all(found: dict[str, Verdict], *names: str) -> bool | None:
    values = [_passed(found, name) for name in names]
    return False if False in values else None if None in values else True


def _version(subject: Subject | None, kind: str) -> str | None:
    """NVML's where it was asked, else the report's; NVIDIA's writes the VBIOS's in capitals."""
    if subject is None:
        return None
    if subject.versions is not None:
        return subject.versions.driver if kind == "driver" else subject.versions.vbios.upper()
    opaque = subject.report.opaque
    return opaque.driver_version if kind == "driver" else opaque.vbios_version


def _device_chain(appraisal: Appraisal, found: dict[str, Verdict], now: datetime) -> Claims:
    endorsement = appraisal.endorsement
    revocation = found["revocation"].outcome
    ocsp, reason = None, None
    if revocation is None and endorsement is not None:
        ocsp = "good"
    elif isinstance(revocation, Revoked):
        ocsp, reason = "revoked", revocation.reason
    elif isinstance(revocation, Unknown):
        ocsp = "unknown"
    ends = None if endorsement is None else min(c.not_after for c in endorsement.chain)
    status = {True: "valid", False: "invalid", None: None}[_all(found, *_CHAIN_CHECKS)]
    if status == "invalid" and ends is not None and ends < now:
        status = "expired"
    return _certificates(ends, status, ocsp, reason)


def _rim(subject: Subject | None, found: dict[str, Verdict], kind: str, now: datetime) -> Claims:
    rim: Rim | None = None
    if subject is not None:
        try:
            rim = subject.driver_rim if kind == "driver" else subject.vbios_rim
        except TinbootError:
            rim = None
    prefix, verified = f"x-nvidia-gpu-{kind}-rim", True if rim is not None else None
    ends = None if rim is None else rim.not_after
    status = None if ends is None else "expired" if ends < now else "valid"
    return {
        f"{prefix}-fetched": None if subject is None else rim is not None,
        f"{prefix}-schema-validated": verified,
        f"{prefix}-cert-chain": _certificates(ends, status, None, None),
        f"{prefix}-signature-verified": verified,
        f"{prefix}-version-match": None if rim is None else _passed(found, f"{kind}-version"),
        f"{prefix}-measurements-available": verified,
    }


def _no_conflict(subject: Subject) -> bool | None:
    try:
        return not subject.driver_rim.measurements.keys() & subject.vbios_rim.measurements.keys()
    except TinbootError:
        return None


def _certificates(ends: datetime | None, status: str | None, ocsp: str | None, reason: str | None) -> Claims:
    return {
        "x-nvidia-cert-expiration-date": None
        if ends is None
        else ends.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        "x-nvidia-cert-status": status,
        "x-nvidia-cert-ocsp-status": ocsp,
        "x-nvidia-cert-revocation-reason": reason,
    }


def _times(now: datetime, of: str) -> Claims:
    """RFC 7519, 4.1.4 to 4.1.7. The id follows from what is said and when, as nothing here is random."""
    at = int(now.timestamp())
    digest = _sha256(f"{at} {of}".encode())
    return {
        "nbf": at - int(_BEFORE.total_seconds()),
        "exp": at + int(_AFTER.total_seconds()),
        "iat": at,
        "jti": "-".join((digest[:8], digest[8:12], f"8{digest[13:16]}", f"8{digest[17:20]}", digest[20:32])),
    }


def _sha256(data: bytes) -> str:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    return digest.finalize().hex()
