"""The whole appraisal: what genuine reports come to, what decides when several fail, who makes a result."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
import vectors
from fake_amd import KEY, NOW, authority, presented, report
from hypothesis import given, settings
from hypothesis import strategies as st
from stub_report import Contents, patched, sign

from tinboot.formats import certtable, snpreport
from tinboot.formats.errors import Malformed, Mismatch, Refused, TinbootError, Unavailable
from tinboot.formats.snpreport import SIZE, Report
from tinboot.formats.snptcb import GENOA, LINES, MILAN, TURIN, Line
from tinboot.verify import advisories, certificate, policy, roots
from tinboot.verify.appraisal import Accepted, Appraisal, Endorsements, appraise
from tinboot.verify.checks import Unchecked
from tinboot.verify.policy import Policy

BASELINE = policy.shipped("baseline")
DATA = advisories.shipped()
GOOD = sign(Contents().pack(), KEY)


def stub(line: Line = GENOA, *, crl: bytes | None = None, pinned: Any = None) -> Endorsements:
    made = presented(line)
    offered = (made.intermediate, made.root)
    return Endorsements(made.vek, offered, crl, made.pinned if pinned is None else pinned)


def of(
    found: Report | None = None,
    endorsements: Endorsements | None = None,
    demanded: Policy = BASELINE,
    now: datetime = NOW,
) -> Appraisal:
    return appraise(found or report(), endorsements or stub(), demanded, DATA, now)


def failed(result: Appraisal) -> set[str]:
    return {verdict.id for verdict in result.verdicts if isinstance(verdict.outcome, TinbootError)}


@pytest.mark.parametrize("version", snpreport.VERSIONS)
@pytest.mark.parametrize("line", [GENOA, TURIN], ids=lambda line: line.name)
def test_a_good_report_is_accepted(line: Line, version: int) -> None:
    result = of(report(Contents(line, version)), stub(line))
    accepted = result.accept()
    assert accepted.report is result.report
    assert accepted.endorsement.line is line


def test_amds_roots_refuse_the_stub() -> None:
    for line in LINES:
        result = of(report(Contents(line)), stub(line, pinned=roots.AMD))
        assert "root-pinned" in failed(result)
        assert isinstance(result.failure, Mismatch)
        assert result.endorsement is None


def genuine(name: str, vek: str | None = None) -> tuple[Report, Endorsements]:
    if vek is None:
        vcek = certtable.parse(vectors.read("snp/veraison/auxblob.bin")).vcek
        assert vcek is not None
    else:
        vcek = vectors.read(f"snp/{vek}")
    data = vectors.read(f"snp/{name}")
    if name.endswith(".hex"):
        data = bytes.fromhex("".join(data.decode().split()))
    return snpreport.parse(data), Endorsements(certificate.read(vcek)[0])


#: report, certificate (None: of the table), when it was valid -> what the baseline refuses beside Milan.
OUTCOMES: dict[str, tuple[str, str | None, datetime, set[str]]] = {
    "go-sev-guest, DEBUG and an old TCB": (
        "go-sev-guest/attestation.bin",
        "go-sev-guest/vcek.testcer",
        NOW,
        {"debug", "platform-info", "reported-floor", "microcode-floor", "launch-floor"}
        | {"launch-microcode", "firmware"},
    ),
    "trustee, AWS, VMPL 1": (
        "trustee/test-vlek-report.bin",
        "trustee/test-vlek.der",
        datetime(2025, 6, 1, tzinfo=UTC),
        {"vmpl", "microcode-floor"},
    ),
    "oak": ("oak/milan_oc_release.report.bin", "oak/milan_oc_release.vcek.der", NOW, set()),
    "veraison": ("veraison/outblob.bin", None, NOW, set()),
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_genuine_reports(name: str) -> None:
    file, vek, now, expected = OUTCOMES[name]
    found, endorsements = genuine(file, vek)
    refused = of(found, endorsements, BASELINE, now)
    milan = refused.line is MILAN
    assert failed(refused) == expected | ({"trusted"} if milan else set())
    if milan:
        reason = next(str(v.outcome) for v in refused.verdicts if v.id == "trusted")
        assert "Milan's chip-unique secrets can be read out" in reason
    allowed = of(found, endorsements, BASELINE.allowing("Milan"), now)
    assert "trusted" not in failed(allowed)
    assert (allowed.failure is None) == (not expected)
    if expected:
        assert isinstance(allowed.failure, Refused)


def test_the_strict_profile_refuses_what_sb_3023_does_not_fix() -> None:
    found, endorsements = genuine("veraison/outblob.bin")
    result = of(found, endorsements, policy.shipped("strict"))
    assert {"reported-floor", "revocation"} <= failed(result)
    assert isinstance(result.failure, Refused)  # a "no" says more than a "cannot tell"


@pytest.mark.parametrize(
    ("raw", "endorsements", "now", "check", "kind"),
    [
        (patched(GOOD, SIZE - 1, b"\1"), {"pinned": ()}, NOW, "signature-padding", Mismatch),
        (patched(GOOD, SIZE - 1, b"\1"), {}, NOW, "signature-padding", Malformed),
        (patched(GOOD, 0x50, b"\1"), {}, NOW.replace(year=2040), "report-signature", Mismatch),
        (sign(Contents(vmpl=1).pack(), KEY), {"crl": b"0"}, NOW, "revocation", Malformed),
        (sign(Contents(vmpl=1).pack(), KEY), {}, NOW, "vmpl", Refused),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_most_fundamental_failure_decides(
    raw: bytes, endorsements: dict[str, Any], now: datetime, check: str, kind: type[TinbootError]
) -> None:
    result = of(snpreport.parse(raw), stub(**endorsements), now=now)
    assert isinstance(result.failure, kind)
    if "pinned" not in endorsements:
        assert result.failure.message.startswith(f"{check}: ")
    with pytest.raises(kind):
        result.accept()


def test_a_list_that_is_demanded_and_missing_is_cannot_tell() -> None:
    demanded = BASELINE._replace(revocation="require")
    result = of(demanded=demanded)
    assert failed(result) == {"revocation"}
    assert isinstance(result.failure, Unavailable)
    amd = authority()
    assert of(endorsements=stub(crl=amd.revoke(amd.revocations())), demanded=demanded).failure is None
    revoked = stub(crl=amd.revoke(amd.revocations(presented().intermediate.serial)))
    assert isinstance(of(endorsements=revoked).failure, Mismatch)  # whether demanded or not


def test_an_endorsement_is_kept_for_its_own_certificate_alone() -> None:
    endorsements = stub()
    first = appraise(report(), endorsements, BASELINE, DATA, NOW).accept()
    again = appraise(report(), endorsements, BASELINE, DATA, NOW, first.endorsement)
    assert again.endorsement is first.endorsement
    assert again.failure is None
    assert [v.id for v in again.verdicts] == [v.id for v in first.appraisal.verdicts]
    unpinned = endorsements._replace(pinned=roots.AMD)
    assert "root-pinned" in failed(appraise(report(), unpinned, BASELINE, DATA, NOW, first.endorsement))
    other = appraise(report(Contents(TURIN)), stub(TURIN), BASELINE, DATA, NOW, first.endorsement)
    assert other.endorsement is not first.endorsement
    assert other.failure is None


def test_nothing_else_makes_a_result() -> None:
    result = of()
    with pytest.raises(TypeError):
        Accepted(object(), result, result.accept().endorsement)
    with pytest.raises(TypeError):
        Appraisal(object(), result.report, GENOA, result.endorsement, (), (BASELINE, DATA, NOW))


def test_an_issuer_is_known_by_its_whole_name() -> None:
    """The stub's is called SEV-Genoa, too, and is not AMD's: another chain has to be given."""
    with pytest.raises(Unavailable, match="is not at hand"):
        of(endorsements=Endorsements(presented().vek))


def test_fields_are_json() -> None:
    result = of(report(Contents(version=5, measurement=b"\xab" * 48)))
    fields = json.loads(json.dumps(result.fields()))
    assert fields["accepted"] is True
    assert fields["exit_code"] == 0
    assert fields["at"] == "2026-06-01T12:00:00+00:00"
    assert fields["policy"] == {"name": "baseline", "date": BASELINE.date, "changed": []}
    assert fields["data"] == {"date": DATA.date}
    assert fields["root"]["amd"] is False
    assert fields["claims"]["measurement"] == "ab" * 48
    assert fields["claims"]["reported_tcb"] == {"bl": 10, "tee": 0, "snp": 27, "ucode": 84}
    assert {check["verdict"] for check in fields["checks"]} == {"pass", "unchecked"}
    assert all(check["detail"] for check in fields["checks"] if check["verdict"] == "unchecked")
    assert {entry["standing"] for entry in fields["advisories"]} == {"fixed", "cannot tell"}


def test_fields_of_a_refused_report_claim_nothing() -> None:
    fields = of(report(Contents(vmpl=2))).fields()
    assert (fields["accepted"], fields["exit_code"]) == (False, 5)
    assert "claims" not in fields
    assert "unverified" in fields
    checks: Any = fields["checks"]
    assert [c["id"] for c in checks if c["verdict"] == "fail"] == ["vmpl"]


def test_what_the_chain_did_not_allow_to_ask_is_not_called_passed() -> None:
    result = of(endorsements=stub(pinned=roots.AMD))
    outcomes = {verdict.id: verdict.outcome for verdict in result.verdicts}
    assert isinstance(outcomes["report-signature"], Unchecked)


@settings(deadline=None, max_examples=80)
@given(st.integers(0, SIZE * 8 - 1))
def test_a_flipped_bit_is_malformed_or_a_mismatch(bit: int) -> None:
    raw = bytearray(GOOD)
    raw[bit // 8] ^= 1 << bit % 8
    try:
        result = of(snpreport.parse(bytes(raw)))
    except Malformed:
        return
    assert isinstance(result.failure, Malformed | Mismatch)


@settings(deadline=None, max_examples=80)
@given(st.sampled_from(snpreport.VERSIONS), st.binary(min_size=SIZE - 4, max_size=SIZE - 4))
def test_any_bytes_are_refused(version: int, rest: bytes) -> None:
    result = of(snpreport.parse(version.to_bytes(4, "little") + rest))
    assert isinstance(result.failure, Malformed | Mismatch)
    json.dumps(result.fields())


@settings(deadline=None, max_examples=40)
@given(st.binary(max_size=2 * SIZE).filter(lambda data: len(data) != SIZE))
def test_another_length_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed, match="bytes, expected 1184"):
        snpreport.parse(data)
    with pytest.raises(Malformed):
        snpreport.parse(GOOD + data[:1] if data else GOOD[:-1])
