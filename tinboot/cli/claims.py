"""What evidence claims, as a tree, and beside each claim the checks that would prove it, with what they say.

Nothing is decided here. The checks are the verifier's own, put with what is at hand: roots, certificates that
the evidence brings along or files have, no reference values. What they cannot tell stays open.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from tinboot.client import Given
from tinboot.client import certificate as tls_certificate
from tinboot.client.endorsements import gather
from tinboot.client.evidence import Evidence
from tinboot.formats import certtable, snpreport
from tinboot.formats.attestationcollateral import Collateral
from tinboot.formats.attestationdocument import DocumentV2, DocumentV3, document_hash
from tinboot.formats.completeattestation import CompleteAttestation
from tinboot.formats.deviceevidence import parse as parse_devices
from tinboot.formats.errors import Malformed, TinbootError
from tinboot.formats.gpuevidence import GpuEvidence
from tinboot.formats.gpureference import ReferenceValues
from tinboot.formats.snpreport import Report
from tinboot.verify import (
    advisories,
    appraisal,
    checks,
    complete,
    document,
    gpu_appraisal,
    gpu_platform,
    gpu_result,
    policy,
)
from tinboot.verify.appraisal import Endorsements
from tinboot.verify.checks import Check, Unchecked, Verdict
from tinboot.verify.document import Demands, Seen
from tinboot.verify.gpu_policy import RELYING_PARTY
from tinboot.verify.gpu_policy import Policy as GpuPolicy

_NO_VALUES = Unchecked("no reference values are compared here")
_NO_CONNECTION = Unchecked("a file has no connection")
_NO_NONCE = Unchecked("nobody sent a nonce for a file")
_NO_GPUS = Unchecked("nobody says how many GPUs there must be")

#: Of a report, what says that AMD vouches for it.
_SIGNED = (
    *("report-signature", "signature-padding", "root-pinned", "certificate-signatures", "certificate-roles"),
    *("signature-parameters", "amd-extensions", "dates", "revocation", "signing-key", "endorsements"),
)

_POLICY = ("debug", "migrate-ma", "smt", "single-socket", "abi", "cxl", "aes-256-xts", "page-swap")


class Claim(NamedTuple):
    """`value`: one line. `checks`: whose passing would make it true, beside those of what it is a part of."""

    name: str
    value: str
    checks: tuple[Verdict, ...] = ()
    parts: tuple[Claim, ...] = ()

    def fields(self) -> dict[str, object]:
        """For JSON."""
        found: dict[str, object] = {"name": self.name, "value": self.value}
        if self.checks:
            found["checks"] = [
                {"id": check.id, "meaning": check.meaning, **check.fields()} for check in self.checks
            ]
        if self.parts:
            found["claims"] = [part.fields() for part in self.parts]
        return found


class Means(NamedTuple):
    """What the checks are put with. `gpu_roots`: fingerprints."""

    given: Given
    gpu_roots: tuple[str, ...]
    now: datetime


def of_report(data: bytes, means: Means) -> Claim:
    """A report alone, 1184 bytes."""
    report = snpreport.parse(data)
    endorsed: Endorsements | TinbootError
    try:
        endorsed = gather(report, means.given, (), None, revocations=False)
    except TinbootError as error:
        endorsed = error
    return _report(report, *_appraised(report, endorsed, means))


def of_gpus(items: Sequence[GpuEvidence], means: Means, nonce: bytes | Unchecked = _NO_NONCE) -> Claim:
    """The list that a guest keeps, or NVIDIA's SDK writes."""
    policy = GpuPolicy(
        Unchecked("no architecture is demanded here"),
        Unchecked("no number is demanded here"),
        nonce,
        RELYING_PARTY,
    )
    collateral = gpu_appraisal.Collateral(ReferenceValues(means.now, ()), (), means.gpu_roots)
    result = gpu_appraisal.appraise_all(items, collateral, policy, means.now)
    gpus = tuple(_gpu(number, gpu) for number, gpu in enumerate(result.gpus))
    return Claim("GPUs", str(len(gpus)), _some(result.verdicts, ("distinct",)), gpus)


