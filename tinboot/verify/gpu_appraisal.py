"""Appraises GPUs: evidence, reference values, policy, time and OCSP responses in, a result out. Pure.

Every check runs that can: those of the certificates, and if they hold, of how the report belongs to them;
those of what the report states in any case; of several GPUs, those of all together. What decides, when
several fail, is the most fundamental, as for a CPU's report (appraisal.py): malformed, mismatch, refused,
unavailable.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple, final

from tinboot.formats import gpureport
from tinboot.formats.errors import Malformed, Mismatch, Refused, TinbootError
from tinboot.formats.gpuevidence import GpuEvidence
from tinboot.formats.gpureference import ReferenceValues
from tinboot.formats.gpureport import Report
from tinboot.verify import gpu_binding, gpu_chain, gpu_ocsp, gpu_platform, gpu_roots
from tinboot.verify.certificate import Certificate
from tinboot.verify.checks import (
    Check,
    Unchecked,
    Verdict,
    ask,
    decisive,
    failure,
    named,
    none_skipped,
    unreached,
)
from tinboot.verify.gpu_chain import Endorsement
from tinboot.verify.gpu_ocsp import Limits, Response
from tinboot.verify.gpu_platform import Versions
from tinboot.verify.gpu_policy import Policy

#: The only checks that an accepted GPU may not have passed: the policy or the driver's age says why.
MAY_BE_UNCHECKED = frozenset({"nonce", "revocation", "architecture", "fwid", "count"})

_SEAL = object()


class Collateral(NamedTuple):
    """What one appraisal takes besides the evidence.

    `ocsp`: responses in DER, of any of the GPUs. `pinned`: fingerprints of the roots to trust.
    """

    reference: ReferenceValues
    ocsp: Sequence[bytes] = ()
    pinned: Sequence[str] = gpu_roots.NVIDIA


def _chain(_: object) -> None:
    """Asked by reading it."""


#: What stands before all others, per GPU: whether there is anything that can be looked at.
_CHAIN_FORMAT: Check[object] = Check("chain-format", None, "the certificates can be read, strictly", _chain)
_REPORT_FORMAT: Check[object] = Check("report-format", None, "the report can be read, strictly", _chain)
FORMATS = (_CHAIN_FORMAT, _REPORT_FORMAT)


@final
class AcceptedGpu:
    """A GPU whose evidence passed all of a policy. `Appraisal.accept` alone makes one."""

    __slots__ = ("appraisal", "endorsement", "report")

    def __init__(self, seal: object, appraisal: Appraisal, endorsement: Endorsement, report: Report) -> None:
        if seal is not _SEAL:
            raise TypeError("an accepted GPU is made by appraising its evidence")
        self.appraisal = appraisal
        self.endorsement = endorsement
        self.report = report


@final
class Appraisal:
    """What came of one GPU's; `appraise` alone makes one.

    `report` is None where it cannot be read, `endorsement` where the chain does not hold.
    """

    __slots__ = ("endorsement", "evidence", "report", "subject", "verdicts", "versions")

    def __init__(
        self,
        seal: object,
        evidence: GpuEvidence,
        report: Report | None,
        endorsement: Endorsement | None,
        subject: gpu_platform.Subject | None,
        verdicts: tuple[Verdict, ...],
    ) -> None:
        if seal is not _SEAL:
            raise TypeError("an appraisal is made by appraising evidence")
        self.evidence = evidence
        self.report = report
        self.endorsement = endorsement
        self.subject = subject
        self.versions = None if subject is None else subject.versions
        self.verdicts = verdicts

    @property
    def decisive(self) -> Verdict | None:
        """The failure that decides; None where nothing failed."""
        return decisive(self.verdicts)

    @property
    def failure(self) -> TinbootError | None:
        """Its error, the check's name in front."""
        return failure(self.decisive)

    def accept(self) -> AcceptedGpu:
        """Raises what decides, unless every check passed or is unchecked by the policy's own word."""
        if (found := self.failure) is not None:
            raise found
        none_skipped(self.verdicts, MAY_BE_UNCHECKED)
        if self.endorsement is None or self.report is None:
            raise AssertionError("no check failed, and there is no endorsed report")
        return AcceptedGpu(_SEAL, self, self.endorsement, self.report)


