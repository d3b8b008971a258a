"""Appraises a complete attestation: documents, the report of the boot, and that all are of one guest. Pure.

Each document goes to document.py, the boot's report to appraisal.py, the GPUs' evidence of the boot to
gpu_appraisal.py. The gate gave the GPUs a nonce of its own, so that evidence shows what booted, not that it
runs now; with a nonce the document within has fresh evidence as well.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple, final

from tinboot.formats import sealedboot, snpreport
from tinboot.formats.completeattestation import CompleteAttestation
from tinboot.formats.errors import TinbootError
from tinboot.formats.sealedboot import SealedBoot
from tinboot.formats.snpreport import Report
from tinboot.verify import appraisal, complete_binding, document, gpu_appraisal, gpu_result
from tinboot.verify.appraisal import Accepted
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
from tinboot.verify.complete_binding import Subject
from tinboot.verify.document import AttestedHost, Demands, GpuDemands, Seen
from tinboot.verify.document_binding import Wanted
from tinboot.verify.gpu_appraisal import AcceptedGpus, Appraisals

#: The only own checks that an accepted one may not have passed: the caller says why.
MAY_BE_UNCHECKED = frozenset({"same-keys", "boot-gpus-expected"})

_GATES_NONCE = Unchecked("the boot's gate asked the GPUs, with a nonce of its own")
_ANSWERED = Unchecked("the document beside it answers the nonce")
_BOOT = Unchecked("the report of the boot binds what the hooks sealed, and its own check asks it")

_SEAL = object()


def _read(_: object) -> None:
    """Asked by reading it."""


_FORMAT: Check[object] = Check("boot-format", None, "the boot's report and what it sealed can be read", _read)

#: What stands before all others.
FORMATS = (_FORMAT,)


@final
class AttestedBoot:
    """A host of which the boot is known, too. `Appraisal.accept` alone makes one.

    `config`: the bytes that the boot hashed. `gpus`: as the boot's gate saw them, None where none was
    demanded; those of now are in `host`, where a nonce was sent.
    """

    __slots__ = ("appraisal", "boot", "config", "gpus", "host", "sealed")

    def __init__(
        self,
        seal: object,
        appraisal: Appraisal,
        host: AttestedHost,
        boot: Accepted,
        sealed: SealedBoot,
        gpus: AcceptedGpus | None,
    ) -> None:
        if seal is not _SEAL:
            raise TypeError("an attested boot is made by appraising a complete attestation")
        self.appraisal = appraisal
        self.host = host
        self.boot = boot
        self.sealed = sealed
        self.config = appraisal.complete.config
        self.gpus = gpus


class _Parts(NamedTuple):
    """What was appraised on its own. `documents`: v2, then v3 where a nonce was sent."""

    documents: tuple[document.Appraisal, ...]
    boot: appraisal.Appraisal | None
    sealed: SealedBoot | None
    gpus: Appraisals | None


@final
class Appraisal:
    """What came of it; `appraise` alone makes one."""

    __slots__ = ("boot", "complete", "demands", "documents", "gpus", "now", "sealed", "verdicts")

    def __init__(
        self,
        seal: object,
        complete: CompleteAttestation,
        verdicts: tuple[Verdict, ...],
        parts: _Parts,
        asked: tuple[Demands, datetime],
    ) -> None:
        if seal is not _SEAL:
            raise TypeError("an appraisal is made by appraising a complete attestation")
        self.complete = complete
        self.verdicts = verdicts
        self.documents, self.boot, self.sealed, self.gpus = parts
        self.demands, self.now = asked

    @property
    def failure(self) -> TinbootError | None:
        """The one that decides; None where nothing failed."""
        found = [part.failure for part in self.documents]
        found.append(None if self.boot is None else self.boot.failure)
        found.append(failure(decisive(self.verdicts)))
        found.append(None if self.gpus is None else self.gpus.failure)
        return next((error for kind in ORDER for error in found if isinstance(error, kind)), None)

    def accept(self) -> AttestedBoot:
        """Raises what decides, unless every check passed or is unchecked by the caller's own word."""
        if (found := self.failure) is not None:
            raise found
        none_skipped(self.verdicts, MAY_BE_UNCHECKED)
        if self.boot is None or self.sealed is None:
            raise AssertionError("no check failed, and the boot's report was not appraised")
        if isinstance(self.demands.gpus, GpuDemands) and self.gpus is None:
            raise AssertionError("no check failed, and no GPU was appraised")
        hosts = [part.accept() for part in self.documents]
        gpus = None if self.gpus is None else self.gpus.accept()
        return AttestedBoot(_SEAL, self, hosts[-1], self.boot.accept(), self.sealed, gpus)

    def fields(self) -> dict[str, object]:
        """For JSON, as of a document; `image_version` is the guest's word, which no report binds."""
        found = self.failure
        gpus: object = None if self.gpus is None else gpu_result.fields(self.gpus)
        if isinstance(self.demands.gpus, Unchecked):
            gpus = {"unchecked": self.demands.gpus.reason}
        return {
            "accepted": found is None,
            "exit_code": 0 if found is None else found.exit_code,
            "at": self.now.isoformat(),
            "document": "complete",
            "image_version": self.complete.image_version,
            "checks": [
                {"id": verdict.id, "meaning": verdict.meaning, **verdict.fields()}
                for verdict in self.verdicts
            ],
            "claims" if found is None else "unverified": self.claims(),
            "documents": [part.fields() for part in self.documents],
            "boot": None if self.boot is None else self.boot.fields(),
            "boot_gpus": gpus,
        }

    def claims(self) -> dict[str, object]:
        """What the boot sealed, as far as it could be read. True only where all of it is accepted."""
        sealed = self.sealed
        if sealed is None:
            return {}
        return {"cmdline": sealed.cmdline, "config_sha256": sealed.config.hex(), "gpus": sealed.gpus}


