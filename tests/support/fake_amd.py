"""The harness's fake AMD, as the verifier's tests use it: a whole that passes, and one place to break it.

The time is `NOW` for everybody. RSA keys are made once and kept in the build folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import cache
from typing import NamedTuple

import stub_chain
import stub_report
from stub_chain import Authority, Form
from stub_report import Contents

from tinboot.builder import places
from tinboot.formats import snpreport
from tinboot.formats.errors import TinbootError
from tinboot.formats.snpreport import Report
from tinboot.formats.snptcb import GENOA, Line
from tinboot.verify import certificate, chain, crl, roots
from tinboot.verify.chain import Endorsement, Kind, Presented
from tinboot.verify.checks import Unchecked, Verdict
from tinboot.verify.crl import Revocations

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
KEY = stub_chain.chip_key()

Change = Callable[[Form], Form]


def same(form: Form) -> Form:
    return form


@cache
def authority(line: Line = GENOA) -> Authority:
    return stub_chain.authority(places.build_folder() / "stub-amd", line, NOW)


def vek_form(line: Line = GENOA, kind: Kind = "VCEK") -> Form:
    amd, tcb = authority(line), stub_report.TCBS[line]
    return amd.vcek(KEY, tcb, stub_report.chip_id(line)) if kind == "VCEK" else amd.vlek(KEY, tcb)


def presented(
    line: Line = GENOA,
    kind: Kind = "VCEK",
    *,
    vek: Change = same,
    intermediate: Change = same,
    root: Change = same,
    amd: Authority | None = None,
) -> Presented:
    """A chain in which what the changes say is wrong, signed all the same, and its root trusted."""
    amd = amd or authority(line)
    ica = amd.ask() if kind == "VCEK" else amd.asvk()
    made = (vek(vek_form(line, kind)), intermediate(ica), root(amd.ark()))
    found = [certificate.parse(amd.issue(form)) for form in made]
    return Presented(found[0], found[1], found[2], (roots.Root(line, found[2].fingerprint),))


def endorsement(line: Line = GENOA, kind: Kind = "VCEK") -> Endorsement:
    return _endorsements(line)[kind]


@cache
def _endorsements(line: Line) -> dict[Kind, Endorsement]:
    """Of both kinds, by one root."""
    vcek = presented(line, "VCEK")
    vlek = presented(line, "VLEK")
    vlek = Presented(vlek.vek, vlek.intermediate, vcek.root, vcek.pinned)
    return {"VCEK": chain.endorse(vcek), "VLEK": chain.endorse(vlek)}


def report(contents: Contents | None = None) -> Report:
    return snpreport.parse(stub_report.sign((contents or Contents()).pack(), KEY))


class Subject(NamedTuple):
    """What the checks of a report are put to."""

    report: Report
    endorsement: Endorsement
    now: datetime = NOW
    revocations: Revocations | TinbootError | Unchecked = Unchecked("not asked for")


def revocations(*serials: int, line: Line = GENOA) -> Revocations:
    amd = authority(line)
    return crl.read(amd.revoke(amd.revocations(*serials)), endorsement(line).chain[2])


def failures(verdicts: Iterable[Verdict]) -> dict[str, TinbootError]:
    return {v.id: v.outcome for v in verdicts if isinstance(v.outcome, TinbootError)}
