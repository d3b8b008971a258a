"""Appraisals of GPUs as a whole: what decides, what several have to be to each other, what may be kept."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
import stub_nvidia
from fake_gpus import (
    CREATED,
    GOOD,
    answers,
    appraise,
    endorsement,
    evidence,
    failed,
    gpus,
    packed,
    policy,
    reference,
    root,
)
from fake_nvidia import NONCE, NOW
from hypothesis import given, settings
from hypothesis import strategies as st
from stub_gpu_report import Contents

from tinboot.formats.errors import Malformed, Mismatch, Refused, TinbootError, Unavailable
from tinboot.formats.gpuevidence import GpuEvidence
from tinboot.formats.gpureference import ReferenceValues
from tinboot.verify import (
    gpu_appraisal,
    gpu_binding,
    gpu_chain,
    gpu_platform,
    gpu_policy,
    gpu_result,
    gpu_roots,
)
from tinboot.verify.checks import Check, Unchecked, Verdict, none_skipped
from tinboot.verify.gpu_appraisal import AcceptedGpu, AcceptedGpus, Appraisal, Appraisals, Collateral
from tinboot.verify.gpu_platform import Versions

OTHER = stub_nvidia.chain(number=1)
COLLATERAL = Collateral(reference(), (), (root(),))


@pytest.mark.parametrize("count", [1, 2, 8])
def test_different_gpus_are_accepted(count: int) -> None:
    accepted = appraise(gpus(count)).accept()
    assert [gpu.endorsement.ueid for gpu in accepted.gpus] == [
        str(stub_nvidia.chain(number=at).forms[0].serial) for at in range(count)
    ]


def test_answers_of_all_gpus_are_given_together() -> None:
    """The upper half of their chains is the same, and one answer about it does for all."""
    shared, own = answers()[1:], [answers(stub_nvidia.chain(number=at))[0] for at in range(3)]
    appraise(gpus(3), ocsp=packed([*own, *shared]), revocation="ocsp").accept()
    result = appraise(gpus(3), ocsp=packed([*own[:2], *shared]), revocation="ocsp")
    assert failed(result) == [(2, "revocation")]
    with pytest.raises(Unavailable, match="GPU 2: revocation: no OCSP answer about 'GH100 A01 GSP BROM'"):
        result.accept()


def test_an_answer_about_none_of_them() -> None:
    stray = packed(answers(stub_nvidia.chain(number=7))[:1])
    result = appraise(gpus(2), ocsp=stray)
    assert failed(result) == [(-1, "ocsp-strays")]
    with pytest.raises(Mismatch, match="ocsp-strays: 1 OCSP answers about certificates of none of the GPUs"):
        result.accept()


def test_of_one_gpu_an_answer_about_another_counts_against_it() -> None:
    collateral = COLLATERAL._replace(ocsp=packed([*answers(), *answers(OTHER)[:1]]))
    result = gpu_appraisal.appraise(evidence(), collateral, policy(), NOW)
    with pytest.raises(Mismatch, match="revocation: an OCSP answer that is about none of the certificates"):
        result.accept()


@pytest.mark.parametrize("wanted", [1, 3])
def test_count(wanted: int) -> None:
    result = appraise(gpus(2), gpus=wanted)
    assert failed(result) == [(-1, "count")]
    with pytest.raises(Refused, match=f"count: evidence of 2 GPUs, expected {wanted}"):
        result.accept()
    appraise(gpus(2), gpus=Unchecked("why not")).accept()


def test_no_evidence_at_all() -> None:
    assert failed(appraise([], gpus=1)) == [(-1, "count")]


def test_one_gpu_twice() -> None:
    first, second = gpus(2)
    result = appraise([first, second, first])
    assert failed(result) == [(-1, "distinct")]
    with pytest.raises(Refused, match="distinct: GPU 0 and GPU 2 are one and the same"):
        result.accept()


@pytest.mark.parametrize("what", ["serial", "key", "boot ROM"])
def test_whatever_two_gpus_have_in_common(what: str) -> None:
    """Each would take a certificate of NVIDIA's that it never issued."""
    first, second = stub_nvidia.chain(), OTHER
    if what == "serial":
        second = second.replace(0, serial=first.forms[0].serial)
    elif what == "key":
        second = second.replace(0, key=first.forms[0].key)._replace(key=first.key)
    else:  # a second attestation key under the first one's boot ROM
        form = first.forms[0]._replace(serial=5, key=second.forms[0].key)
        second = first.put(0, form)._replace(key=second.key)
    result = appraise([evidence(), evidence(chain=second)])
    assert failed(result) == [(-1, "distinct")]


def test_several_architectures() -> None:
    blackwell = Contents("BLACKWELL", nonce=NONCE)
    pair = [evidence(), evidence(blackwell)]
    values = reference(GOOD, blackwell)
    assert failed(appraise(pair, values=values)) == [(1, "architecture")]
    appraise(pair, values=values, architecture=Unchecked("why not")).accept()


