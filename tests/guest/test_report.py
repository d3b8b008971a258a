"""The boot's report: where it is sought, what of it the guest judges, and that no device can hold it up."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import stub_chain
from stub_report import Contents, sign

from tinboot.formats import bootreport, halt
from tinboot.formats.halt import Halt, Refusal
from tinboot.guest import configfs_tsm, report, sev_guest
from tinboot.guest.evidence import (
    SECONDS,
    BadAnswer,
    Busy,
    DeviceError,
    Evidence,
    EvidenceError,
    NoAnswer,
    NoDevice,
    Patience,
)

SEALED = b'{"hooks": []}\n'
DATA = bootreport.report_data(SEALED)
KEY = stub_chain.chip_key()
_CONTENTS = Contents(report_data=DATA)


def evidence(contents: Contents = _CONTENTS) -> Evidence:
    return Evidence("sev-guest", sign(contents.pack(), KEY), b"")


def test_judge_accepts_a_good_one() -> None:
    report.judge(evidence(), DATA)


@pytest.mark.parametrize(
    ("found", "reason", "word"),
    [
        (evidence(_CONTENTS._replace(report_data=bytes(64))), "report-mismatch", "0" * 128),
        (evidence(_CONTENTS._replace(vmpl=1)), "report-policy", "VMPL 1"),
        (evidence(_CONTENTS._replace(vmpl=3)), "report-policy", "VMPL 3"),
        (evidence(_CONTENTS._replace(policy=0xB0000)), "report-policy", "DEBUG"),
        (evidence(_CONTENTS._replace(policy=0x70000)), "report-policy", "MIGRATE_MA"),
        (evidence(_CONTENTS._replace(version=4)), "report-malformed", "version 4"),
        (evidence()._replace(report=bytes(1183)), "report-malformed", "1183"),
        (evidence()._replace(certificates=b"\x01" * 24), "report-malformed", "certificate table"),
    ],
)
def test_judge_refuses(found: Evidence, reason: str, word: str) -> None:
    with pytest.raises(Refusal) as refused:
        report.judge(found, DATA)
    assert refused.value.reason == reason
    assert word in refused.value.detail


def answering(answer: Evidence | EvidenceError) -> Callable[[bytes, Patience], Evidence]:
    def collect(report_data: bytes, patience: Patience) -> Evidence:
        assert report_data == DATA
        if isinstance(answer, EvidenceError):
            raise answer
        return answer

    return collect


GIVEN = Evidence("x", b"r", b"c")


def test_configfs_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configfs_tsm, "collect", answering(GIVEN))
    monkeypatch.setattr(sev_guest, "collect", answering(DeviceError("never asked")))
    assert report.collect(DATA) == GIVEN


def test_the_device_is_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configfs_tsm, "collect", answering(NoDevice("no provider")))
    monkeypatch.setattr(sev_guest, "collect", answering(GIVEN))
    assert report.collect(DATA) == GIVEN


def test_neither_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configfs_tsm, "collect", answering(NoDevice("no provider")))
    monkeypatch.setattr(sev_guest, "collect", answering(NoDevice("no node")))
    with pytest.raises(NoDevice, match="no provider; no node"):
        report.collect(DATA)


@pytest.mark.parametrize("kind", [Busy, DeviceError, BadAnswer])
def test_a_refusal_is_no_reason_to_try_another(
    monkeypatch: pytest.MonkeyPatch, kind: type[EvidenceError]
) -> None:
    monkeypatch.setattr(configfs_tsm, "collect", answering(kind("why")))
    monkeypatch.setattr(sev_guest, "collect", answering(GIVEN))
    with pytest.raises(kind, match="why"):
        report.collect(DATA)


def test_within_hands_over_what_the_child_got() -> None:
    given = Evidence("x", os.urandom(1184), os.urandom(16384))
    assert report.within(60, lambda: given) == given


@pytest.mark.parametrize("kind", [NoDevice, Busy, DeviceError, BadAnswer])
def test_within_raises_what_the_child_raised(kind: type[EvidenceError]) -> None:
    def work() -> Evidence:
        raise kind("why")

    with pytest.raises(kind, match="why"):
        report.within(60, work)


def test_within_names_another_failure() -> None:
    def work() -> Evidence:
        raise ZeroDivisionError("planted")

    with pytest.raises(RuntimeError, match=r"ZeroDivisionError\('planted'\)"):
        report.within(60, work)


def test_within_sees_that_the_child_died() -> None:
    def work() -> Evidence:
        os.kill(os.getpid(), signal.SIGKILL)
        return GIVEN

    with pytest.raises(RuntimeError, match="without a word"):
        report.within(60, work)


def test_within_gives_a_hanging_device_up() -> None:
    def work() -> Evidence:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        time.sleep(600)
        return GIVEN

    with pytest.raises(NoAnswer, match=r"no answer within 0\.2 s"):
        report.within(0.2, work)


class Ended(Exception):
    """`console.halt` was called."""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the console shows; a halt is an `Ended`."""
    said: list[str] = []

    def end(ended: Halt) -> None:
        said.append(halt.line(ended))
        raise Ended

    (tmp_path / "boot.json").write_bytes(SEALED)
    monkeypatch.setattr(report, "SEALED", tmp_path / "boot.json")
    monkeypatch.setattr(report, "KEPT", tmp_path)
    monkeypatch.setattr(report, "say", said.append)
    monkeypatch.setattr(report, "halt", end)
    return said


def test_a_good_boot(machine: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = evidence()
    monkeypatch.setattr(report, "collect", lambda data: good if data == DATA else None)
    report.main()
    (line,) = machine
    assert bootreport.parse(line) == bootreport.BootReport(SEALED, *good)
    assert (tmp_path / "report").read_bytes() == good.report
    assert (tmp_path / "certificates").read_bytes() == b""
    assert report.kept(tmp_path) == good


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NoDevice("why"), "report-unavailable"),
        (Busy("why"), "report-busy"),
        (NoAnswer("why"), "report-timeout"),
        (DeviceError("why"), "report-refused"),
        (BadAnswer("why"), "report-malformed"),
        (Refusal("report-policy", "why"), "report-policy"),
        (ZeroDivisionError("why"), "report-failed"),
        (SystemExit("why"), "report-failed"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_everything_else_ends_the_machine(
    machine: list[str], monkeypatch: pytest.MonkeyPatch, error: BaseException, reason: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(report, "within", fail)
    with pytest.raises(Ended):
        report.main()
    (line,) = machine
    assert halt.parse(line)[:2] == ("report", reason)
    assert "why" in line


def test_no_sealed_file(machine: list[str], tmp_path: Path) -> None:
    (tmp_path / "boot.json").unlink()
    with pytest.raises(Ended):
        report.main()
    assert halt.parse(machine[0]).reason == "report-failed"


def test_docs_state_the_deadlines() -> None:
    folder = Path(__file__).parents[2]
    page = " ".join((folder / "docs/boot.md").read_text("utf-8").split())
    unit = folder / "mkosi.images/root/mkosi.extra/usr/lib/systemd/system/tinboot-report.service"
    assert f"is asked again for {SECONDS:g} seconds" in page
    assert f"is given up after {report.DEADLINE:g} seconds" in page
    assert "has not finished after a minute" in page
    assert "TimeoutStartSec=60\n" in unit.read_text("ascii")
    assert "FailureAction=poweroff-immediate\n" in unit.read_text("ascii")