def of_document(found: DocumentV2 | DocumentV3, means: Means, seen: Evidence | None = None) -> Claim:
    """Of a file, or with `seen` of a host that was asked just now."""
    brought = found.collateral if isinstance(found, DocumentV3) else ()
    shown = Seen(_NO_CONNECTION, _NO_CONNECTION) if seen is None else Seen(seen.tls, seen.hpke)
    demands = _demands(found.report, brought, means, _NO_NONCE if seen is None else seen.nonce)
    return _document(document.appraise(found, shown, demands, means.now), means)


def _demands(report: bytes, brought: Sequence[Collateral], means: Means, nonce: bytes | Unchecked) -> Demands:
    endorsed: Endorsements | TinbootError
    try:
        endorsed = gather(snpreport.parse(report), means.given, brought, None, revocations=False)
    except TinbootError as error:
        endorsed = error
    return Demands(endorsed, policy.shipped("baseline"), advisories.shipped(), nonce, _NO_GPUS)


def _document(result: document.Appraisal, means: Means) -> Claim:
    found, parts = result.document, []
    if isinstance(found, DocumentV3):
        parts.append(Claim("nonce", found.nonce.hex(), _some(result.verdicts, ("nonce", "report-data"))))
    else:
        parts.append(Claim("document hash", document_hash(found), _some(result.verdicts, ("nonce",))))
    if result.report is not None:
        cpu = () if result.cpu is None else result.cpu.verdicts
        parts.append(_report(result.report, (*result.verdicts, *cpu), result.cpu))
    if result.keys is not None:
        bound = ("report-data", "crypto-material", "endorsed-hashes")
        parts += [
            Claim("TLS key", result.keys.tls.hex(), _some(result.verdicts, ("tls-key", *bound))),
            Claim("HPKE key", result.keys.hpke.hex(), _some(result.verdicts, ("hpke-key", *bound))),
        ]
        parts += [
            Claim(f"key {key.id}", key.spki.hex(), _some(result.verdicts, bound)) for key in result.keys.keys
        ]
    if isinstance(found, DocumentV3):
        parts.append(_devices(found, result, means))
        parts += [
            Claim(f"collateral {entry.id}", f"{entry.role}, {entry.format}; a hint that nothing binds")
            for entry in found.collateral
        ]
    return Claim("attestation document", result.version, (), tuple(parts))


def of_host(name: str, seen: Evidence, means: Means) -> Claim:
    claim = of_document(seen.document, means, seen)
    subject = tls_certificate.Subject(seen.tls, seen.certificate, seen.published, seen.hpke, means.now)
    shown = Claim("TLS key shown", seen.tls.hex(), checks.ask(tls_certificate.CHECKS, subject))
    return Claim("host", name, (), (shown, Claim("HPKE key shown", seen.hpke.hex()), claim))


def of_complete(found: CompleteAttestation, means: Means) -> Claim:
    """All in one: the documents, and the boot that began with a report of its own."""
    table: certtable.Certificates | None = None
    try:
        table = certtable.parse(found.boot.certificates)
    except Malformed as error:
        note = f"unreadable: {error.message}"
    else:
        note = f"{len(found.boot.certificates)} bytes; a hint that nothing binds"
    if means.given.table is None:
        means = means._replace(given=means.given._replace(table=table))
    brought = () if found.challenged is None else found.challenged.collateral
    demands = _demands(found.document.report, brought, means, _NO_NONCE)
    result = complete.appraise(found, Seen(_NO_CONNECTION, _NO_CONNECTION), demands, means.now)
    asked = result.verdicts
    boot = [
        Claim("provider", found.boot.provider),
        Claim("sealed", f"{len(found.boot.sealed)} bytes", _some(asked, ("boot-format", "boot-report-data"))),
        Claim("certificates", note),
    ]
    if result.sealed is not None:
        boot.append(Claim("command line", result.sealed.cmdline))
    with contextlib.suppress(Malformed):
        report = snpreport.parse(found.boot.report)
        verdicts = () if result.boot is None else result.boot.verdicts
        boot.append(_report(report, (*asked, *result.documents[0].verdicts, *verdicts), result.boot))
    digest = hashlib.sha256(found.config).hexdigest()
    parts = (
        Claim("image version", f"{found.image_version}; the guest's word, which no report binds"),
        Claim("config", digest, _some(asked, ("config",))),
        Claim("certificate", f"{len(found.certificate)} characters", _some(asked, ("certificate-key",))),
        Claim("HPKE key", found.hpke.hex(), _some(asked, ("published-hpke-key",))),
        *(_document(part, means) for part in result.documents),
        Claim("boot", "the report that it began with", (), tuple(boot)),
    )
    if found.gpus:
        gpus = of_gpus(found.gpus, means)
        parts += (gpus._replace(checks=(*gpus.checks, *_some(asked, ("boot-gpus",)))),)
    return Claim("complete attestation", "", _some(asked, ("same-guest", "same-keys")), parts)


