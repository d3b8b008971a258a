"""What a report states: each check refuses what is its own, and no other check then fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from fake_amd import endorsement, failures, report
from stub_report import TCBS, Contents, patched

from tinboot.formats import snpreport
from tinboot.formats.errors import Malformed, Mismatch, Refused, TinbootError, Unavailable
from tinboot.formats.snpreport import Cpuid, FirmwareVersion, Report
from tinboot.formats.snptcb import GENOA, LINES, MILAN, TURIN, Line
from tinboot.verify import advisories, platform, policy
from tinboot.verify.checks import Unchecked, ask
from tinboot.verify.platform import Subject
from tinboot.verify.policy import Distrust, Policy

POLICY = policy.shipped("baseline").allowing("Milan")


def subject(
    contents: Contents | None = None, demanded: Policy = POLICY, raw: Callable[[bytes], bytes] = bytes
) -> Subject:
    contents = contents or Contents()
    changed: Report = snpreport.parse(raw(report(contents).raw))
    data = advisories.shipped()
    return Subject(changed, contents.line, demanded, data, TCBS[contents.line], "provider")


@pytest.mark.parametrize("version", snpreport.VERSIONS)
@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_good_reports_pass(line: Line, version: int) -> None:
    assert failures(ask(platform.CHECKS, subject(Contents(line, version)))) == {}


@dataclass
class Case:
    """One thing that is wrong, and the one check that says so."""

    check: str
    kind: type[TinbootError]
    message: str
    contents: Contents = field(default_factory=Contents)
    demanded: Policy = POLICY
    raw: Callable[[bytes], bytes] = bytes


def rule(name: str, value: Any) -> Policy:
    return POLICY._replace(guest_policy={**POLICY.guest_policy, name: value})


def platform_rule(name: str, value: Any) -> Policy:
    return POLICY._replace(platform_info={**POLICY.platform_info, name: value})


def _one_at(at: int, data: bytes) -> bytes:
    return patched(data, at, b"\1")


def bits(*positions: int) -> int:
    return sum(1 << position for position in positions)


OLD, NEW = TCBS[GENOA]._replace(snp=0x16), TCBS[GENOA]._replace(tee=1)
SMT_OFF = 0x24  # PLATFORM_INFO: ECC, alias check

CASES = [
    Case("version", Refused, "version is 3", demanded=POLICY._replace(versions=(5,))),
    Case("signature-algorithm", Malformed, "algorithm 2", Contents(signature_algorithm=2)),
    *(
        Case("reserved-zero", Malformed, f"offset {at:#x}", raw=partial(_one_at, at))
        for at in (0x4C, 0x4F, 0x18B, 0x19F, 0x1EB, 0x1EF, 0x1F8, 0x29F)
    ),
    Case("reserved-zero", Malformed, "POLICY is", Contents(policy=bits(16, 17, 26))),
    Case("reserved-zero", Malformed, "bit 17 must be one", Contents(policy=bits(16))),
    Case("reserved-zero", Malformed, "PLATFORM_INFO is", Contents(platform_info=0x125)),
    Case("reserved-zero", Malformed, "KEY_INFO is", Contents(key_info=1 << 5)),
    Case("cpu", Refused, "no known product line", Contents(cpuid=Cpuid(0x19, 0x20, 0))),
    Case("cpu", Refused, "Venice", Contents(cpuid=Cpuid(0x1A, 0x50, 0))),
    Case("debug", Refused, "debug", Contents(policy=bits(16, 17, 19))),
    Case("migrate-ma", Refused, "migrate_ma", Contents(policy=bits(16, 17, 18))),
    Case("smt", Refused, "is set", demanded=rule("smt", "refuse")),
    Case("single-socket", Refused, "is not set", demanded=rule("single_socket", "require")),
    Case("abi", Refused, "ABI 0.0", demanded=POLICY._replace(abi=(1, 51))),
    Case("cxl", Refused, "is set", Contents(policy=bits(16, 17, 21)), rule("cxl", "refuse")),
    Case("aes-256-xts", Refused, "is not set", demanded=rule("aes_256_xts", "require")),
    Case("rapl-disabled", Refused, "is not set", demanded=rule("rapl_disabled", "require")),
    Case("ciphertext-hiding", Refused, "is not set", demanded=rule("ciphertext_hiding", "require")),
    Case("page-swap", Refused, "is not set", demanded=rule("page_swap_disabled", "require")),
    Case("policy-kept", Mismatch, "demands smt=0", Contents(policy=bits(17))),
    Case("policy-kept", Mismatch, "demands rapl_disabled=1", Contents(policy=bits(16, 17, 23))),
    Case("policy-kept", Mismatch, "demands ciphertext_hiding=1", Contents(policy=bits(16, 17, 24))),
    Case("platform-info", Refused, "alias_check", Contents(platform_info=0x05)),
    *(
        Case("platform-info", Refused, name, demanded=platform_rule(name, "require"))
        for name in ("tsme", "rapl_disabled", "ciphertext_hiding", "tio")
    ),
    *(
        Case("platform-info", Refused, name, demanded=platform_rule(name, "refuse"))
        for name in ("smt", "ecc", "alias_check")
    ),
    Case("reported-floor", Refused, "snp=22 < 23", Contents(reported_tcb=OLD)),
    Case("reported-floor", Refused, "bl=6 < 7", Contents(reported_tcb=TCBS[GENOA]._replace(bl=6))),
    Case("microcode-floor", Refused, "83", Contents(reported_tcb=TCBS[GENOA]._replace(ucode=83))),
    Case(
        "microcode-floor",
        Unavailable,
        "no microcode floor is known",
        Contents(cpuid=Cpuid(0x19, 0x12, 0)),
        POLICY._replace(unknown_microcode="refuse", launch_floors=Unchecked("not asked")),
    ),
    Case("launch-microcode", Refused, "at launch is", Contents(launch_tcb=TCBS[GENOA]._replace(ucode=83))),
    Case(
        "launch-microcode",
        Unavailable,
        "no microcode floor is known",
        Contents(cpuid=Cpuid(0x19, 0x12, 0)),
        POLICY._replace(unknown_microcode="refuse", floors=Unchecked("not asked")),
    ),
    Case(
        "key-allowed",
        Refused,
        "SIGNING_KEY is VLEK, expected VCEK",
        Contents(key_info=1 << 2),
        POLICY._replace(signing_keys=("VCEK",)),
    ),
    Case("key-allowed", Refused, "SIGNING_KEY is key 7", Contents(key_info=7 << 2)),
    Case("launch-floor", Refused, "at launch is below", Contents(launch_tcb=OLD)),
    *(
        Case("tcb-order", Refused, "is newer", contents)
        for contents in (Contents(reported_tcb=NEW), Contents(committed_tcb=NEW), Contents(launch_tcb=NEW))
    ),
    Case("tcb-order", Refused, "committed firmware", Contents(committed_version=FirmwareVersion(1, 58, 2))),
    Case(
        "tcb-order",
        Refused,
        "provisional",
        Contents(committed_tcb=OLD),
        POLICY._replace(provisional_firmware="refuse"),
    ),
    Case(
        "tcb-order",
        Refused,
        "1.55.10",
        Contents(committed_version=FirmwareVersion(1, 55, 10)),
        POLICY._replace(provisional_firmware="refuse"),
    ),
    Case("firmware", Refused, "1.55.37", Contents(current_version=FirmwareVersion(1, 55, 37),
                                                 committed_version=FirmwareVersion(1, 55, 37))),
    Case("firmware", Refused, "names no firmware", demanded=POLICY._replace(firmware={})),
    Case("guest-svn", Refused, "demands 1", demanded=POLICY._replace(guest_svn=1)),
    Case("family-id", Refused, "FAMILY_ID", demanded=POLICY._replace(family_id=(b"f" * 16,))),
    Case("image-id", Refused, "IMAGE_ID", demanded=POLICY._replace(image_id=(b"i" * 16,))),
    Case("vmpl", Refused, "VMPL is 1", Contents(vmpl=1)),
    Case("report-data", Refused, "REPORT_DATA", demanded=POLICY.pinned(report_data=b"d" * 64)),
    Case("measurement", Refused, "MEASUREMENT", demanded=POLICY.pinned(measurement=b"m" * 48)),
    Case("measurement", Refused, "none at all", demanded=POLICY._replace(measurement=())),
    Case("host-data", Refused, "HOST_DATA", demanded=POLICY.pinned(host_data=b"h" * 32)),
    Case("id-key", Refused, "ID_KEY_DIGEST", demanded=POLICY._replace(id_key_digest=(b"k" * 48,))),
    Case("author-key", Refused, "AUTHOR", demanded=POLICY._replace(author_key_digest=(b"k" * 48,))),
    Case("report-id", Refused, "REPORT_ID", demanded=POLICY._replace(report_id=(b"r" * 32,))),
    Case("report-id-ma", Refused, "REPORT_ID_MA", Contents(report_id_ma=b"r" * 32)),
    Case(
        "launch-mitigations", Refused, "demands 0x2", Contents(version=5),
        POLICY._replace(launch_mitigations=2),
    ),
    Case(
        "current-mitigations", Refused, "demands 0x4", Contents(version=5, current_mitigations=3),
        POLICY._replace(current_mitigations=4),
    ),
    Case("launch-mitigations", Refused, "states no", demanded=POLICY._replace(launch_mitigations=1)),
    Case("trusted", Refused, "not allowed", demanded=POLICY._replace(products=("Turin",))),
    Case("trusted", Refused, "no TCB helps", Contents(MILAN), policy.shipped("baseline")),
    Case(
        "trusted", Refused, "product Genoa",
        demanded=POLICY._replace(distrust=Distrust(("Genoa",), (), ())),
    ),
    Case(
        "trusted", Refused, "the chip",
        demanded=POLICY._replace(distrust=Distrust((), (bytes(range(1, 65)),), ())),
    ),
    Case(
        "trusted", Refused, "the chip", Contents(TURIN),
        POLICY._replace(distrust=Distrust((), (bytes(range(1, 9)),), ())),
    ),
    Case(
        "trusted", Refused, "the provider",
        demanded=POLICY._replace(distrust=Distrust((), (), ("provider",))),
    ),
    Case(
        "trusted",
        Unavailable,
        "states no chip",
        Contents(chip_id=bytes(64)),
        POLICY._replace(distrust=Distrust((), (b"\1",), ())),
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.check}-{case.message}")
def test_one_thing_is_wrong(case: Case) -> None:
    found = failures(ask(platform.CHECKS, subject(case.contents, case.demanded, case.raw)))
    assert list(found) == [case.check], found
    assert isinstance(found[case.check], case.kind)
    assert case.message in found[case.check].message


def test_every_check_has_a_case() -> None:
    cannot = {"length"}  # the reader refuses any other before there is a report
    assert {case.check for case in CASES} == {check.id for check in platform.CHECKS} - cannot


def test_a_report_that_is_not_the_readers_has_another_length() -> None:
    short = subject()._replace(report=report()._replace(raw=bytes(1183)))
    assert isinstance(failures(ask(platform.CHECKS, short))["length"], Malformed)


def test_the_certificate_is_not_newer_than_the_platform() -> None:
    newer = subject()._replace(tcb=TCBS[GENOA]._replace(ucode=255))
    assert list(failures(ask(platform.CHECKS, newer))) == ["tcb-order"]


def test_genuine_oddities_are_taken() -> None:
    """SVN rollback by a provider, firmware that is not committed yet, ABI of Azure's, bit 6 of Turin's."""
    newer = TCBS[GENOA]._replace(snp=0x20, ucode=0x60)
    odd = Contents(current_tcb=newer, policy=0x3001F, platform_info=0x67)
    assert failures(ask(platform.CHECKS, subject(odd))) == {}


def test_bergamo_has_a_microcode_floor_of_its_own() -> None:
    bergamo = Cpuid(0x19, 0xA0, 2)
    tcb = TCBS[GENOA]._replace(ucode=25)
    names = ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb")
    every: dict[str, Any] = dict.fromkeys(names, tcb)
    good = subject(Contents(cpuid=bergamo, **every))._replace(tcb=tcb)
    assert failures(ask(platform.CHECKS, good)) == {}
    low = subject(Contents(cpuid=bergamo, reported_tcb=tcb._replace(ucode=24)))
    assert list(failures(ask(platform.CHECKS, low))) == ["microcode-floor"]


def test_what_the_policy_leaves_open_says_why() -> None:
    everything: dict[str, Any] = {
        name: Unchecked("because")
        for name in (
            *("versions", "products", "signing_keys", "abi"),
            *("floors", "launch_floors", "firmware", "guest_svn", "vmpl"),
            *("family_id", "image_id", "report_data", "measurement", "host_data", "id_key_digest"),
            *("author_key_digest", "report_id", "report_id_ma", "launch_mitigations", "current_mitigations"),
        )
    }
    verdicts = ask(platform.CHECKS, subject(demanded=POLICY._replace(**everything)))
    open_ones = [v.id for v in verdicts if v.outcome == Unchecked("because")]
    assert len(open_ones) == len(everything) + 2  # two checks share each of the floors
    assert failures(verdicts) == {}


def test_an_endorsement_of_the_stub_is_of_the_same_line() -> None:
    assert endorsement(GENOA).tcb == TCBS[GENOA]
