"""A report and its chain: each check refuses what is its own, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import stub_gpu_report
import stub_nvidia
import stub_ocsp
from fake_gpus import GOOD, answers, appraise, endorsement, evidence, failed, packed, reference
from fake_nvidia import NONCE, NOW
from hypothesis import given, settings
from hypothesis import strategies as st
from stub_gpu_report import CHIP_INFO, Contents, Field
from stub_nvidia import Arch

from tinboot.formats import gpureport
from tinboot.formats.errors import Malformed, Mismatch, Refused, TinbootError, Unavailable
from tinboot.formats.gpuevidence import GpuEvidence
from tinboot.verify.checks import Unchecked
from tinboot.verify.gpu_appraisal import Appraisals
from tinboot.verify.gpu_binding import CHECKS, Absent
from tinboot.verify.gpu_ocsp import Revoked, Unknown
from tinboot.verify.gpu_policy import RELYING_PARTY

CHAIN, OTHER = stub_nvidia.chain(), stub_nvidia.chain(number=1)
ORDER = stub_nvidia._ORDER
THREE = answers()
ARCHITECTURES: tuple[Arch, ...] = ("HOPPER", "BLACKWELL")


def signed(contents: Contents = GOOD, **numbers: int) -> GpuEvidence:
    report = stub_gpu_report.sign(contents.pack(), CHAIN.key, **numbers)
    return GpuEvidence(contents.arch, CHAIN.pem(), report, contents.nonce)


def ocsp(*found: stub_ocsp.Answer | bytes, demanded: bool = True, **rest: Any) -> Appraisals:
    given = [answer if isinstance(answer, bytes) else answer.pack() for answer in found]
    return appraise([evidence()], ocsp=given, revocation="ocsp" if demanded else RELYING_PARTY, **rest)


def one(make: Callable[[], GpuEvidence]) -> Appraisals:
    return appraise([make()])


def numbered(numbers: dict[str, int]) -> Appraisals:
    return appraise([signed(GOOD, **numbers)])


def unchecked(result: Appraisals) -> dict[str, str]:
    return {v.id: v.outcome.reason for v in result.gpus[0].verdicts if isinstance(v.outcome, Unchecked)}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_and_encoding_holds(arch: Arch, version: int) -> None:
    contents = Contents(arch, nonce=NONCE, version=version)
    given = packed(answers(stub_nvidia.chain(arch)))
    result = appraise(
        [evidence(contents)], values=reference(contents), architecture=arch, ocsp=given, revocation="ocsp"
    )
    result.accept()
    assert unchecked(result) == {}


Case = tuple[str, str, Callable[[], Appraisals], type[TinbootError], str]


def broken() -> Iterator[Case]:
    check = "report-signature"
    for what, make in (
        ("another key", lambda: evidence(chain=CHAIN._replace(key=OTHER.key))),
        ("another GPU's chain", lambda: evidence()._replace(certificate=OTHER.pem())),
        ("a flipped bit", lambda: flipped(3000)),
        ("a flipped bit of the request's", signed_request),
    ):
        yield check, what, partial(one, make), Mismatch, "not signed by the key"
    for what, numbers in (
        ("r of 0", {"r": 0}),
        ("s of 0", {"s": 0}),
        ("r too large", {"r": ORDER}),
        ("s", {"s": ORDER}),
    ):
        yield check, what, partial(numbered, numbers), Malformed, "between 1 and the order"

    expired = CHAIN.replace(2, not_after=NOW - timedelta(days=1))
    yield (
        "dates",
        "expired",
        lambda: appraise([evidence(chain=expired)]),
        Mismatch,
        "Provisioner ICA 1' is valid",
    )
    early = CHAIN.replace(0, not_before=NOW + timedelta(seconds=1))
    yield "dates", "not yet", lambda: appraise([evidence(chain=early)]), Mismatch, "FMC LF' is valid from"
    then = datetime(1970, 1, 2, tzinfo=UTC)
    yield "dates", "1970", lambda: appraise([evidence()], now=then), Mismatch, "and now is 1970-01-02"

    yield from broken_revocations()

    contents = Contents("BLACKWELL", nonce=NONCE)
    blackwell = partial(appraise, [evidence(contents)], values=reference(contents))
    yield "architecture", "another one", blackwell, Refused, "a GPU of BLACKWELL, expected HOPPER"
    chip = Field(CHIP_INFO, b"GB100\0")
    other = partial(appraise, [evidence(GOOD._replace(extra=(chip,)))])
    yield "architecture", "another chip", other, Mismatch, "the report is of GB100, the chain of GH100"

    differs = partial(appraise, [evidence(GOOD._replace(fwid=bytes(48)))])
    yield "fwid", "differs", differs, Mismatch, "the report is of firmware 0000"
    absent = partial(appraise, [evidence(GOOD._replace(fwid=b""))])
    yield (
        "fwid",
        "not in the report",
        absent,
        Mismatch,
        "states no firmware identity, which driver '550.90.07'",
    )
    plain = CHAIN.put(0, CHAIN.forms[0].without_extension(stub_nvidia.HOPPER_FWID))
    yield (
        "fwid",
        "not in the certificate",
        lambda: appraise([evidence(chain=plain)]),
        Mismatch,
        "and the key's",
    )


def flipped(at: int) -> GpuEvidence:
    """In the responder's nonce, which nothing but the signature covers."""
    good = evidence()
    raw = bytearray(good.evidence)
    raw[gpureport._RESPONDER_AT] ^= 1
    assert at < len(raw)
    return good._replace(evidence=bytes(raw))


