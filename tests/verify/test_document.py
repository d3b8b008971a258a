"""Documents as a whole: what is accepted, which check refuses what, who makes a result."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import fake_gpus
import pytest
from fake_host import (
    KEYS,
    MEASUREMENT,
    NOT_ASKED,
    demands,
    endorsements,
    failed,
    gpu_demands,
    gpus,
    seen,
    v2,
    v3,
)
from fake_nvidia import NONCE, NOW
from hypothesis import given, settings
from hypothesis import strategies as st
from stub_gpu_report import Contents as GpuContents

from tinboot.formats import attestationdocument, cryptomaterial, deviceevidence, reportdata, snpreport
from tinboot.formats.attestationdocument import DocumentV2, DocumentV3
from tinboot.formats.errors import Malformed, Mismatch, Refused, TinbootError, Unavailable
from tinboot.verify import document, roots
from tinboot.verify.checks import Check, Unchecked
from tinboot.verify.document import Appraisal, AttestedHost, Demands, Seen, appraise
from tinboot.verify.document_binding import CHECKS_V2, CHECKS_V3
from tinboot.verify.gpu_appraisal import Collateral

OTHER = b"\xcc" * 32
Document = DocumentV2 | DocumentV3


def of(shown: Document, looked: Seen | None = None, held: Demands | None = None) -> Appraisal:
    return appraise(shown, looked or seen(), held or demands(), NOW)


# --- what is accepted ---


def test_a_v3_document_without_gpus() -> None:
    host = of(v3()).accept()
    assert (host.tls, host.hpke, host.measurement) == (KEYS.tls, KEYS.hpke, MEASUREMENT)
    assert host.keys == KEYS
    assert host.nonce == NONCE
    assert host.gpus is None
    assert host.report.report.report_data == host.appraisal.document.report_data  # type: ignore[union-attr]  # v3


@pytest.mark.parametrize("count", [1, 2, 8])
def test_a_v3_document_with_gpus(count: int) -> None:
    host = of(v3(gpus=gpus(count)), held=demands(gpus=gpu_demands(count))).accept()
    assert host.gpus is not None
    assert len(host.gpus.gpus) == count
    assert {gpu.report.nonce for gpu in host.gpus.gpus} == {NONCE}


def test_a_v2_document_says_that_it_may_be_old() -> None:
    host = of(v2(), held=demands(nonce=NOT_ASKED)).accept()
    assert (host.tls, host.hpke, host.measurement) == (KEYS.tls, KEYS.hpke, MEASUREMENT)
    assert host.nonce is None
    told = dict(host.unchecked)
    assert told["nonce"] == f"a v2 document has no nonce, and may be an old one: {NOT_ASKED.reason}"
    assert told["gpu-evidence"] == "a v2 document says nothing of GPUs, not even that there are none"


def test_what_nobody_asks_is_said() -> None:
    looked = Seen(NOT_ASKED, NOT_ASKED)
    host = of(v3(gpus=gpus(1)), looked, demands(nonce=NOT_ASKED, gpus=NOT_ASKED)).accept()
    told = dict(host.unchecked)
    for check in document.MAY_BE_UNCHECKED:
        assert told[check] == NOT_ASKED.reason
    assert "report-data" not in told  # the CPU's policy leaves it open, and the document's own check asks
    assert host.tls == KEYS.tls  # whom to talk to is known all the same


def test_an_endorsement_is_used_again() -> None:
    held = demands()
    first = of(v3(), held=held).accept()
    held = held._replace(known=first.report.endorsement)
    assert of(v3(), held=held).accept().report.endorsement is first.report.endorsement


def test_gpus_of_a_document_without_a_sent_nonce_answer_its_own() -> None:
    held = demands(nonce=NOT_ASKED, gpus=gpu_demands(1))
    of(v3(gpus=gpus(1)), held=held).accept()
    assert failed(of(v3(gpus=gpus(1, OTHER)), held=held)) == {"gpu:nonce"}


# --- what is refused, each by its own check ---


@dataclass
class Case:
    """One thing that is wrong, and the checks that say so; `decides`: the one that is raised."""

    document: Document
    decides: str
    kind: type[TinbootError]
    message: str
    also: frozenset[str] = frozenset()
    seen: Seen = field(default_factory=seen)
    demands: Demands = field(default_factory=demands)


def bound(shown: DocumentV3, **fields: Any) -> DocumentV3:
    """`shown` with other sections, hashes and REPORT_DATA stated for them, and the report as it was."""
    changed = shown._replace(**fields)
    return attestationdocument.compose_v3(
        changed.nonce, changed.report, changed.crypto_material, changed.device_evidence
    )


WITH_GPUS = v3(gpus=gpus(2))
WANTED = demands(gpus=gpu_demands(2))
FORGED = cryptomaterial.render(KEYS._replace(hpke=OTHER))

CASES: dict[str, Case] = {
    "another measurement": Case(
        v3(measurement=bytes(48)), "cpu:measurement", Refused, "measurement: MEASUREMENT is 0000"
    ),
    "another measurement, v2": Case(
        v2(measurement=bytes(48)),
        "cpu:measurement",
        Refused,
        "measurement: MEASUREMENT is 0000",
        demands=demands(nonce=NOT_ASKED),
    ),
    "a relay with a TLS key of its own": Case(
        v3(), "tls-key", Mismatch, "tls-key: the connection's TLS key has hash cccc", seen=seen(tls=OTHER)
    ),
    "a relay with a TLS key of its own, v2": Case(
        v2(),
        "tls-key",
        Mismatch,
        "tls-key: the connection's TLS key has hash cccc",
        seen=seen(tls=OTHER),
        demands=demands(nonce=NOT_ASKED),
    ),
    "evidence of another guest": Case(
        v2(KEYS._replace(tls=OTHER)),
        "tls-key",
        Mismatch,
        "the guest's cccc",
        demands=demands(nonce=NOT_ASKED),
    ),
    "another HPKE key": Case(
        v3(), "hpke-key", Mismatch, "hpke-key: the host gives out the HPKE key cccc", seen=seen(hpke=OTHER)
    ),
    "another HPKE key, v2": Case(
        v2(),
        "hpke-key",
        Mismatch,
        "hpke-key: the host gives out the HPKE key cccc",
        seen=seen(hpke=OTHER),
        demands=demands(nonce=NOT_ASKED),
    ),
    "an old document": Case(v3(nonce=OTHER), "nonce", Refused, "nonce: the document answers the nonce cccc"),
    "an old document, its nonce exchanged": Case(
        v3(nonce=OTHER)._replace(nonce=NONCE), "report-data", Mismatch, "report-data: REPORT_DATA is "
    ),
    "a nonce that is echoed and not bound": Case(
        bound(v3(nonce=OTHER), nonce=NONCE),
        "report-data",
        Mismatch,
        "report-data: REPORT_DATA is ",
        frozenset({"stated-report-data"}),
    ),
    "a nonce without an answer": Case(
        v2(), "nonce", Refused, "nonce: a nonce was sent, .* and the document is of v2"
    ),
    "keys exchanged": Case(
        bound(v3(), crypto_material=FORGED),
        "report-data",
        Mismatch,
        "report-data: REPORT_DATA is ",
        frozenset({"stated-report-data"}),
        seen=seen(hpke=OTHER),
    ),
    "keys exchanged, hashes as they were": Case(
        v3()._replace(crypto_material=FORGED),
        "report-data",
        Mismatch,
        "report-data: REPORT_DATA is ",
        frozenset({"endorsed-hashes"}),
        seen=seen(hpke=OTHER),
    ),
    "a hash that is not the section's": Case(
        v3()._replace(crypto_material_hash=OTHER), "endorsed-hashes", Mismatch, "the document states cccc"
    ),
    "a hash that is not the devices'": Case(
        v3()._replace(device_evidence_hash=OTHER),
        "endorsed-hashes",
        Mismatch,
        "endorsed-hashes: device_evidence has the hash",
    ),
    "another REPORT_DATA stated": Case(
        v3()._replace(report_data=bytes(64)),
        "stated-report-data",
        Mismatch,
        "stated-report-data: the document states the REPORT_DATA 0000",
    ),
    "something behind the hash in REPORT_DATA": Case(
        (good := v3())._replace(
            report=v3(report_data=(tail := good.report_data[:32] + bytes(31) + b"\1")).report,
            report_data=tail,
        ),
        "report-data",
        Mismatch,
        "report-data: REPORT_DATA is ",
    ),
    "a report without keys": Case(
        v2(report_data=bytes(64)),
        "report-data",
        Mismatch,
        "report-data: REPORT_DATA is 0000",
        frozenset({"tls-key", "hpke-key"}),
        demands=demands(nonce=NOT_ASKED),
    ),
    "the report of a v3 document in one of v2": Case(
        v2(report_data=v3().report_data),
        "report-data",
        Mismatch,
        "expected a TLS key's hash and an HPKE key",
        frozenset({"tls-key", "hpke-key"}),
        demands=demands(nonce=NOT_ASKED),
    ),
    "the report of a v2 document in one of v3": Case(
        v3(report_data=reportdata.v2(KEYS.tls, KEYS.hpke)),
        "report-data",
        Mismatch,
        "report-data: REPORT_DATA is aaaa",
        frozenset({"stated-report-data"}),
    ),
    "GPU evidence missing": Case(
        v3(),
        "gpu-evidence",
        Refused,
        "gpu-evidence: there is no evidence of any GPU, and it is demanded",
        demands=WANTED,
    ),
    "GPU evidence cut out": Case(
        bound(WITH_GPUS, device_evidence=deviceevidence.render([])),
        "report-data",
        Mismatch,
        "report-data: REPORT_DATA is ",
        frozenset({"stated-report-data", "gpu-evidence"}),
        demands=WANTED,
    ),
    "evidence of fewer GPUs": Case(
        v3(gpus=gpus(1)), "gpu:count", Refused, "count: evidence of 1 GPUs, expected 2", demands=WANTED
    ),
    "evidence of more GPUs": Case(
        v3(gpus=gpus(3)), "gpu:count", Refused, "count: evidence of 3 GPUs, expected 2", demands=WANTED
    ),
    "one GPU twice": Case(
        v3(gpus=gpus(1) * 2), "gpu:distinct", Refused, "distinct: GPU 0 and GPU 1", demands=WANTED
    ),
    "GPUs asked with another nonce": Case(
        v3(gpus=gpus(2, OTHER)), "gpu:nonce", Refused, "GPU 0: nonce: ", demands=WANTED
    ),
    "one GPU asked with another nonce": Case(
        v3(gpus=[gpus(1)[0], gpus(2, OTHER)[1]]), "gpu:nonce", Refused, "GPU 1: nonce: ", demands=WANTED
    ),
    "a GPU's other nonce, stated as this one": Case(
        v3(gpus=[gpus(1)[0], gpus(2, OTHER)[1]._replace(nonce=NONCE)]),
        "gpu:nonce",
        Mismatch,
        "GPU 1: nonce: the report's nonce is cccc",
        demands=WANTED,
    ),
    "an altered measurement of a GPU": Case(
        v3(gpus=[fake_gpus.evidence(GpuContents(nonce=NONCE, altered={7: bytes(48)})), gpus(2)[1]]),
        "gpu:measurements",
        Refused,
        "GPU 0: measurements: ",
        frozenset({"gpu:reference-values"}),
        demands=WANTED,
    ),
    "GPUs where none is expected": Case(
        WITH_GPUS, "gpu-evidence", Refused, "gpu-evidence: evidence of 2 GPUs, expected none"
    ),
    "no way to tell of GPUs": Case(
        v2(),
        "gpu-evidence",
        Unavailable,
        "gpu-evidence: a v2 document has no evidence of GPUs",
        demands=demands(nonce=NOT_ASKED, gpus=gpu_demands(2)),
    ),
    "a stub's root that nobody named": Case(
        v3(),
        "cpu:root-pinned",
        Mismatch,
        "root-pinned: ",
        demands=demands(endorsements=endorsements(pinned=roots.AMD)),
    ),
    "a GPU's stub root that nobody named": Case(
        WITH_GPUS,
        "gpu:root-pinned",
        Mismatch,
        "GPU 0: root-pinned: ",
        demands=demands(gpus=gpu_demands(2, collateral=Collateral(fake_gpus.reference()))),
    ),
    "no endorsement": Case(
        v3(),
        "endorsements",
        Unavailable,
        "endorsements: no certificate",
        demands=demands(endorsements=Unavailable("no certificate")),
    ),
    "another chip's certificate": Case(
        v3(chip_id=b"\7" * 64), "cpu:chip-id", Mismatch, "chip-id: the report is of chip 0707"
    ),
    "a report of another version": Case(
        v3()._replace(report=bytes(snpreport.SIZE)), "report-format", Malformed, "report-format: offset 0x0"
    ),
    "a report of another version, v2": Case(
        attestationdocument.compose_v2(bytes(snpreport.SIZE)),
        "report-format",
        Malformed,
        "report-format: offset 0x0",
    ),
    "keys that cannot be read": Case(
        bound(v3(), crypto_material=b"{}"),
        "crypto-material",
        Malformed,
        "crypto-material: .*format is missing",
    ),
    "devices that cannot be read": Case(
        bound(v3(), device_evidence=b"[]"), "device-evidence", Malformed, "device-evidence: .* is an array"
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_wrong_is_refused_by_its_own_check(name: str) -> None:
    case = CASES[name]
    result = of(case.document, case.seen, case.demands)
    assert case.decides in failed(result)
    assert failed(result) - case.also <= {case.decides}
    with pytest.raises(case.kind, match=case.message):
        result.accept()
    assert type(result.failure) is case.kind
    shown = json.loads(json.dumps(result.fields()))
    assert (shown["accepted"], shown["exit_code"]) == (False, case.kind.exit_code)
    assert "claims" not in shown
    assert "unverified" in shown


def names(checks: Iterable[Check[Any]]) -> list[str]:
    return [check.id for check in checks]


def test_every_own_check_has_a_case() -> None:
    own = {*names(document.FORMATS_V3), *names(CHECKS_V2), *names(CHECKS_V3)}
    assert own <= {case.decides for case in CASES.values()}


@pytest.mark.parametrize("days", [-3000, 30_000], ids=["future", "expired"])
def test_certificates_out_of_their_time(days: int) -> None:
    result = appraise(v3(), seen(), demands(), NOW + timedelta(days=days))
    assert "cpu:dates" in failed(result)
    with pytest.raises(Mismatch, match="dates: "):
        result.accept()


def test_the_report_decides_before_the_document() -> None:
    held = demands(endorsements=endorsements(pinned=roots.AMD))
    with pytest.raises(Mismatch, match=r"^root-pinned"):
        of(v3(), seen(tls=OTHER), held).accept()


def test_the_most_fundamental_failure_decides() -> None:
    good = v3(nonce=OTHER)  # refused
    for shown, looked, error in (
        (good, seen(), Refused),
        (good, seen(tls=OTHER), Mismatch),
        (bound(good, device_evidence=b"{}"), seen(tls=OTHER), Malformed),
    ):
        assert type(of(shown, looked).failure) is error
    cannot = demands(endorsements=Unavailable("no certificate"))
    assert type(of(good, held=cannot).failure) is Refused  # a "no" says more than a "cannot tell"


# --- results ---


def test_every_check_is_in_every_appraisal_once() -> None:
    for shown in (v3(), bound(v3(), crypto_material=b"{}"), v3()._replace(report=bytes(snpreport.SIZE))):
        expected = names(document.FORMATS_V3) + names(CHECKS_V3)
        assert [verdict.id for verdict in of(shown).verdicts] == expected
    for old in (v2(), attestationdocument.compose_v2(bytes(snpreport.SIZE))):
        expected = names(document.FORMATS_V2) + names(CHECKS_V2)
        assert [verdict.id for verdict in of(old).verdicts] == expected


@pytest.mark.parametrize("at", range(len(CHECKS_V3)))
def test_a_check_that_is_not_asked_is_no_acceptance(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    check = CHECKS_V3[at]
    monkeypatch.setattr(check, "run", lambda _: Unchecked("forgotten"))
    result = of(v3())
    if check.id in document.MAY_BE_UNCHECKED:
        assert "forgotten" in dict(result.accept().unchecked).values()
        return
    with pytest.raises(AssertionError, match=f"{check.id} was not asked"):
        result.accept()


def test_nothing_else_makes_a_result() -> None:
    result = of(v3())
    host = result.accept()
    with pytest.raises(TypeError, match="made by appraising"):
        AttestedHost(object(), result, host.report, KEYS, None)
    with pytest.raises(TypeError, match="made by appraising"):
        Appraisal(object(), v3(), None, (), None, None, (demands(), NOW))  # type: ignore[arg-type]  # never read


def test_json_says_everything() -> None:
    held = demands(gpus=gpu_demands(2))
    shown = json.loads(json.dumps(of(WITH_GPUS, held=held).fields()))
    assert (shown["accepted"], shown["exit_code"], shown["at"]) == (True, 0, NOW.isoformat())
    assert shown["document"] == "v3"
    assert shown["claims"] == {
        "tls_key_sha256": "aa" * 32,
        "hpke_key": "bb" * 32,
        "keys": {"release": "3003020105"},
        "measurement": MEASUREMENT.hex(),
        "nonce": NONCE.hex(),
    }
    assert {check["verdict"] for check in shown["checks"]} == {"pass"}
    assert shown["cpu"]["claims"]["measurement"] == MEASUREMENT.hex()
    assert len(shown["gpus"]["gpus"]) == 2
    assert shown["gpus"]["policy"]["nonce"] == NONCE.hex()


def test_json_of_less() -> None:
    shown = json.loads(json.dumps(of(v2(), held=demands(nonce=NOT_ASKED, gpus=NOT_ASKED)).fields()))
    assert shown["document"] == "v2"
    assert shown["claims"]["nonce"] is None
    assert shown["gpus"] == {"unchecked": NOT_ASKED.reason}
    unread = json.loads(json.dumps(of(v3()._replace(report=b"", crypto_material=b"")).fields()))
    assert unread["cpu"] is None
    assert unread["unverified"]["tls_key_sha256"] is None


# --- anything ---


def parts(shown: DocumentV3) -> dict[str, bytes]:
    return {name: value for name, value in shown._asdict().items() if isinstance(value, bytes)}


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_flipped_bit_anywhere_is_refused(data: st.DataObject) -> None:
    """In the nonce, REPORT_DATA, the report, either section or either hash."""
    name = data.draw(st.sampled_from(sorted(parts(WITH_GPUS))))
    value = bytearray(parts(WITH_GPUS)[name])
    bit = data.draw(st.integers(0, 8 * len(value) - 1))
    value[bit // 8] ^= 1 << bit % 8
    changes: dict[str, Any] = {name: bytes(value)}
    result = of(WITH_GPUS._replace(**changes), held=WANTED)
    with pytest.raises((Malformed, Mismatch)):
        result.accept()


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=200), st.binary(max_size=200), st.binary(max_size=1200))
def test_any_bytes_are_refused(keys: bytes, devices: bytes, report: bytes) -> None:
    for shown in (
        bound(v3(), crypto_material=keys),
        bound(v3(), device_evidence=devices),
        v3()._replace(report=report),
    ):
        result = of(shown)
        with pytest.raises(TinbootError):
            result.accept()
        json.dumps(result.fields())


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 8 * snpreport.SIGNED - 1))
def test_a_flipped_bit_of_a_v2_report_is_refused(bit: int) -> None:
    raw = bytearray(v2().report)
    raw[bit // 8] ^= 1 << bit % 8
    result = of(attestationdocument.compose_v2(bytes(raw)), held=demands(nonce=NOT_ASKED))
    with pytest.raises((Malformed, Mismatch)):
        result.accept()
