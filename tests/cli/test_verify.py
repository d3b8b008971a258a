"""`tinboot verify report` on genuine evidence: verdicts, exit codes, and every input that can be wrong."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import vectors
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinboot.cli import verify
from tinboot.formats import certtable
from tinboot.formats.errors import Malformed, Mismatch, Refused, TinbootError, Unavailable
from tinboot.verify import certificate, policy

#: When the provider's certificates among the vectors were valid, too.
AT = "2025-06-01T00:00:00Z"


def run(*arguments: str, stdin: bytes = b"") -> Result:
    done = CliRunner().invoke(verify.command, ["report", *arguments], input=stdin)
    if done.exception is not None and not isinstance(done.exception, SystemExit | TinbootError):
        raise done.exception
    return done


def code(done: Result) -> int:
    return done.exception.exit_code if isinstance(done.exception, TinbootError) else done.exit_code


def failed(done: Result) -> list[str]:
    shown: dict[str, Any] = json.loads(done.stdout)
    return [check["id"] for check in shown["checks"] if check["verdict"] == "fail"]


@pytest.fixture
def genoa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a genuine report of Genoa, its VCEK and the host's table."""
    table = vectors.read("snp/veraison/auxblob.bin")
    vcek = certtable.parse(table).vcek
    assert vcek is not None
    der = certificate.read(vcek)[0].der  # in this table it is PEM
    for name, data in (
        ("report", vectors.read("snp/veraison/outblob.bin")),
        ("certs", table),
        ("vcek.der", der),
        ("vcek.pem", pem(der)),
    ):
        (tmp_path / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pem(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    "given_as", [("--vek", "vcek.der"), ("--vek", "vcek.pem"), ("--certs", "certs")], ids=" ".join
)
def test_genuine_report_is_accepted(genoa: Path, given_as: tuple[str, ...]) -> None:
    done = run("report", *given_as)
    assert code(done) == 0, done.output
    assert done.stdout.splitlines()[-1].startswith("accepted by the policy 'baseline'")
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "\x1b" not in done.stdout


def test_standard_input(genoa: Path) -> None:
    assert code(run("-", "--certs", "certs", stdin=(genoa / "report").read_bytes())) == 0


def test_json_has_every_check_and_claim(genoa: Path) -> None:
    shown = json.loads(run("report", "--certs", "certs", "--at", AT, "--json").stdout)
    assert (shown["accepted"], shown["exit_code"]) == (True, 0)
    assert shown["at"] == "2025-06-01T00:00:00+00:00"
    assert {check["row"] for check in shown["checks"]} == {None, *range(1, 37)}
    assert shown["claims"]["product"] == "Genoa"
    assert shown["claims"]["measurement"] == (genoa / "report").read_bytes()[0x90:0xC0].hex()
    assert {finding["standing"] for finding in shown["advisories"]} <= {"fixed", "not fixed", "cannot tell"}


VECTORS: list[tuple[str, str, tuple[str, ...], int, str]] = [
    ("go-sev-guest/attestation.bin", "go-sev-guest/vcek.testcer", ("--allow-product", "Milan"), 5, "debug"),
    ("trustee/test-vlek-report.bin", "trustee/test-vlek.der", ("--allow-product", "Milan"), 5, "vmpl"),
    ("oak/milan_oc_release.report.bin", "oak/milan_oc_release.vcek.der", (), 5, "trusted"),
    ("oak/milan_oc_release.report.bin", "oak/milan_oc_release.vcek.der", ("--allow-product", "Milan"), 0, ""),
    ("oak/milan_rk_release.report.bin", "oak/milan_rk_release.vcek.der", ("--allow-product", "Milan"), 0, ""),
    ("oak/milan_oc_release.report.bin", "trustee/test-vcek-invalid-new.der", (), 4, "certificate-signatures"),
    ("oak/milan_oc_release.report.bin", "oak/milan_rk_release.vcek.der", (), 4, "report-signature"),
]


@pytest.mark.parametrize(("report", "vek", "more", "expected", "check"), VECTORS)
def test_vectors(
    tmp_path: Path, report: str, vek: str, more: tuple[str, ...], expected: int, check: str
) -> None:
    for name, vector in (("report", report), ("vek", vek)):
        (tmp_path / name).write_bytes(vectors.read(f"snp/{vector}"))
    words = (str(tmp_path / "report"), "--vek", str(tmp_path / "vek"), "--at", AT, "--json", *more)
    done = run(*words)
    assert code(done) == expected, done.output
    assert (check in failed(done)) is bool(check)


@pytest.mark.parametrize(
    ("more", "kind", "check"),
    [
        (("--measurement", "00" * 48), Refused, "measurement"),
        (("--report-data", "00" * 64), Refused, "report-data"),
        (("--host-data", "11" * 32), Refused, "host-data"),
        (("--at", "2019-01-01T00:00:00Z"), Mismatch, "dates"),
        (("--at", "2035-01-01T00:00:00+01:00"), Mismatch, "dates"),
        (("--profile", "strict"), Refused, "revocation"),
        (("--profile", "strict"), Refused, "reported-floor"),
    ],
)
def test_what_is_refused_and_by_which_check(
    genoa: Path, more: tuple[str, ...], kind: type[TinbootError], check: str
) -> None:
    done = run("report", "--certs", "certs", "--json", *more)
    assert isinstance(done.exception, kind)
    assert check in failed(done)


def test_what_failed_stands_first_with_its_remedy(genoa: Path) -> None:
    done = run("report", "--certs", "certs", "--profile", "strict")
    first = done.stdout.splitlines()[0]
    assert first.startswith("FAIL ")
    assert "--crl FILE" in done.stdout
    assert "accepted" not in done.stdout


def test_a_policy_of_ones_own(genoa: Path) -> None:
    printed = run("--print-policy", "baseline")
    assert printed.exit_code == 0
    (genoa / "policy.json").write_text(printed.stdout)
    words = ("report", "--certs", "certs", "--policy", "policy.json", "--json")
    assert json.loads(run(*words).stdout)["accepted"]
    own = json.loads(printed.stdout)
    own["distrust"]["products"] = ["Genoa"]
    (genoa / "policy.json").write_text(json.dumps(own))
    assert failed(run(*words)) == ["trusted"]
    del own["distrust"]
    (genoa / "policy.json").write_text(json.dumps(own))
    done = run(*words)
    assert isinstance(done.exception, Malformed)
    assert "policy.json.distrust is missing" in done.exception.message


@pytest.mark.parametrize("name", policy.PROFILES)
def test_printed_policies_are_the_shipped_ones(name: str) -> None:
    assert run("--print-policy", name).stdout.encode() == policy.text(name)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("none", "--certs", "certs"), Unavailable, "none: No such file"),
        (("report",), Unavailable, "no certificate of the report's key"),
        (("report", "--vek", "none"), Unavailable, "none: No such file"),
        (("report", "--vek", "report"), Malformed, "report: "),
        (("report", "--certs", "report"), Malformed, "report: "),
        (("report", "--vek", "vcek.der", "--chain", "report"), Malformed, "report: "),
        (("certs", "--vek", "vcek.der"), Malformed, "bytes, expected 1184"),
        (("report", "--certs", "certs", "--policy", "report"), Malformed, "report"),
    ],
)
def test_wrong_files(genoa: Path, arguments: tuple[str, ...], kind: type[TinbootError], message: str) -> None:
    done = run(*arguments)
    assert isinstance(done.exception, kind)
    assert message in done.exception.message
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--at", "yesterday"), "is no time like"),
        (("--at", "2026-11-25T12:00:00"), "has no time zone"),
        (("--measurement", "00"), "48 bytes in hex"),
        (("--policy", "x", "--profile", "strict"), "not both"),
        (("--allow-product", "Rome"), "'Rome' is not one of"),
    ],
)
def test_usage(genoa: Path, more: tuple[str, ...], message: str) -> None:
    done = run("report", "--certs", "certs", *more)
    assert done.exit_code == 2
    assert message in done.stderr


CHANGES: dict[str, Callable[[bytes, int], bytes]] = {
    "cut": lambda data, at: data[:at],
    "extended": lambda data, at: data + bytes(at % 32 + 1),
    "one bit": lambda data, at: data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :],
}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 1183), how=st.sampled_from(sorted(CHANGES)))
def test_changed_reports_are_refused_without_a_traceback(genoa: Path, at: int, how: str) -> None:
    changed = CHANGES[how]((genoa / "report").read_bytes(), at)
    done = run("-", "--certs", "certs", stdin=changed)
    assert code(done) in (3, 4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 4095), value=st.integers(0, 255))
def test_changed_tables_are_refused_or_hints_all_the_same(genoa: Path, at: int, value: int) -> None:
    """A table is a hint: what is not the certificate itself may change, and then nothing else does."""
    table = bytearray((genoa / "certs").read_bytes())
    table[at % len(table)] = value
    (genoa / "changed").write_bytes(table)
    assert code(run("report", "--certs", "changed")) in (0, 3, 4, 6)