def signed_request() -> GpuEvidence:
    """Signed over the response alone."""
    body = GOOD.pack()
    report = stub_gpu_report.sign(body[gpureport._RESPONSE_AT :], CHAIN.key)
    return GpuEvidence("HOPPER", CHAIN.pem(), body + report[-96:], NONCE)


def broken_revocations() -> Iterator[Case]:
    check = "revocation"
    yield (
        check,
        "absent",
        ocsp,
        Absent,
        "no OCSP answer about 'GH100 A01 GSP BROM' and 'NVIDIA GH100 P",
    )
    for at in range(3):
        rest = [answer for number, answer in enumerate(THREE) if number != at]
        yield check, f"without {at}", partial(ocsp, *rest), Absent, "and the policy demands it"
        for demanded in (True, False):
            bad = [*rest, THREE[at]._replace(status="revoked", reason=1)]
            make = partial(ocsp, *bad, demanded=demanded)
            yield check, f"{at} revoked, {demanded}", make, Revoked, "NVIDIA has revoked"
    hold = (*THREE[:2], THREE[2]._replace(status="revoked", reason=6))
    yield check, "on hold", lambda: ocsp(*hold), Revoked, "certificate_hold"
    unknown = (*THREE[:2], THREE[2]._replace(status="unknown"))
    yield check, "unknown", lambda: ocsp(*unknown), Unknown, "does not know"
    yield (
        check,
        "leaf revoked",
        lambda: ocsp(*THREE, leaf(status="revoked")),
        Revoked,
        "revoked 'GH100 A01 GSP FMC",
    )
    yield check, "twice", lambda: ocsp(*THREE, THREE[1]), Refused, "2 OCSP answers about 'NVIDIA GH100 Prov"
    stale = partial(ocsp, *THREE, now=NOW + timedelta(days=2))
    yield check, "stale", stale, Unavailable, "and now is 2026-06-03"
    ahead = partial(ocsp, *THREE, now=NOW.replace(year=2036))
    yield check, "a clock ten years ahead", ahead, Unavailable, "and now is 2036-06-01"
    yield check, "none", lambda: ocsp(*THREE, b"x"), Malformed, "offset 0x0"
    later = partial(ocsp, THREE[0]._replace(failure=3), *THREE[1:])
    yield check, "tryLater", later, Unavailable, "tryLater"


def leaf(**fields: Any) -> stub_ocsp.Answer:
    return stub_ocsp.answers(CHAIN, NOW)[0]._replace(**fields)


CASES = tuple(broken())


@pytest.mark.parametrize(
    ("check", "what", "make", "error", "message"), CASES, ids=[f"{c[0]}: {c[1]}" for c in CASES]
)
def test_each_check_refuses_its_own(
    check: str, what: str, make: Callable[[], Appraisals], error: type[TinbootError], message: str
) -> None:
    result = make()
    assert failed(result) == [(0, check)]
    decisive = result.decisive
    assert decisive is not None
    assert type(decisive.outcome) is error
    with pytest.raises(error, match=f"{check}: .*{message}"):
        result.accept()


def test_every_check_has_a_case() -> None:
    assert {case[0] for case in CASES} == {check.id for check in CHECKS}


def test_evidence_that_says_another_architecture_than_its_chain() -> None:
    """It also asks for the RIMs of the other."""
    result = appraise([evidence()._replace(arch="BLACKWELL")], architecture="BLACKWELL")
    assert (0, "architecture") in failed(result)
    with pytest.raises(Mismatch, match="evidence of BLACKWELL, the chain is of GH100, HOPPER"):
        raise_it(result, "architecture")


def raise_it(result: Appraisals, check: str) -> None:
    (error,) = [v.outcome for v in result.gpus[0].verdicts if v.id == check]
    assert isinstance(error, TinbootError)
    raise error


def test_the_leaf_need_not_be_asked_and_may_be() -> None:
    ocsp(*THREE).accept()
    ocsp(*THREE, leaf()).accept()


def test_without_answers_the_relying_party_is_left_to_ask() -> None:
    result = ocsp(demanded=False)
    result.accept()
    assert unchecked(result) == {"revocation": "the policy leaves revocation to the relying party"}
    some = ocsp(*THREE[:2], demanded=False)
    some.accept()
    assert unchecked(some) == unchecked(result)
    all_of_them = ocsp(*THREE, demanded=False)
    all_of_them.accept()
    assert unchecked(all_of_them) == {}


@pytest.mark.parametrize("driver", ["535.86.09", "545.00", "549.99"])
def test_drivers_before_550_state_no_firmware_identity(driver: str) -> None:
    contents = GOOD._replace(driver=driver, fwid=b"")
    result = appraise([evidence(contents)], values=reference(contents))
    result.accept()
    assert unchecked(result)["fwid"].startswith(f"driver {driver} has its GPU state no firmware identity")


@pytest.mark.parametrize("driver", ["550.00", "r549.1", "1000.1"])
def test_no_other_driver_may_leave_it_out(driver: str) -> None:
    contents = GOOD._replace(driver=driver, fwid=b"")
    assert failed(appraise([evidence(contents)], values=reference(contents))) == [(0, "fwid")]


@settings(deadline=None, max_examples=150)
@given(st.integers(0, len(GOOD.pack()) + 95), st.integers(1, 255))
def test_no_bit_of_a_report_can_be_changed(at: int, change: int) -> None:
    good = evidence()
    raw = bytearray(good.evidence)
    raw[at % len(raw)] ^= change
    result = appraise([good._replace(evidence=bytes(raw))])
    with pytest.raises(TinbootError):
        result.accept()
    names = {name for _, name in failed(result)}
    assert names & {"report-signature", "report-format"}


def test_an_endorsement_holds_for_reports_of_its_key_alone() -> None:
    assert endorsement().key != endorsement(number=1).key