def appraise(
    evidence: GpuEvidence,
    collateral: Collateral,
    policy: Policy,
    now: datetime,
    versions: Versions | None = None,
    known: Endorsement | None = None,
) -> Appraisal:
    """One GPU; an OCSP response about another one counts against it, and `policy.gpus` is not looked at.

    `now` has a time zone. `versions`: what NVML says, where it can be asked. `known`: the endorsement of an
    earlier appraisal of the same chain; one of another, or by a root that is not pinned now, counts for
    nothing.
    """
    return _appraise(evidence, collateral, policy, now, versions, known, _responses(collateral.ocsp))


def _appraise(
    evidence: GpuEvidence,
    collateral: Collateral,
    policy: Policy,
    now: datetime,
    versions: Versions | None,
    known: Endorsement | None,
    responses: Sequence[Response] | TinbootError,
) -> Appraisal:
    verdicts, endorsement = _endorse(evidence, collateral.pinned, known)
    report: Report | None = None
    try:
        report = gpureport.parse(evidence.evidence)
    except Malformed as error:
        why = "the report cannot be read"
        verdicts += (
            Verdict(_REPORT_FORMAT, error),
            *unreached(gpu_binding.CHECKS, why),
            *unreached(gpu_platform.CHECKS, why),
        )
        return Appraisal(_SEAL, evidence, None, endorsement, None, verdicts)
    verdicts += (_REPORT_FORMAT.passed,)
    if endorsement is None:
        verdicts += unreached(gpu_binding.CHECKS, "the chain of certificates does not hold")
    else:
        limits = Limits(now, collateral.reference.created, policy.oldest_answer)
        verdicts += ask(
            gpu_binding.CHECKS,
            gpu_binding.Subject(report, evidence.arch, endorsement, policy, responses, limits),
        )
    subject = gpu_platform.Subject(evidence, report, collateral.reference, policy, versions)
    verdicts += ask(gpu_platform.CHECKS, subject)
    return Appraisal(_SEAL, evidence, report, endorsement, subject, verdicts)


def _endorse(
    evidence: GpuEvidence, pinned: Sequence[str], known: Endorsement | None
) -> tuple[tuple[Verdict, ...], Endorsement | None]:
    if known is None:
        with contextlib.suppress(TinbootError):  # what is wrong is for the checks below, one by one
            known = gpu_chain.endorsed(evidence.certificate, tuple(pinned))
            return (_CHAIN_FORMAT.passed, *(check.passed for check in gpu_chain.CHECKS)), known
    try:
        presented = gpu_chain.present(evidence.certificate, pinned)
    except Malformed as error:
        why = "the certificates cannot be read"
        return (Verdict(_CHAIN_FORMAT, error), *unreached(gpu_chain.CHECKS, why)), None
    if known is not None and known.is_of(presented.chain, pinned):
        return (_CHAIN_FORMAT.passed, *(check.passed for check in gpu_chain.CHECKS)), known
    examined = gpu_chain.examine(presented)
    return (_CHAIN_FORMAT.passed, *examined.verdicts), examined.endorsement


def _responses(ocsp: Sequence[bytes]) -> Sequence[Response] | TinbootError:
    try:
        return [gpu_ocsp.read(data) for data in ocsp]
    except TinbootError as error:
        return error


@final
class AcceptedGpus:
    """All of a machine's GPUs, in the evidence's order. `Appraisals.accept` alone makes one."""

    __slots__ = ("appraisals", "gpus")

    def __init__(self, seal: object, appraisals: Appraisals, gpus: tuple[AcceptedGpu, ...]) -> None:
        if seal is not _SEAL:
            raise TypeError("accepted GPUs are made by appraising their evidence")
        self.appraisals = appraisals
        self.gpus = gpus