def appraise(complete: CompleteAttestation, seen: Seen, demands: Demands, now: datetime) -> Appraisal:
    """As `document.appraise`: `demands` are put to every part, the nonce to the one that can answer it."""
    documents = _documents(complete, seen, demands, now)
    verdicts, report, sealed = _boot(complete)
    boot = None
    cpu = documents[0].cpu
    if report is not None and cpu is not None and not isinstance(demands.endorsements, TinbootError):
        policy = demands.policy._replace(report_data=_BOOT)
        known = cpu.endorsement or demands.known
        boot = appraisal.appraise(report, demands.endorsements, policy, demands.data, now, known)
    verdicts += _bindings(complete, documents, (report, sealed), demands)
    gpus = None
    if isinstance(demands.gpus, GpuDemands) and complete.gpus:
        wanted = demands.gpus.policy._replace(nonce=_GATES_NONCE)
        gpus = gpu_appraisal.appraise_all(complete.gpus, demands.gpus.collateral, wanted, now)
    parts = _Parts(documents, boot, sealed, gpus)
    return Appraisal(_SEAL, complete, verdicts, parts, (demands, now))


def _documents(
    complete: CompleteAttestation, seen: Seen, demands: Demands, now: datetime
) -> tuple[document.Appraisal, ...]:
    plain = demands
    if isinstance(demands.gpus, GpuDemands):
        plain = plain._replace(gpus=_GATES_NONCE)
    if complete.challenged is None:
        return (document.appraise(complete.document, seen, plain, now),)
    if not isinstance(demands.nonce, Unchecked):
        plain = plain._replace(nonce=_ANSWERED)
    first = document.appraise(complete.document, seen, plain, now)
    known = demands.known if first.cpu is None else first.cpu.endorsement or demands.known
    return first, document.appraise(complete.challenged, seen, demands._replace(known=known), now)


def _boot(complete: CompleteAttestation) -> tuple[tuple[Verdict, ...], Report | None, SealedBoot | None]:
    try:
        report = snpreport.parse(complete.boot.report)
        return (_FORMAT.passed,), report, sealedboot.parse(complete.boot.sealed)
    except TinbootError as error:
        return (Verdict(_FORMAT, error),), None, None


def _bindings(
    complete: CompleteAttestation,
    documents: tuple[document.Appraisal, ...],
    boot: tuple[Report | None, SealedBoot | None],
    demands: Demands,
) -> tuple[Verdict, ...]:
    gpus: Wanted
    if isinstance(demands.gpus, Unchecked):
        gpus = demands.gpus
    else:
        gpus = "none" if demands.gpus is None else "demanded"
    report, sealed = boot
    keys = [part.keys for part in documents if part.keys is not None]
    reports = [part.report for part in documents if part.report is not None]
    if report is None or sealed is None or len(keys) < len(documents) or len(reports) < len(documents):
        return unreached(complete_binding.CHECKS, "what it would be asked of cannot be read")
    return ask(complete_binding.CHECKS, Subject(complete, keys, [*reports, report], sealed, gpus))
