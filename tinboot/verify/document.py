"""Appraises an attestation document: what a host says of itself, for one connection, nonce and time. Pure.

    document, endorsements, policies, nonce, TLS key, now  ->  Appraisal  ->  accept()  ->  AttestedHost

The report is put to appraisal.py, the GPUs to gpu_appraisal.py, and what binds them to each other, to the
keys and to the nonce to document_binding.py. Every check runs that can. What decides is the most fundamental
failure, as everywhere, and among equals the report's own, then the document's, then the GPUs'.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import NamedTuple, final

from tinboot.formats import cryptomaterial, deviceevidence, reportdata, snpreport
from tinboot.formats.attestationdocument import DocumentV2, DocumentV3
from tinboot.formats.cryptomaterial import CryptoMaterial
from tinboot.formats.errors import TinbootError
from tinboot.formats.gpuevidence import GpuEvidence
from tinboot.formats.snpreport import Report
from tinboot.verify import appraisal, document_binding, gpu_appraisal, gpu_policy, gpu_result
from tinboot.verify.advisories import Data
from tinboot.verify.appraisal import Accepted, Endorsements
from tinboot.verify.chain import Endorsement
from tinboot.verify.checks import (
    ORDER,
    Check,
    Unchecked,
    Verdict,
    ask,
    decisive,
    failure,
    none_skipped,
    unreached,
)
from tinboot.verify.document_binding import CHECKS_V2, CHECKS_V3, SubjectV2, SubjectV3
from tinboot.verify.gpu_appraisal import AcceptedGpus, Appraisals
from tinboot.verify.policy import Policy

#: The only own checks that an accepted document may not have passed: the caller or the version says why.
MAY_BE_UNCHECKED = frozenset({"nonce", "tls-key", "hpke-key", "gpu-evidence"})

#: Of the CPU's policy, where it leaves REPORT_DATA open.
_ASKED_HERE = Unchecked("the document's own check of that name asks it")

_SEAL = object()


class Seen(NamedTuple):
    """What the host showed beside the document; whoever did not look says why.

    `tls`: SHA-256 of the SubjectPublicKeyInfo of the connection's key. `hpke`: the key that it gives out.
    """

    tls: bytes | Unchecked
    hpke: bytes | Unchecked


class GpuDemands(NamedTuple):
    """`policy`: its nonce is replaced by the document's, for which the GPUs must have been asked."""

    collateral: gpu_appraisal.Collateral
    policy: gpu_policy.Policy


class Demands(NamedTuple):
    """What it is held to. `endorsements`: the error where there are none. `nonce`: 32 bytes, as sent.

    `policy`: the reference values are pinned in it (`Policy.pinned`). `gpus`: None where the machine has
    none and evidence of one is refused. `known`: the endorsement of an earlier appraisal.
    """

    endorsements: Endorsements | TinbootError
    policy: Policy
    data: Data
    nonce: bytes | Unchecked
    gpus: GpuDemands | Unchecked | None
    known: Endorsement | None = None


def _read(_: object) -> None:
    """Asked by reading it."""


_REPORT: Check[object] = Check("report-format", None, "the report can be read", _read)
_ENDORSED: Check[object] = Check(
    "endorsements", None, "there is what the report's key is verified with", _read
)
_KEYS: Check[object] = Check("crypto-material", None, "the section of keys can be read, strictly", _read)
_DEVICES: Check[object] = Check(
    "device-evidence", None, "the section of devices can be read, strictly", _read
)

#: What stands before all others.
FORMATS_V2 = (_REPORT, _ENDORSED)
FORMATS_V3 = (_REPORT, _KEYS, _DEVICES, _ENDORSED)


@final
class AttestedHost:
    """A host whose document passed everything that was demanded. `Appraisal.accept` alone makes one.

    `tls`: the SHA-256 of the SubjectPublicKeyInfo of the guest's TLS key, for this boot of it; `keys` has it
    too, and the HPKE key. `gpus` is None where none was demanded.
    """

    __slots__ = ("appraisal", "gpus", "keys", "report")

    def __init__(
        self,
        seal: object,
        appraisal: Appraisal,
        report: Accepted,
        keys: CryptoMaterial,
        gpus: AcceptedGpus | None,
    ) -> None:
        if seal is not _SEAL:
            raise TypeError("an attested host is made by appraising its document")
        self.appraisal = appraisal
        self.report = report
        self.keys = keys
        self.gpus = gpus

    @property
    def tls(self) -> bytes:
        return self.keys.tls

    @property
    def hpke(self) -> bytes:
        """The raw X25519 public key."""
        return self.keys.hpke

    @property
    def measurement(self) -> bytes:
        """The launch digest, 48 bytes; whether anybody compared it is among `unchecked`."""
        return self.report.report.measurement

    @property
    def nonce(self) -> bytes | None:
        """The nonce that was sent and that the document answers; None where nothing says that it is new."""
        sent = self.appraisal.demands.nonce
        return None if isinstance(sent, Unchecked) else sent

    @property
    def unchecked(self) -> tuple[tuple[str, str], ...]:
        """Check and reason: what nobody looked at."""
        return self.appraisal.unchecked


