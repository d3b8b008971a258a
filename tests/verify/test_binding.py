"""A report and its endorsement: each check refuses what is its own, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import stub_report
from fake_amd import KEY, NOW, Subject, endorsement, failures, report, revocations
from hypothesis import given, settings
from hypothesis import strategies as st
from stub_report import ORDER, Contents, patched, sign

from tinboot.formats import snpreport
from tinboot.formats.errors import Malformed, Mismatch, Refused, TinbootError, Unavailable
from tinboot.formats.snpreport import SIGNED, SIZE, Cpuid
from tinboot.formats.snptcb import GENOA, LINES, MILAN, TURIN, Line
from tinboot.verify.binding import CHECKS
from tinboot.verify.chain import Kind
from tinboot.verify.checks import Unchecked, ask, require
from tinboot.verify.crl import Revocations

GOOD = sign(Contents().pack(), KEY)
VLEK = Contents(key_info=stub_report.VLEK)


def subject(raw: bytes = GOOD, line: Line = GENOA, kind: Kind = "VCEK", **rest: Any) -> Subject:
    return Subject(snpreport.parse(raw), endorsement(line, kind), **rest)


def of(contents: Contents, line: Line = GENOA, kind: Kind = "VCEK") -> Subject:
    return Subject(report(contents), endorsement(line, kind))


@pytest.mark.parametrize("version", snpreport.VERSIONS)
@pytest.mark.parametrize("kind", ["VCEK", "VLEK"])
@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_every_line_kind_and_version_holds(line: Line, kind: Kind, version: int) -> None:
    key_info = stub_report.VCEK if kind == "VCEK" else stub_report.VLEK
    verdicts = ask(CHECKS, of(Contents(line, version, key_info=key_info), line, kind))
    require(verdicts)
    unchecked = [verdict.id for verdict in verdicts if isinstance(verdict.outcome, Unchecked)]
    assert unchecked == ["revocation", *(["chip-id"] if kind == "VLEK" else [])]


@pytest.mark.parametrize(
    "cpu", [Cpuid(0x19, 0x1F, 0), Cpuid(0x19, 0xA0, 2), Cpuid(0x19, 0xAF, 9)], ids=lambda cpu: hex(cpu.model)
)
def test_bergamo_and_siena_are_of_genoas_line(cpu: Cpuid) -> None:
    require(ask(CHECKS, of(Contents(cpuid=cpu))))


def test_of_version_2_the_issuer_says_whether_it_is_milan_or_genoa() -> None:
    for line in (MILAN, GENOA):
        require(ask(CHECKS, of(Contents(line, 2), line)))


Case = tuple[str, str, Any, type[TinbootError], str]


def cases() -> Iterator[Case]:
    padding = "signature-padding"
    for at in (SIGNED + 144, SIZE - 1):
        raw = patched(GOOD, at, b"\1")
        yield (
            padding,
            f"byte {at:#x}",
            lambda raw=raw: subject(raw),
            Malformed,
            f"offset {at:#x}: 0x01 in the",
        )

    other = sign(Contents(guest_svn=1).pack(), KEY)[SIGNED:]
    yield (
        "report-signature",
        "another report's",
        lambda: subject(GOOD[:SIGNED] + other),
        Mismatch,
        "not signed",
    )

    leaf, day = endorsement().chain[0], timedelta(days=1)
    for what, now in (
        ("before the VCEK", leaf.not_before - timedelta(seconds=1)),
        ("after the VCEK", leaf.not_after + timedelta(seconds=1)),
        ("after the ASK", endorsement().chain[1].not_after + day),
        ("before the ARK", endorsement().chain[2].not_before - day),
    ):
        yield "dates", what, lambda now=now: subject(now=now), Mismatch, "is valid from 202"

    ask_serial = endorsement().chain[1].serial
    wrong_root = "not of 'ARK-Genoa', the root"
    lists: tuple[tuple[str, Revocations | TinbootError, type[TinbootError], str], ...] = (
        (
            "the ASK is revoked",
            revocations(3, ask_serial),
            Mismatch,
            "AMD has revoked 'SEV-Genoa', serial num",
        ),
        ("a list of another line", revocations(line=MILAN), Unavailable, wrong_root),
        ("no list", Unavailable("no list was given"), Unavailable, "no list was given"),
    )
    for what, found, error, message in lists:
        yield "revocation", what, lambda r=found: subject(revocations=r), error, message

    newer = stub_report.TCBS[GENOA]._replace(ucode=0x55)
    older = stub_report.TCBS[GENOA]._replace(bl=9)
    for tcb in (newer, older):
        contents = Contents(reported_tcb=tcb)
        yield "reported-tcb", str(tcb), lambda c=contents: of(c), Mismatch, f"states the TCB {tcb}, the cert"

    for at in (0, 8, 63):
        contents = Contents(chip_id=patched(stub_report.CHIP_ID, at, b"\xee"))
        yield "chip-id", f"byte {at}", lambda c=contents: of(c), Mismatch, "the report is of chip"

    for what, contents, kind, message in (
        ("VLEK for a VCEK", VLEK, "VCEK", "signed by a VLEK, the certificate is a VCEK"),
        ("VCEK for a VLEK", Contents(), "VLEK", "signed by a VCEK, the certificate is a VLEK"),
        ("none", Contents(key_info=7 << 2), "VCEK", "signed by nothing"),
        ("reserved", Contents(key_info=2 << 2), "VCEK", "signed by key 2"),
    ):
        yield "signing-key", what, lambda c=contents, k=kind: of(c, GENOA, k), Mismatch, message

    for what, contents, error, message in (
        (
            "CPU of Milan",
            Contents(cpuid=stub_report.CPUS[MILAN]),
            Mismatch,
            "the report is of Milan (family 0x19",
        ),
        ("CPU of Turin", Contents(cpuid=stub_report.CPUS[TURIN]), Mismatch, "the report is of Turin"),
        ("CPU of Venice", Contents(cpuid=Cpuid(0x1A, 0x50, 0)), Refused, "of the Venice line"),
        ("CPU of Rome", Contents(cpuid=Cpuid(0x17, 0x31, 0)), Refused, "of no known product line"),
        ("CPU of none", Contents(cpuid=Cpuid(0, 0, 0)), Refused, "of no known product line"),
    ):
        yield "product", what, lambda c=contents: of(c), error, message

    for name in ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"):
        raw_tcb: Any = bytes.fromhex("0a00000100001b54")
        contents = Contents()._replace(**{name: raw_tcb})
        message = f"byte 3 of {name} is 0x01, which Genoa reserves"
        yield "tcb-layout", name, lambda c=contents: of(c), Malformed, message
    contents = Contents(TURIN, launch_tcb=bytes.fromhex("0101010401000048"))
    yield "tcb-layout", "Turin's", lambda: of(contents, TURIN), Malformed, "which Turin reserves"
    long = Contents(TURIN, chip_id=stub_report.CHIP_ID)
    yield (
        "tcb-layout",
        "Turin's chip id",
        lambda: of(long, TURIN),
        Malformed,
        "more than the 8 bytes of Turin",
    )

    masked = Contents(key_info=stub_report.MASK_CHIP_KEY)
    yield "chip-id-masked", "key", lambda: of(masked), Refused, "MASK_CHIP_KEY is set"
    masked_vlek = VLEK._replace(key_info=stub_report.VLEK | stub_report.MASK_CHIP_KEY)
    yield "chip-id-masked", "VLEK", lambda: of(masked_vlek, GENOA, "VLEK"), Refused, "MASK_CHIP_KEY is set"
    hidden = Contents(chip_id=bytes(64))
    yield "chip-id-masked", "id", lambda: of(hidden), Refused, "chip's id masked"


@pytest.mark.parametrize(
    ("check", "make", "error", "message"),
    [pytest.param(c, make, e, m, id=f"{c}: {what}") for c, what, make, e, m in cases()],
)
def test_each_check_alone_refuses(check: str, make: Any, error: type[TinbootError], message: str) -> None:
    refused = failures(ask(CHECKS, make()))
    assert list(refused) == [check]
    assert message in refused[check].message
    assert type(refused[check]) is error


R, S = stub_report.signature(GOOD)


@pytest.mark.parametrize(
    ("r", "s"),
    [
        pytest.param(0, S, id="r is 0"),
        pytest.param(R, 0, id="s is 0"),
        pytest.param(ORDER, S, id="r is the order"),
        pytest.param(R, ORDER, id="s is the order"),
        pytest.param(R + ORDER, S, id="r and the order"),
        pytest.param(R, S + ORDER, id="s and the order"),
        pytest.param(R | 1 << 384, S, id="padding of r"),
        pytest.param(R, S | 1 << 575, id="padding of s"),
    ],
)
def test_numbers_that_are_none_of_the_curve(r: int, s: int) -> None:
    refused = failures(ask(CHECKS, subject(sign(GOOD[:SIGNED], KEY, r=r, s=s))))
    assert set(refused) == {"signature-padding", "report-signature"}


def test_a_mirrored_signature_holds_so_reports_are_told_apart_by_what_is_signed() -> None:
    mirrored = subject(sign(GOOD[:SIGNED], KEY, r=R, s=ORDER - S))
    require(ask(CHECKS, mirrored))
    assert mirrored.report.raw != GOOD
    assert mirrored.report.signed == subject().report.signed


def test_a_short_chip_id_in_version_2_is_of_turin() -> None:
    short = Contents(GENOA, 2, chip_id=stub_report.chip_id(TURIN))
    assert "one of Turin" in failures(ask(CHECKS, of(short)))["product"].message
    long = Contents(TURIN, 2, chip_id=stub_report.CHIP_ID)
    assert "one of Milan or Genoa" in failures(ask(CHECKS, of(long, TURIN)))["product"].message


def test_a_vlek_report_without_a_chip_id_is_no_masked_one() -> None:
    require(ask(CHECKS, of(VLEK._replace(chip_id=bytes(64)), GENOA, "VLEK")))


@pytest.mark.parametrize("days", [-2, 31])
def test_a_list_that_is_not_in_force_says_nothing(days: int) -> None:
    found = failures(ask(CHECKS, subject(now=NOW + timedelta(days=days), revocations=revocations())))
    assert isinstance(found["revocation"], Unavailable)
    assert (
        "the revocation list holds from 2026-05-31 12:00 to 2026-07-01 12:00" in found["revocation"].message
    )


def test_a_list_out_of_date_still_revokes() -> None:
    """What it names was revoked when it was signed; that it is old makes no "cannot tell" of a "no"."""
    serial = endorsement().chain[1].serial
    late = subject(now=NOW + timedelta(days=4000), revocations=revocations(serial))
    assert isinstance(failures(ask(CHECKS, late))["revocation"], Mismatch)


def test_revoked_are_intermediates_alone() -> None:
    chain = endorsement().chain
    require(ask(CHECKS, subject(revocations=revocations(0, chain[2].serial, chain[1].serial + 1))))


def test_the_first_failure_is_raised_with_its_name() -> None:
    broken = patched(patched(GOOD, SIZE - 1, b"\1"), 0x50, b"\xff")
    with pytest.raises(Malformed, match=r"^signature-padding: offset 0x49f"):
        require(ask(CHECKS, subject(broken)))


@settings(deadline=None, max_examples=60)
@given(st.integers(4 * 8, SIZE * 8 - 1))
def test_any_flipped_bit_is_refused(bit: int) -> None:
    raw = bytearray(GOOD)
    raw[bit // 8] ^= 1 << bit % 8
    assert failures(ask(CHECKS, subject(bytes(raw))))


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(snpreport.VERSIONS), st.binary(min_size=SIZE - 4, max_size=SIZE - 4))
def test_any_other_bytes_are_refused(version: int, rest: bytes) -> None:
    refused = failures(ask(CHECKS, subject(version.to_bytes(4, "little") + rest)))
    assert "report-signature" in refused
