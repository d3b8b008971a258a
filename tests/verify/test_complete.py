"""Complete attestations: accepted as a whole, and each part exchanged for another guest's is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import fake_gpus
import fake_host
import pytest
from fake_host import (
    CONFIG,
    KEYS,
    MEASUREMENT,
    NOT_ASKED,
    demands,
    endorsements,
    gpu_demands,
    gpus,
    report,
    seen,
    v2,
    v3,
)
from fake_nvidia import NONCE, NOW

from tinboot.formats import bootreport, snpreport
from tinboot.formats.completeattestation import CompleteAttestation
from tinboot.formats.errors import Malformed, Mismatch, Refused, TinbootError, Unavailable
from tinboot.formats.gpuevidence import GpuEvidence
from tinboot.verify import complete, roots
from tinboot.verify.checks import Unchecked
from tinboot.verify.complete import Appraisal, AttestedBoot, appraise
from tinboot.verify.complete_binding import CHECKS
from tinboot.verify.document import Demands, Seen

OTHER = b"\xcc" * 32
GATE = b"\x0f" * 32  # the gate's own nonce


def looked() -> Seen:
    return seen(tls=fake_host.tls())


def keys() -> Any:
    return KEYS._replace(tls=fake_host.tls())


def plain(boot_gpus: list[GpuEvidence] | None = None) -> CompleteAttestation:
    return fake_host.complete(boot_gpus or ())


def challenged(boot_gpus: int = 0, now_gpus: int = 0) -> CompleteAttestation:
    return fake_host.complete(gpus(boot_gpus, GATE), challenged=v3(keys(), gpus=gpus(now_gpus)))


def of(shown: CompleteAttestation, held: Demands | None = None, at: Seen | None = None) -> Appraisal:
    return appraise(shown, at or looked(), held or demands(), NOW)


def failed(result: Appraisal) -> set[str]:
    found = {v.id for v in result.verdicts if isinstance(v.outcome, TinbootError)}
    for part in result.documents:
        found |= {f"{part.version}:{name}" for name in fake_host.failed(part)}
    if result.boot is not None:
        found |= {f"boot:{v.id}" for v in result.boot.verdicts if isinstance(v.outcome, TinbootError)}
    if result.gpus is not None:
        found |= {f"gpu:{name}" for _, name in fake_gpus.failed(result.gpus)}
    return found


UNASKED = demands(nonce=NOT_ASKED)


def test_without_a_nonce() -> None:
    boot = of(plain(), UNASKED).accept()
    assert (boot.host.tls, boot.host.hpke, boot.config) == (fake_host.tls(), KEYS.hpke, CONFIG)
    assert boot.host.nonce is None
    assert boot.boot.report.measurement == MEASUREMENT
    assert boot.sealed.cmdline == "readonly=on"
    assert boot.gpus is None


def test_with_a_nonce() -> None:
    boot = of(challenged()).accept()
    assert boot.host.nonce == NONCE
    assert boot.host.appraisal.version == "v3"


def test_gpus_of_the_boot_and_of_now() -> None:
    boot = of(challenged(2, 2), demands(gpus=gpu_demands(2))).accept()
    assert boot.gpus is not None
    assert boot.host.gpus is not None
    assert {gpu.report.nonce for gpu in boot.gpus.gpus} == {GATE}
    assert {gpu.report.nonce for gpu in boot.host.gpus.gpus} == {NONCE}


def test_gpus_of_the_boot_alone() -> None:
    boot = of(plain(gpus(2, GATE)), demands(nonce=NOT_ASKED, gpus=gpu_demands(2))).accept()
    assert boot.gpus is not None
    assert boot.host.gpus is None


@dataclass
class Case:
    """One thing that is wrong, and the checks that say so; `decides`: the one that is raised."""

    complete: CompleteAttestation
    decides: str
    kind: type[TinbootError]
    message: str
    also: frozenset[str] = frozenset()
    demands: Demands = field(default_factory=demands)
    seen: Seen = field(default_factory=looked)


def other_boot(**contents: Any) -> Callable[[CompleteAttestation], CompleteAttestation]:
    """A boot's report with other contents, that binds the same."""

    def change(shown: CompleteAttestation) -> CompleteAttestation:
        made = report(bootreport.report_data(shown.boot.sealed), **contents)
        return shown._replace(boot=shown.boot._replace(report=made))

    return change