@final
class Appraisal:
    """What came of it; `appraise` alone makes one.

    `report`, `keys`: None where they cannot be read. `cpu`: None where the report could not be put to its
    checks, `gpus` where there is no evidence or nobody wants to know.
    """

    __slots__ = ("cpu", "demands", "document", "gpus", "keys", "now", "report", "verdicts")

    def __init__(
        self,
        seal: object,
        document: DocumentV2 | DocumentV3,
        read: _Read,
        verdicts: tuple[Verdict, ...],
        cpu: appraisal.Appraisal | None,
        gpus: Appraisals | None,
        asked: tuple[Demands, datetime],
    ) -> None:
        if seal is not _SEAL:
            raise TypeError("an appraisal is made by appraising a document")
        self.document = document
        self.report, self.keys = read.report, read.keys
        self.verdicts = verdicts
        self.cpu = cpu
        self.gpus = gpus
        self.demands, self.now = asked

    @property
    def version(self) -> str:
        return "v2" if isinstance(self.document, DocumentV2) else "v3"

    @property
    def failure(self) -> TinbootError | None:
        """The one that decides, the check's name in front; None where nothing failed."""
        found = [
            None if self.cpu is None else self.cpu.failure,
            failure(decisive(self.verdicts)),
            None if self.gpus is None else self.gpus.failure,
        ]
        return next((error for kind in ORDER for error in found if isinstance(error, kind)), None)

    @property
    def unchecked(self) -> tuple[tuple[str, str], ...]:
        """Check and reason, of the document, then the report, then the GPUs."""
        return tuple(
            (verdict.id, verdict.outcome.reason)
            for verdict in self._all()
            if isinstance(verdict.outcome, Unchecked) and verdict.outcome is not _ASKED_HERE
        )

    def _all(self) -> tuple[Verdict, ...]:
        cpu = () if self.cpu is None else self.cpu.verdicts
        if self.gpus is None:
            return (*self.verdicts, *cpu)
        return (
            *self.verdicts,
            *cpu,
            *(v for gpu in self.gpus.gpus for v in gpu.verdicts),
            *self.gpus.verdicts,
        )

    def accept(self) -> AttestedHost:
        """Raises what decides, unless every check passed or is unchecked by the caller's own word."""
        if (found := self.failure) is not None:
            raise found
        none_skipped(self.verdicts, MAY_BE_UNCHECKED)
        if self.cpu is None or self.keys is None:
            raise AssertionError("no check failed, and there is no appraised report")
        if isinstance(self.demands.gpus, GpuDemands) and self.gpus is None:
            raise AssertionError("no check failed, and no GPU was appraised")
        gpus = None if self.gpus is None else self.gpus.accept()
        return AttestedHost(_SEAL, self, self.cpu.accept(), self.keys, gpus)

    def fields(self) -> dict[str, object]:
        """For JSON: bytes in hex, times in RFC 3339. What a refused document states is not called a claim."""
        found = self.failure
        gpus: object = None if self.gpus is None else gpu_result.fields(self.gpus)
        if isinstance(self.demands.gpus, Unchecked):
            gpus = {"unchecked": self.demands.gpus.reason}
        return {
            "accepted": found is None,
            "exit_code": 0 if found is None else found.exit_code,
            "at": self.now.isoformat(),
            "document": self.version,
            "checks": [
                {"id": verdict.id, "meaning": verdict.meaning, **verdict.fields()}
                for verdict in self.verdicts
            ],
            "claims" if found is None else "unverified": self.claims(),
            "cpu": None if self.cpu is None else self.cpu.fields(),
            "gpus": gpus,
        }

    def claims(self) -> dict[str, object]:
        """What the document states, as far as it could be read. True only of an accepted one."""
        keys, report, document = self.keys, self.report, self.document
        return {
            "tls_key_sha256": None if keys is None else keys.tls.hex(),
            "hpke_key": None if keys is None else keys.hpke.hex(),
            "keys": {} if keys is None else {key.id: key.spki.hex() for key in keys.keys},
            "measurement": None if report is None else report.measurement.hex(),
            "nonce": document.nonce.hex() if isinstance(document, DocumentV3) else None,
        }