def _appraised(
    report: Report, endorsed: Endorsements | TinbootError, means: Means
) -> tuple[tuple[Verdict, ...], appraisal.Appraisal | None]:
    missing: Check[object] = Check(
        "endorsements", None, "there is what the report's key is verified with", lambda _: None
    )
    if not isinstance(endorsed, TinbootError):
        try:
            result = appraisal.appraise(
                report, endorsed, policy.shipped("baseline"), advisories.shipped(), means.now
            )
        except TinbootError as error:
            endorsed = error
        else:
            return result.verdicts, result
    return (Verdict(missing, Unchecked(endorsed.message)),), None


def _report(report: Report, verdicts: Iterable[Verdict], result: appraisal.Appraisal | None) -> Claim:
    verdicts = tuple(verdicts)

    def claim(name: str, value: str, *checks: str) -> Claim:
        return Claim(name, value, _some(verdicts, checks))

    parts = []
    if result is not None:
        claims = result.claims()
        parts.append(
            claim("product", f"{claims['product']}, {report.cpuid or 'CPU not named'}", "product", "cpu")
        )
        tcb: Any = claims["reported_tcb"]
        text = " ".join(f"{part}={value}" for part, value in tcb.items())
        floors = ("reported-tcb", "tcb-order", "reported-floor", "microcode-floor")
        parts.append(claim("reported TCB", text, *floors))
    parts += [
        claim("measurement", report.measurement.hex(), "measurement"),
        claim("REPORT_DATA", report.report_data.hex(), "report-data"),
        claim("HOST_DATA", report.host_data.hex(), "host-data"),
        claim("chip", report.chip_id.hex(), "chip-id", "chip-id-masked"),
        claim("firmware", f"{report.current_version}, committed {report.committed_version}", "firmware"),
        claim("guest policy", f"{report.policy:#x}", *_POLICY),
        claim("platform", f"{report.platform_info:#x}", "platform-info", "policy-kept"),
        claim("VMPL", str(report.vmpl), "vmpl"),
    ]
    return Claim("SEV-SNP report", f"version {report.version}", _some(verdicts, _SIGNED), tuple(parts))


def _devices(found: DocumentV3, result: document.Appraisal, means: Means) -> Claim:
    bound = _some(result.verdicts, ("device-evidence", "report-data"))
    try:
        items = parse_devices(found.device_evidence)
    except TinbootError:
        return Claim("GPUs", "cannot be read", bound)
    gpus = of_gpus(items, means, found.nonce)
    return gpus._replace(checks=(*gpus.checks, *bound))


def _gpu(number: int, gpu: gpu_appraisal.Appraisal) -> Claim:
    left = {check.id for check in gpu_platform.CHECKS} - {"nonce"}
    verdicts = tuple(
        verdict._replace(outcome=_NO_VALUES) if verdict.id in left else verdict for verdict in gpu.verdicts
    )
    claims = gpu_result.claims(gpu)
    names = {"hwmodel": "model", "ueid": "serial number", "driver": "driver", "vbios": "VBIOS"}
    parts = [Claim(name, str(claims[key])) for key, name in names.items() if key in claims]
    parts.append(Claim("nonce", str(claims["nonce"]), _some(verdicts, ("nonce",))))
    measured: Any = claims.get("measurements", [])
    parts.append(Claim("measurements", str(len(measured)), _some(verdicts, ("measurements", "uncovered"))))
    own = [v for v in verdicts if v.id not in left | {"nonce", "architecture"}]
    return Claim(f"GPU {number}", gpu.evidence.arch, tuple(own), tuple(parts))


def _some(verdicts: Iterable[Verdict], names: Iterable[str]) -> tuple[Verdict, ...]:
    """Those of these names that were asked, the first of each, in the names' order."""
    first: dict[str, Verdict] = {}
    for verdict in verdicts:
        first.setdefault(verdict.id, verdict)
    return tuple(first[name] for name in names if name in first)