def resealed(shown: CompleteAttestation, sealed: bytes) -> CompleteAttestation:
    """Another thing sealed, and a report that binds it."""
    made = report(bootreport.report_data(sealed))
    return shown._replace(boot=shown.boot._replace(sealed=sealed, report=made))


GOOD = challenged()
WITH_GPUS = challenged(2, 2)
WANTED = demands(gpus=gpu_demands(2))

CASES: dict[str, Case] = {
    "a boot's report that binds something else": Case(
        fake_host.complete(challenged=v3(keys()), boot=b"other"),
        "boot-report-data",
        Mismatch,
        "boot-report-data: REPORT_DATA of the boot's report is",
    ),
    "something else sealed": Case(
        GOOD._replace(boot=GOOD.boot._replace(sealed=fake_host.sealed(more=1))),
        "boot-report-data",
        Mismatch,
        "boot-report-data: ",
    ),
    "the boot of another guest": Case(
        other_boot(report_id=b"\7" * 32)(GOOD),
        "same-guest",
        Mismatch,
        "same-guest: one report has the report_id 0707",
    ),
    "the boot of another image": Case(
        other_boot(measurement=bytes(48))(GOOD),
        "same-guest",
        Mismatch,
        "same-guest: one report has the measurement 0000",
        frozenset({"boot:measurement"}),
    ),
    "the boot on another chip": Case(
        other_boot(chip_id=b"\7" * 64)(GOOD),
        "boot:chip-id",
        Mismatch,
        "chip-id: the report is of chip 0707",
        frozenset({"same-guest"}),
    ),
    "a boot's report with DEBUG": Case(other_boot(policy=0xB0000)(GOOD), "boot:debug", Refused, "debug: "),
    "the first document of another guest": Case(
        GOOD._replace(document=v2(keys(), report_id=b"\7" * 32)), "same-guest", Mismatch, "same-guest: "
    ),
    "documents of different HPKE keys": Case(
        fake_host.complete(challenged=v3(keys()._replace(hpke=OTHER))),
        "v3:hpke-key",
        Mismatch,
        "hpke-key: the host gives out the HPKE key bbbb",
        frozenset({"same-keys"}),
    ),
    "documents of different keys, nobody looked": Case(
        fake_host.complete(challenged=v3(keys()._replace(hpke=OTHER))),
        "same-keys",
        Mismatch,
        "same-keys: one document is of the hpke key cccc",
        seen=Seen(NOT_ASKED, NOT_ASKED),
    ),
    "a certificate of another key": Case(
        GOOD._replace(document=v2(KEYS), challenged=v3(KEYS)),
        "certificate-key",
        Mismatch,
        "certificate-key: the certificate's key has the hash",
        seen=seen(),
    ),
    "a certificate that is none": Case(
        GOOD._replace(certificate="x"), "certificate-key", Malformed, "certificate-key: 0 PEM blocks"
    ),
    "another HPKE key configuration": Case(
        GOOD._replace(hpke=OTHER), "published-hpke-key", Mismatch, "published-hpke-key: .* has cccc"
    ),
    "another config": Case(
        GOOD._replace(config=b"cpus: 3\n"), "config", Mismatch, "config: the config has the hash"
    ),
    "another config, sealed": Case(
        resealed(GOOD, fake_host.sealed(config_hash="00" * 32)), "config", Mismatch, "the boot sealed 0000"
    ),
    "GPU evidence of the boot missing": Case(
        WITH_GPUS._replace(gpus=()),
        "boot-gpus",
        Mismatch,
        "boot-gpus: evidence of 0 GPUs, the boot sealed that of 2",
        frozenset({"boot-gpus-expected"}),
        demands=WANTED,
    ),
    "GPU evidence of the boot exchanged": Case(
        WITH_GPUS._replace(gpus=tuple(gpus(2, OTHER))),
        "boot-gpus",
        Mismatch,
        "boot-gpus: the GPUs' evidence has the hash",
        demands=WANTED,
    ),
    "a boot with fewer GPUs": Case(
        challenged(1, 2), "gpu:count", Refused, "count: evidence of 1 GPUs, expected 2", demands=WANTED
    ),
    "a boot without GPUs": Case(
        challenged(0, 2), "boot-gpus-expected", Refused, "the boot had no GPU", demands=WANTED
    ),
    "a boot with GPUs where none is expected": Case(
        challenged(2, 0), "boot-gpus-expected", Refused, "the boot had 2 GPUs, expected none"
    ),
    "fewer GPUs now": Case(
        challenged(2, 1), "v3:gpu:count", Refused, "count: evidence of 1 GPUs", demands=WANTED
    ),
    "a boot's report that cannot be read": Case(
        GOOD._replace(boot=GOOD.boot._replace(report=bytes(snpreport.SIZE))),
        "boot-format",
        Malformed,
        "boot-format: offset 0x0",
    ),
    "sealed bytes that cannot be read": Case(
        resealed(GOOD, b"{}"), "boot-format", Malformed, "boot-format: sealed boot.cmdline is missing"
    ),
    "no document for the nonce": Case(plain(), "v2:nonce", Refused, "nonce: a nonce was sent"),
    "an old document": Case(
        fake_host.complete(challenged=v3(keys(), nonce=OTHER)),
        "v3:nonce",
        Refused,
        "nonce: the document answers",
    ),
    "a relay": Case(
        GOOD,
        "v2:tls-key",
        Mismatch,
        "tls-key: ",
        frozenset({"v3:tls-key"}),
        seen=seen(tls=OTHER),
    ),
    "no endorsement": Case(
        GOOD,
        "v2:endorsements",
        Unavailable,
        "endorsements: none",
        frozenset({"v3:endorsements"}),
        demands=demands(endorsements=Unavailable("none")),
    ),
    "a stub's root that nobody named": Case(
        GOOD,
        "v2:cpu:root-pinned",
        Mismatch,
        "root-pinned: ",
        frozenset({"v3:cpu:root-pinned", "boot:root-pinned"}),
        demands=demands(endorsements=endorsements(pinned=roots.AMD)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_wrong_is_refused_by_its_own_check(name: str) -> None:
    case = CASES[name]
    result = of(case.complete, case.demands, case.seen)
    assert case.decides in failed(result)
    assert failed(result) - case.also <= {case.decides}
    with pytest.raises(case.kind, match=case.message):
        result.accept()
    assert type(result.failure) is case.kind
    shown = json.loads(json.dumps(result.fields()))
    assert (shown["accepted"], shown["exit_code"]) == (False, case.kind.exit_code)
    assert "claims" not in shown


def test_every_own_check_has_a_case() -> None:
    own = {"boot-format", *(check.id for check in CHECKS)}
    assert own <= {case.decides for case in CASES.values()}


def test_every_check_is_in_every_appraisal_once() -> None:
    expected = ["boot-format", *(check.id for check in CHECKS)]
    for shown in (GOOD, plain(), CASES["sealed bytes that cannot be read"].complete):
        assert [verdict.id for verdict in of(shown).verdicts] == expected


@pytest.mark.parametrize("at", range(len(CHECKS)))
def test_a_check_that_is_not_asked_is_no_acceptance(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    check = CHECKS[at]
    monkeypatch.setattr(check, "run", lambda _: Unchecked("forgotten"))
    result = of(GOOD)
    if check.id in complete.MAY_BE_UNCHECKED:
        result.accept()
        return
    with pytest.raises(AssertionError, match=f"{check.id} was not asked"):
        result.accept()


def test_nothing_else_makes_a_result() -> None:
    result = of(GOOD)
    boot = result.accept()
    with pytest.raises(TypeError, match="made by appraising"):
        AttestedBoot(object(), result, boot.host, boot.boot, boot.sealed, None)
    with pytest.raises(TypeError, match="made by appraising"):
        Appraisal(object(), GOOD, (), None, (demands(), NOW))  # type: ignore[arg-type]  # never read


def test_json_says_everything() -> None:
    shown = json.loads(json.dumps(of(WITH_GPUS, WANTED).fields()))
    assert (shown["accepted"], shown["document"], shown["image_version"]) == (True, "complete", "1.2.0")
    assert [part["document"] for part in shown["documents"]] == ["v2", "v3"]
    assert shown["claims"]["cmdline"] == "readonly=on"
    assert shown["claims"]["gpus"] == 2
    assert shown["boot"]["claims"]["measurement"] == MEASUREMENT.hex()
    assert len(shown["boot_gpus"]["gpus"]) == 2
    assert {check["verdict"] for check in shown["checks"]} == {"pass"}