class _Read(NamedTuple):
    """What could be read of a document, and what came of reading it."""

    verdicts: tuple[Verdict, ...]
    report: Report | None
    keys: CryptoMaterial | None
    gpus: tuple[GpuEvidence, ...] | None


def appraise(document: DocumentV2 | DocumentV3, seen: Seen, demands: Demands, now: datetime) -> Appraisal:
    """`now` has a time zone. Raises nothing for what the host may have done: that is in the result."""
    read = _read_v2(document) if isinstance(document, DocumentV2) else _read_v3(document)
    verdicts, cpu = _cpu(read.report, demands, now)
    verdicts = read.verdicts + verdicts + _bindings(document, read, seen, demands)
    gpus = None
    if isinstance(document, DocumentV3) and isinstance(demands.gpus, GpuDemands) and read.gpus:
        policy = demands.gpus.policy._replace(
            nonce=document.nonce if isinstance(demands.nonce, Unchecked) else demands.nonce
        )
        gpus = gpu_appraisal.appraise_all(read.gpus, demands.gpus.collateral, policy, now)
    return Appraisal(_SEAL, document, read, verdicts, cpu, gpus, (demands, now))


def _read_v2(document: DocumentV2) -> _Read:
    try:
        report = snpreport.parse(document.report)
    except TinbootError as error:
        return _Read((Verdict(_REPORT, error),), None, None, ())
    own = report.report_data
    return _Read((_REPORT.passed,), report, CryptoMaterial(own[: reportdata.KEY], own[reportdata.KEY :]), ())


def _read_v3(document: DocumentV3) -> _Read:
    verdicts = []
    report: Report | None = None
    keys: CryptoMaterial | None = None
    gpus: tuple[GpuEvidence, ...] | None = None
    try:
        report = snpreport.parse(document.report)
        verdicts.append(_REPORT.passed)
    except TinbootError as error:
        verdicts.append(Verdict(_REPORT, error))
    try:
        keys = cryptomaterial.parse(document.crypto_material)
        verdicts.append(_KEYS.passed)
    except TinbootError as error:
        verdicts.append(Verdict(_KEYS, error))
    try:
        gpus = deviceevidence.parse(document.device_evidence)
        verdicts.append(_DEVICES.passed)
    except TinbootError as error:
        verdicts.append(Verdict(_DEVICES, error))
    return _Read(tuple(verdicts), report, keys, gpus)


def _cpu(
    report: Report | None, demands: Demands, now: datetime
) -> tuple[tuple[Verdict, ...], appraisal.Appraisal | None]:
    if report is None:
        return unreached((_ENDORSED,), "the report cannot be read"), None
    if isinstance(demands.endorsements, TinbootError):
        return (Verdict(_ENDORSED, demands.endorsements),), None
    policy = demands.policy
    if isinstance(policy.report_data, Unchecked):
        policy = policy._replace(report_data=_ASKED_HERE)
    try:
        result = appraisal.appraise(report, demands.endorsements, policy, demands.data, now, demands.known)
    except TinbootError as error:
        return (Verdict(_ENDORSED, error),), None
    return (_ENDORSED.passed,), result


def _bindings(
    document: DocumentV2 | DocumentV3, read: _Read, seen: Seen, demands: Demands
) -> tuple[Verdict, ...]:
    gpus: document_binding.Wanted
    if isinstance(demands.gpus, Unchecked):
        gpus = demands.gpus
    else:
        gpus = "none" if demands.gpus is None else "demanded"
    if isinstance(document, DocumentV2):
        if read.report is None or read.keys is None:
            return unreached(CHECKS_V2, "the report cannot be read")
        return ask(CHECKS_V2, SubjectV2(read.report, read.keys, gpus, seen.tls, seen.hpke, demands.nonce))
    if read.report is None or read.keys is None or read.gpus is None:
        return unreached(CHECKS_V3, "what it would be asked of cannot be read")
    sections = document.crypto_material, document.device_evidence
    crypto, devices = (hashlib.sha256(section).digest() for section in sections)
    keys = read.report, read.keys, gpus, seen.tls, seen.hpke, demands.nonce
    return ask(CHECKS_V3, SubjectV3(*keys, document, len(read.gpus), (crypto, devices)))
