"""The data file: what it may say, and where a platform stands with each advisory."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from typing import Any

import pytest
import vectors
from fake_amd import report
from hypothesis import given, settings
from hypothesis import strategies as st
from stub_report import TCBS, Contents

from tinboot.formats import snpreport
from tinboot.formats.errors import Malformed, TinbootError
from tinboot.formats.snpreport import Cpuid, FirmwareVersion
from tinboot.formats.snptcb import GENOA, LINES, MILAN, TURIN, Line
from tinboot.verify import advisories
from tinboot.verify.policy import PROFILES

SHIPPED = advisories.shipped()
BERGAMO = Cpuid(0x19, 0xA0, 2)


def standing(contents: Contents, advisory: str) -> tuple[str, str]:
    found = SHIPPED.standing(report(contents), contents.line)
    return next((f.standing, f.detail) for f in found if f.advisory.id == advisory)


def old(line: Line = GENOA, **parts: int) -> Contents:
    return Contents(line, reported_tcb=TCBS[line]._replace(**parts))


@pytest.mark.parametrize(
    ("contents", "advisory", "expected", "detail"),
    [
        (Contents(), "CVE-2024-21944", "fixed", "SNP firmware 1.58.1, alias_check"),
        (Contents(platform_info=5), "CVE-2024-21944", "not fixed", "PLATFORM_INFO lacks alias_check"),
        (
            Contents(current_version=FirmwareVersion(1, 55, 37)),
            "CVE-2024-21944",
            "not fixed",
            "SNP firmware 1.55.37, fixed in 1.55.38",
        ),
        (Contents(), "CVE-2025-48514", "fixed", "snp=27"),
        (old(snp=26), "CVE-2025-48514", "not fixed", "snp=26, fixed in 27"),
        (old(TURIN, snp=3), "CVE-2025-48514", "not fixed", "snp=3, fixed in 4"),
        (Contents(), "CVE-2024-56161", "fixed", "ucode=84"),
        (old(ucode=83), "CVE-2024-56161", "cannot tell", "ucode=83, known to be fixed in 84"),
        (Contents(cpuid=BERGAMO), "CVE-2024-56161", "cannot tell", "no number is known for this CPU"),
        (Contents(MILAN, 2), "CVE-2024-56161", "fixed", "ucode=219"),
        (Contents(), "CVE-2025-0033", "cannot tell", "AMD publishes no number"),
        (Contents(MILAN), "CVE-2023-20592", "cannot tell", "AMD publishes no number"),
        (Contents(MILAN), "arXiv:2605.12990", "not fixed", "no TCB helps"),
    ],
)
def test_standing(contents: Contents, advisory: str, expected: str, detail: str) -> None:
    found, why = standing(contents, advisory)
    assert found == expected
    assert detail in why


def test_only_what_concerns_the_line_is_listed() -> None:
    for line in LINES:
        found = SHIPPED.standing(report(Contents(line)), line)
        assert all(line.name in f.advisory.affected for f in found)
    assert "arXiv:2605.12990" not in {f.advisory.id for f in SHIPPED.standing(report(), GENOA)}


def test_the_genuine_genoa_report() -> None:
    found = snpreport.parse(vectors.read("snp/veraison/outblob.bin"))
    by_standing: dict[str, set[str]] = {}
    for finding in SHIPPED.standing(found, GENOA):
        by_standing.setdefault(finding.standing, set()).add(finding.advisory.name)
    assert by_standing == {
        "fixed": {"BadRAM", "EntrySign"},
        "not fixed": {"SNP firmware"},
        "cannot tell": {"RMPocalypse", "StackWarp", "MMIO routing"},
    }


def test_microcode_floors_are_of_a_cpu() -> None:
    for profile in PROFILES:
        assert SHIPPED.microcode(profile, GENOA, Cpuid(0x19, 0x11, 1)) == 0x54
        assert SHIPPED.microcode(profile, GENOA, BERGAMO) == 25
        assert SHIPPED.microcode(profile, GENOA, Cpuid(0x19, 0xA1, 0)) is None
        assert SHIPPED.microcode(profile, GENOA, None) == 0x54
        assert SHIPPED.microcode(profile, TURIN, None) is None


def fields() -> Any:
    return json.loads(TEXT)


TEXT = resources.files("tinboot.verify.data").joinpath("advisories.json").read_text()


def without(*path: Any) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for step in path[:-1]:
            data = data[step]
        del data[path[-1]]

    return change


def with_(value: Any, *path: Any) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for step in path[:-1]:
            data = data[step]
        data[path[-1]] = value

    return change


def again(*path: Any) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for step in path:
            data = data[step]
        data.append(data[0])

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("date"), "advisories.date is missing"),
        (with_(2, "schema"), "schema is 2"),
        (without("floors", "strict"), "lacks a profile or a product"),
        (with_([], "floors", "lax"), "lacks a profile or a product"),
        (without("floors", "baseline", 2), "lacks a profile or a product"),
        (again("floors", "baseline"), "Milan for the second time"),
        (again("floors", "baseline", 0, "microcode"), "a CPU for the second time"),
        (without("floors", "baseline", 0, "tcb", "snp"), "tcb.snp is missing"),
        (with_(1, "floors", "baseline", 0, "tcb", "fmc"), "unknown member 'fmc'"),
        (with_(256, "floors", "baseline", 0, "tcb", "snp"), "is 256, expected 0 to 255"),
        (with_("Rome", "floors", "baseline", 0, "product"), "the product line 'Rome'"),
        (with_("x", "advisories", 1, "fixed", 0, "firmware"), "expected a version like"),
        (with_("smt2", "advisories", 1, "fixed", 0, "platform"), "'smt2', which there is not"),
        (without("advisories", 2, "fixed", 0, "microcode"), "says nothing of what shows it fixed"),
        (with_(1, "advisories", 0, "note"), "unknown member 'note'"),
    ],
)
def test_refuses(change: Callable[[Any], None], message: str) -> None:
    data = fields()
    change(data)
    with pytest.raises(TinbootError) as refused:
        advisories.load(json.dumps(data).encode())
    assert message in refused.value.message


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        advisories.load(data)