def test_versions_are_each_gpus_own() -> None:
    good = Versions("550.90.07", "96.00.9F.00.01")
    appraise(gpus(2), versions=[good, good]).accept()
    assert failed(appraise(gpus(2), versions=[good, good._replace(vbios="x")])) == [(1, "vbios-version")]
    with pytest.raises(ValueError, match="versions of 1 GPUs, evidence of 2"):
        appraise(gpus(2), versions=[good])


# --- what cannot be read ---


@pytest.mark.parametrize(
    ("field", "data", "check", "message"),
    [
        ("certificate", b"", "chain-format", "0 PEM blocks"),
        ("certificate", b"\x30\x00", "chain-format", "offset"),
        ("certificate", stub_nvidia.pem([b"\x30\x00"]), "chain-format", "offset"),
        ("evidence", b"", "report-format", "offset 0x0"),
        ("evidence", evidence().evidence[:-1], "report-format", "offset"),
        ("evidence", evidence().evidence + b"x", "report-format", "offset 0x"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_offset(
    field: str, data: bytes, check: str, message: str
) -> None:
    good, second = gpus(2)
    changed: dict[str, Any] = {field: data}
    result = appraise([good, second._replace(**changed)])
    assert failed(result) == [(1, check)]
    with pytest.raises(Malformed, match=f"GPU 1: {check}: .*{message}"):
        result.accept()
    assert (result.gpus[1].report is None) == (field == "evidence")
    json.dumps(gpu_result.fields(result))


def test_zeros_behind_a_report_are_a_buffers() -> None:
    good = evidence()
    appraise([good._replace(evidence=good.evidence + bytes(20))]).accept()


# --- what decides ---


def test_the_most_fundamental_failure_decides() -> None:
    """A nonce is refused, a signature does not hold, a report cannot be read; of one GPU and of another."""
    replayed = GOOD._replace(nonce=bytes(32))
    refused = evidence(replayed)
    forged = evidence(replayed, stub_nvidia.chain(number=1)._replace(key=stub_nvidia.key("x")))
    unread = evidence(chain=stub_nvidia.chain(number=2))._replace(evidence=b"")
    missing = evidence(GOOD._replace(project="G999"), stub_nvidia.chain(number=3))
    for items, error in (
        ([missing], Unavailable),
        ([missing, refused], Refused),
        ([missing, refused, forged], Mismatch),
        ([missing, refused, forged, unread], Malformed),
    ):
        for order in (items, items[::-1]):
            failure = appraise(order).failure
            assert type(failure) is error, order


def test_which_gpu_it_was_is_said_where_there_are_several() -> None:
    bad = evidence(GOOD._replace(nonce=bytes(32)), OTHER)
    assert str(appraise([bad]).failure).startswith("nonce: ")
    assert str(appraise([evidence(), bad]).failure).startswith("GPU 1: nonce: ")


def test_a_chain_that_does_not_hold_leaves_what_depends_on_it_open() -> None:
    result = appraise([evidence()], pinned=gpu_roots.NVIDIA)
    assert failed(result) == [(0, "root-pinned")]
    outcomes = {verdict.id: verdict.outcome for verdict in result.gpus[0].verdicts}
    for check in gpu_binding.CHECKS:
        assert outcomes[check.id] == Unchecked("the chain of certificates does not hold")


def test_every_check_is_in_every_appraisal_once() -> None:
    groups = (gpu_appraisal.FORMATS, gpu_chain.CHECKS, gpu_binding.CHECKS, gpu_platform.CHECKS)
    expected = sorted(check.id for group in groups for check in group)
    for item in (evidence(), evidence()._replace(evidence=b""), evidence()._replace(certificate=b"")):
        result = appraise([item])
        assert sorted(verdict.id for verdict in result.gpus[0].verdicts) == expected
        assert [verdict.id for verdict in result.verdicts] == [check.id for check in gpu_appraisal.CHECKS]


def test_only_what_a_policy_or_an_old_driver_leaves_open_may_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that would not be asked for any other reason is a bug, and no acceptance."""
    idle: Check[Any] = Check("measurements", None, "x", lambda _: None)
    with pytest.raises(AssertionError, match="measurements was not asked"):
        none_skipped([Verdict(idle, Unchecked("forgotten"))], gpu_appraisal.MAY_BE_UNCHECKED)
    for checks in (gpu_platform.CHECKS, gpu_appraisal.CHECKS):
        check: Check[Any] = checks[-1]
        with monkeypatch.context() as patched:
            patched.setattr(check, "run", lambda _: Unchecked("forgotten"))
            result = appraise([evidence()])
            assert result.failure is None
            with pytest.raises(AssertionError, match=f"{check.id} was not asked"):
                (result.gpus[0] if checks is gpu_platform.CHECKS else result).accept()
    result = appraise(
        [evidence()],
        architecture=Unchecked("a"),
        gpus=Unchecked("b"),
        nonce=Unchecked("c"),
        revocation=Unchecked("d"),
    )
    result.accept()
    verdicts = (*result.gpus[0].verdicts, *result.verdicts)
    open_ = {verdict.id for verdict in verdicts if isinstance(verdict.outcome, Unchecked)}
    assert open_ == gpu_appraisal.MAY_BE_UNCHECKED - {"fwid"}


# --- what may be kept, and what nobody else can make ---


def test_an_endorsement_is_used_again_for_its_own_chain_alone() -> None:
    known = endorsement()
    first = gpu_appraisal.appraise(evidence(), COLLATERAL, policy(), NOW, known=known)
    assert first.endorsement is known
    first.accept()
    other = gpu_appraisal.appraise(evidence(chain=OTHER), COLLATERAL, policy(), NOW, known=known)
    assert other.endorsement is not known
    other.accept()
    elsewhere = COLLATERAL._replace(pinned=gpu_roots.NVIDIA)
    with pytest.raises(Mismatch, match="root-pinned"):
        gpu_appraisal.appraise(evidence(), elsewhere, policy(), NOW, known=known).accept()


def test_a_known_endorsement_stands_for_no_date() -> None:
    chain = stub_nvidia.chain().replace(0, not_after=NOW + timedelta(hours=1))
    first = gpu_appraisal.appraise(evidence(chain=chain), COLLATERAL, policy(), NOW)
    first.accept()
    later = gpu_appraisal.appraise(
        evidence(chain=chain), COLLATERAL, policy(), NOW + timedelta(hours=2), known=first.endorsement
    )
    with pytest.raises(Mismatch, match="dates"):
        later.accept()


def test_results_are_made_by_appraising_alone() -> None:
    seal, nothing = object(), None
    result = appraise([evidence()])
    for make in (
        lambda: AcceptedGpu(seal, result.gpus[0], endorsement(), result.gpus[0].report),  # type: ignore[arg-type]  # no seal is of that type
        lambda: AcceptedGpus(seal, result, ()),
        lambda: Appraisal(seal, evidence(), nothing, nothing, nothing, ()),
        lambda: Appraisals(seal, (), (), (COLLATERAL, policy(), NOW)),
    ):
        with pytest.raises(TypeError, match="made by appraising"):
            make()


# --- JSON ---


def test_json_says_everything() -> None:
    shown = json.loads(json.dumps(gpu_result.fields(appraise(gpus(2)))))
    assert (shown["accepted"], shown["exit_code"], shown["at"]) == (True, 0, NOW.isoformat())
    assert shown["policy"] == {
        "architecture": "HOPPER",
        "gpus": 2,
        "nonce": NONCE.hex(),
        "revocation": {"unchecked": gpu_policy.RELYING_PARTY.reason},
    }
    assert shown["reference_values"]["created"] == CREATED.isoformat()
    assert [rim["id"] for rim in shown["reference_values"]["rims"]] == [rim.id for rim in reference().rims]
    assert [check["id"] for check in shown["checks"]] == ["count", "distinct", "ocsp-strays"]
    for at, gpu in enumerate(shown["gpus"]):
        assert gpu["root"] == {"sha256": root(), "nvidia": False}
        assert gpu["claims"]["ueid"] == str(stub_nvidia.chain(number=at).forms[0].serial)
        assert gpu["claims"]["board"] == ["G520", "0200", "885"]
        assert gpu["claims"]["fwid"] == (endorsement().fwid or b"").hex()
        assert len(gpu["claims"]["measurements"]) == 64
        assert {check["verdict"] for check in gpu["checks"]} == {"pass", "unchecked"}


def test_json_calls_nothing_a_claim_where_any_gpu_is_refused() -> None:
    bad = evidence(GOOD._replace(nonce=bytes(32)), OTHER)
    shown = gpu_result.fields(appraise([evidence(), bad]))
    assert (shown["accepted"], shown["exit_code"]) == (False, 5)
    listed = shown["gpus"]
    assert isinstance(listed, list)
    for gpu in listed:
        assert "claims" not in gpu
        assert "unverified" in gpu


# --- anything ---


@settings(deadline=None, max_examples=120)
@given(st.binary(max_size=300), st.binary(max_size=300), st.lists(st.binary(max_size=60), max_size=2))
def test_any_bytes_are_refused(certificate: bytes, report: bytes, ocsp: list[bytes]) -> None:
    for item in (
        GpuEvidence("HOPPER", certificate, report, NONCE),
        evidence()._replace(certificate=certificate),
        evidence()._replace(evidence=report),
    ):
        result = appraise([item], ocsp=ocsp)
        with pytest.raises(TinbootError):
            result.accept()
        json.dumps(gpu_result.fields(result))


def test_values_of_no_rim_at_all() -> None:
    values = ReferenceValues(CREATED, ())
    assert failed(appraise([evidence()], values=values)) == [(0, "driver-version"), (0, "vbios-version")]