@final
class Appraisals:
    """What came of all GPUs; `appraise_all` alone makes one. `verdicts`: of what concerns them together."""

    __slots__ = ("collateral", "gpus", "now", "policy", "verdicts")

    def __init__(
        self,
        seal: object,
        gpus: tuple[Appraisal, ...],
        verdicts: tuple[Verdict, ...],
        demands: tuple[Collateral, Policy, datetime],
    ) -> None:
        if seal is not _SEAL:
            raise TypeError("appraisals are made by appraising evidence")
        self.gpus = gpus
        self.verdicts = verdicts
        self.collateral, self.policy, self.now = demands

    @property
    def decisive(self) -> Verdict | None:
        """Of any GPU, or of all together; the first of the most fundamental kind."""
        return decisive((*(v for gpu in self.gpus for v in gpu.verdicts), *self.verdicts))

    @property
    def failure(self) -> TinbootError | None:
        """The check's name in front, and before it which GPU, where there are several."""
        decided = self.decisive
        if (found := failure(decided)) is None:
            return None
        for number, gpu in enumerate(self.gpus):
            if len(self.gpus) > 1 and any(verdict is decided for verdict in gpu.verdicts):
                return named(f"GPU {number}", found)
        return found

    def accept(self) -> AcceptedGpus:
        """Raises what decides, unless every check passed or is unchecked by the policy's own word."""
        if (found := self.failure) is not None:
            raise found
        none_skipped(self.verdicts, MAY_BE_UNCHECKED)
        return AcceptedGpus(_SEAL, self, tuple(gpu.accept() for gpu in self.gpus))


class Machine(NamedTuple):
    """What the checks of all GPUs together are put to. `strays`: answers about none of them."""

    gpus: Sequence[Appraisal]
    policy: Policy
    strays: int


def count(machine: Machine) -> Unchecked | None:
    """As many GPUs as are demanded."""
    if isinstance(machine.policy.gpus, Unchecked):
        return machine.policy.gpus
    if len(machine.gpus) != machine.policy.gpus:
        raise Refused(f"evidence of {len(machine.gpus)} GPUs, expected {machine.policy.gpus}")
    return None


def distinct(machine: Machine) -> None:
    """No GPU twice: neither an attestation key's serial number, nor such a key, nor a boot ROM's."""
    seen: dict[object, int] = {}
    for number, gpu in enumerate(machine.gpus):
        if gpu.endorsement is None:
            continue
        leaf, boot_rom = gpu.endorsement.chain[:2]
        for mark in (("serial", leaf.serial), ("key", leaf.key), ("boot ROM", boot_rom.key)):
            if seen.setdefault(mark, number) != number:
                raise Refused(f"GPU {seen[mark]} and GPU {number} are one and the same, {leaf.serial}")


def ocsp_strays(machine: Machine) -> None:
    """Every OCSP answer is about one of the GPUs' certificates."""
    if machine.strays:
        raise Mismatch(f"{machine.strays} OCSP answers about certificates of none of the GPUs")


CHECKS: tuple[Check[Machine], ...] = (
    Check("count", None, "there are as many GPUs as demanded", count),
    Check("distinct", None, "no GPU is there twice", distinct),
    Check("ocsp-strays", None, "every OCSP answer is about one of the GPUs", ocsp_strays),
)


def appraise_all(
    evidence: Sequence[GpuEvidence],
    collateral: Collateral,
    policy: Policy,
    now: datetime,
    versions: Sequence[Versions] | None = None,
) -> Appraisals:
    """All GPUs of a machine. `versions`: NVML's, one for each, in the evidence's order."""
    if versions is not None and len(versions) != len(evidence):
        raise ValueError(f"versions of {len(versions)} GPUs, evidence of {len(evidence)}")
    responses = _responses(collateral.ocsp)
    used: set[int] = set()
    gpus = []
    for number, item in enumerate(evidence):
        own = responses if isinstance(responses, TinbootError) else _own(responses, item, used)
        stated = None if versions is None else versions[number]
        gpus.append(_appraise(item, collateral, policy, now, stated, None, own))
    strays = 0 if isinstance(responses, TinbootError) else len(responses) - len(used)
    verdicts = ask(CHECKS, Machine(gpus, policy, strays))
    return Appraisals(_SEAL, tuple(gpus), verdicts, (collateral, policy, now))


def _own(responses: Sequence[Response], evidence: GpuEvidence, used: set[int]) -> list[Response]:
    """The responses that have an answer about this GPU's certificates; GPUs share their upper half's."""
    if not responses:
        return []
    try:
        chain: Sequence[Certificate] = gpu_chain.present(evidence.certificate).chain
    except Malformed:
        return []
    found = []
    for number, response in enumerate(responses):
        if any(gpu_ocsp.concerning([response], own, issuer) for own, issuer in pairwise(chain)):
            used.add(number)
            found.append(response)
    return found
