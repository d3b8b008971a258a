"""Appraises one report: evidence, endorsements, policy and data in, a result with every verdict out. Pure.

Every check runs that can: those of the certificates, and if they hold, of how the report belongs to them;
those of what the report states in any case. What decides, when several fail, is the most fundamental:

    3  malformed      the bytes are not what they should be
    4  mismatch       a signature or an endorsement does not hold
    5  refused        genuine, and against the policy: a "no"
    6  unavailable    nothing is against it, and something that was demanded could not be looked at
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, final

from tinboot.formats.errors import Refused, TinbootError, Unavailable
from tinboot.formats.snpreport import Report
from tinboot.formats.snptcb import Line, decode, product_of
from tinboot.verify import binding, chain, crl, platform, roots
from tinboot.verify.advisories import Data, Finding
from tinboot.verify.certificate import Certificate
from tinboot.verify.chain import Endorsement
from tinboot.verify.checks import Unchecked, Verdict, ask, decisive, failure, unreached
from tinboot.verify.crl import Revocations
from tinboot.verify.policy import Policy

_IDENTIFIERS = (
    *("measurement", "report_data", "host_data", "chip_id", "id_key_digest", "author_key_digest"),
    *("family_id", "image_id", "report_id", "report_id_ma"),
)

_SEAL = object()


class Endorsements(NamedTuple):
    """`offered`: certificates that may be the issuers, in any order. `revocations`: PEM or DER, or None."""

    vek: Certificate
    offered: Sequence[Certificate] = ()
    revocations: bytes | None = None
    pinned: Sequence[roots.Root] = roots.AMD


class Subject(NamedTuple):
    """What the checks of binding.py are put to."""

    report: Report
    endorsement: Endorsement
    now: datetime
    revocations: Revocations | TinbootError | Unchecked


@final
class Accepted:
    """A report that passed all of a policy. `Appraisal.accept` alone makes one."""

    __slots__ = ("appraisal", "endorsement", "report")

    def __init__(self, seal: object, appraisal: Appraisal, endorsement: Endorsement) -> None:
        if seal is not _SEAL:
            raise TypeError("an accepted report is made by appraising one")
        self.report = appraisal.report
        self.endorsement = endorsement
        self.appraisal = appraisal


@final
class Appraisal:
    """What came of it; `appraise` alone makes one. `endorsement` is None where the chain does not hold."""

    __slots__ = ("data", "endorsement", "line", "now", "policy", "report", "verdicts")

    def __init__(
        self,
        seal: object,
        report: Report,
        line: Line,
        endorsement: Endorsement | None,
        verdicts: tuple[Verdict, ...],
        demands: tuple[Policy, Data, datetime],
    ) -> None:
        if seal is not _SEAL:
            raise TypeError("an appraisal is made by appraising a report")
        self.report = report
        self.line = line
        self.endorsement = endorsement
        self.verdicts = verdicts
        self.policy, self.data, self.now = demands

    @property
    def advisories(self) -> tuple[Finding, ...]:
        """Where the platform stands with each that concerns it. No verdict depends on them."""
        return self.data.standing(self.report, self.line)

    @property
    def failure(self) -> TinbootError | None:
        """The one that decides, the check's name in front; None where nothing failed."""
        return failure(decisive(self.verdicts))

    def accept(self) -> Accepted:
        """Raises what decides, unless every check passed or is unchecked by the policy's own word."""
        if (found := self.failure) is not None:
            raise found
        if self.endorsement is None:
            raise AssertionError("no check failed and the chain does not hold")
        return Accepted(_SEAL, self, self.endorsement)

    def fields(self) -> dict[str, object]:
        """For JSON: bytes in hex, times in RFC 3339. What a refused report states is not called a claim."""
        decided = self.failure
        root = None if self.endorsement is None else self.endorsement.root
        return {
            "accepted": decided is None,
            "exit_code": 0 if decided is None else decided.exit_code,
            "at": self.now.isoformat(),
            "policy": {
                "name": self.policy.name,
                "date": self.policy.date,
                "changed": list(self.policy.changed),
            },
            "data": {"date": self.data.date},
            "root": {"sha256": root, "amd": root in {known.fingerprint for known in roots.AMD}},
            "checks": [_verdict(verdict) for verdict in self.verdicts],
            "advisories": [
                {
                    "id": finding.advisory.id,
                    "bulletin": finding.advisory.bulletin,
                    "name": finding.advisory.name,
                    "standing": finding.standing,
                    "detail": finding.detail,
                }
                for finding in self.advisories
            ],
            "claims" if decided is None else "unverified": self.claims(),
        }

    def claims(self) -> dict[str, object]:
        """What the report states. True only of an accepted report."""
        report, line = self.report, self.line
        tcbs = ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb")
        found: dict[str, object] = {"product": line.name, "version": report.version}
        for name in _IDENTIFIERS:
            found[name] = getattr(report, name).hex()
        for name in ("policy", "platform_info", "key_info", "vmpl", "guest_svn"):
            found[name] = getattr(report, name)
        for name in tcbs:
            tcb = decode(line, getattr(report, name))
            found[name] = {part: value for part, value in tcb._asdict().items() if value is not None}
        found["cpu"] = None if report.cpuid is None else report.cpuid._asdict()
        found["firmware"] = str(report.current_version)
        found["committed_firmware"] = str(report.committed_version)
        found["launch_mitigations"] = report.launch_mitigations
        found["current_mitigations"] = report.current_mitigations
        if self.endorsement is not None:
            found["signed_by"] = self.endorsement.kind
            found["provider"] = self.endorsement.csp_id
        return found


def appraise(
    report: Report,
    endorsements: Endorsements,
    policy: Policy,
    data: Data,
    now: datetime,
    known: Endorsement | None = None,
) -> Appraisal:
    """`now` has a time zone. `known`: the endorsement of an earlier appraisal of the same certificate; one of
    another, or by a root that is not pinned now, counts for nothing.

    Raises where not even the checks can begin: `Unavailable` without an issuer's certificate, `Refused` for a
    product that is not known.
    """
    if known is None or not known.is_of(endorsements.vek, endorsements.pinned):
        presented = chain.present(endorsements.vek, endorsements.offered, endorsements.pinned)
        verdicts, endorsement = chain.examine(presented)
        line = presented.line
    else:
        verdicts, endorsement, line = _held(), known, known.line
    if endorsement is None:
        verdicts += unreached(binding.CHECKS, "the chain of certificates does not hold")
    else:
        revocations = _revocations(endorsements, policy, endorsement)
        verdicts += ask(binding.CHECKS, Subject(report, endorsement, now, revocations))
    if report.cpuid is not None:
        with contextlib.suppress(Refused):  # the check `cpu` says so
            line = product_of(report.cpuid)
    tcb = endorsement.tcb if endorsement is not None and endorsement.line is line else None
    csp_id = None if endorsement is None else endorsement.csp_id
    verdicts += ask(platform.CHECKS, platform.Subject(report, line, policy, data, tcb, csp_id))
    return Appraisal(_SEAL, report, line, endorsement, verdicts, (policy, data, now))


def _held() -> tuple[Verdict, ...]:
    """An `Endorsement` is the proof that these passed."""
    return tuple(check.passed for check in chain.CHECKS)


def _revocations(
    endorsements: Endorsements, policy: Policy, endorsement: Endorsement
) -> Revocations | TinbootError | Unchecked:
    """A list that is given is looked at whatever the policy says."""
    if endorsements.revocations is None:
        if isinstance(policy.revocation, Unchecked):
            return policy.revocation
        return Unavailable("the policy demands a revocation list and none is given", "--crl FILE")
    try:
        return crl.read(endorsements.revocations, endorsement.chain[2])
    except TinbootError as error:
        return error


def _verdict(verdict: Verdict) -> dict[str, object]:
    return {"id": verdict.id, "row": verdict.row, "meaning": verdict.meaning, **verdict.fields()}
