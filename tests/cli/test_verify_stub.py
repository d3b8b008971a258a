"""What the stub PSP answers, given to `tinboot verify report`: every fault of it has a check that refuses.

The same answers reach a guest in tests/boot/test_report.py; here no machine is started.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fake_amd
import pytest
import stub_chain
from click.testing import CliRunner, Result
from psp import ANSWER, LENGTH, REQUEST, Behaviour, Psp
from stub_report import TCBS, VCEK, VLEK, Contents, chip_id, patched

from tinboot.builder import places
from tinboot.cli import verify
from tinboot.formats import certtable
from tinboot.formats.errors import Malformed, Mismatch, Refused, TinbootError
from tinboot.formats.sevguest import CERTIFICATES_LIMIT, RESPONSE
from tinboot.formats.snpreport import SIGNED, SIZE, Cpuid
from tinboot.formats.snptcb import GENOA, LINES, TURIN, Line
from tinboot.verify.chain import Kind

DATA, DIGEST = b"d" * 64, b"m" * 48
KINDS: tuple[Kind, ...] = ("VCEK", "VLEK")


@dataclass(frozen=True)
class Evidence:
    """What a guest gets, as files; and the root that a test names."""

    folder: Path
    root: bytes

    def verify(self, *more: str, trust: bool = True) -> Result:
        words = ["report", str(self.folder / "report"), "--certs", str(self.folder / "certificates")]
        words += ["--measurement", DIGEST.hex(), "--report-data", DATA.hex(), "--json", *more]
        if trust:
            (self.folder / "root").write_bytes(self.root)
            words += ["--trust-root", str(self.folder / "root")]
        return CliRunner().invoke(verify.command, words)


def collect(behaviour: Behaviour, folder: Path) -> Evidence:
    with Psp(behaviour) as stub:
        stub.measurement = DIGEST
        answer = stub.answer(REQUEST.pack(CERTIFICATES_LIMIT, DATA, 0))
        assert answer is not None
        error, _, length = ANSWER.unpack_from(answer)
        assert not error
        table = answer[ANSWER.size : ANSWER.size + length]
        response = answer[ANSWER.size + length :]
        (folder / "certificates").write_bytes(table)
        (folder / "report").write_bytes(response[RESPONSE.size : RESPONSE.size + SIZE])
        return Evidence(folder, stub.chain.ark)


def failed(result: Result) -> dict[str, str]:
    """Check -> detail, of those that failed."""
    shown: dict[str, Any] = json.loads(result.stdout)
    assert shown["accepted"] is (result.exit_code == 0 and result.exception is None)
    return {c["id"]: c["detail"] for c in shown["checks"] if c["verdict"] == "fail"}


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
@pytest.mark.parametrize("version", [2, 3, 5])
def test_good(tmp_path: Path, line: Line, version: int) -> None:
    evidence = collect(Behaviour(Contents(line, version)), tmp_path)
    result = evidence.verify("--allow-product", "Milan")
    assert result.exception is None, result.stderr
    assert failed(result) == {}
    assert "is not AMD's" in result.stderr


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_amds_roots_refuse_the_stub(tmp_path: Path, line: Line) -> None:
    result = collect(Behaviour(Contents(line)), tmp_path).verify("--allow-product", "Milan", trust=False)
    assert isinstance(result.exception, Mismatch)
    assert list(failed(result)) == ["root-pinned"]


@dataclass
class Fault:
    """How the PSP or its host misbehaves, and what says so."""

    behaviour: Behaviour
    check: str
    kind: type[TinbootError] = Refused
    also: frozenset[str] = field(default_factory=frozenset)


def other_chip() -> Behaviour:
    return Behaviour(Contents(chip_id=bytes(range(64, 128))))


FAULTS = {
    "DEBUG": Fault(Behaviour(Contents(policy=0x30000 | 1 << 19)), "debug"),
    "VMPL": Fault(Behaviour(Contents(vmpl=2)), "vmpl"),
    "old TCB": Fault(
        Behaviour(Contents(reported_tcb=TCBS[GENOA]._replace(snp=1))),
        "reported-tcb",
        Mismatch,
        frozenset({"reported-floor"}),
    ),
    "launched on old firmware": Fault(
        Behaviour(Contents(launch_tcb=TCBS[GENOA]._replace(snp=1))), "launch-floor"
    ),
    "no alias check": Fault(Behaviour(Contents(platform_info=0x05)), "platform-info"),
    "another product": Fault(Behaviour(Contents(cpuid=Cpuid(0x1A, 2, 1))), "product", Mismatch),
    "another chip": Fault(other_chip(), "chip-id", Mismatch),
    "other report data": Fault(Behaviour(report_data=bytes(64)), "report-data"),
    "other measurement": Fault(Behaviour(measurement=bytes(48)), "measurement"),
    "signature": Fault(
        Behaviour(alter=lambda report: patched(report, SIGNED + 5, bytes([report[SIGNED + 5] ^ 1]))),
        "report-signature",
        Mismatch,
    ),
    "altered after signing": Fault(
        Behaviour(alter=lambda report: patched(report, 4, b"\1")), "report-signature", Mismatch
    ),
    "padding": Fault(
        Behaviour(alter=lambda report: patched(report, SIZE - 1, b"\1")), "signature-padding", Malformed
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault(tmp_path: Path, name: str) -> None:
    fault = FAULTS[name]
    result = collect(fault.behaviour, tmp_path).verify()
    assert isinstance(result.exception, fault.kind)
    found = failed(result)
    assert fault.check in found
    if fault.kind is Refused:
        assert set(found) == {fault.check, *fault.also}


def test_certificates_of_another_chip(tmp_path: Path) -> None:
    """A genuine chain, as far as the stub's root goes, of a key that did not sign this report."""
    line = GENOA
    amd = stub_chain.authority(places.build_folder() / "stub-psp" / line.name, line, datetime.now(UTC))
    ask, ark = amd.chain()
    other = amd.issue(amd.vcek(stub_chain.chip_key(), TCBS[line], chip_id(line)))
    table = certtable.pack(certtable.Certificates(vcek=other, ask=ask, ark=ark))
    result = replace(collect(Behaviour(table=table), tmp_path), root=ark).verify()
    assert isinstance(result.exception, Mismatch)
    assert list(failed(result)) == ["report-signature"]


def test_no_certificates_is_cannot_tell(tmp_path: Path) -> None:
    result = collect(Behaviour(table=bytes(4096)), tmp_path).verify()
    assert getattr(result.exception, "exit_code", None) == 6
    assert result.stdout == ""


def test_wild_certificate_table(tmp_path: Path) -> None:
    wild = b"\x01" * 16 + b"\xf0\xff\xff\xff" * 2 + bytes(4096 - 24)
    result = collect(Behaviour(table=wild), tmp_path).verify()
    assert isinstance(result.exception, Malformed)
    assert "certificates: offset 0x" in result.exception.message


def test_a_frame_is_what_a_guest_sends() -> None:
    assert (LENGTH.size, REQUEST.size) == (4, 72)


def test_turin_has_its_own_layout(tmp_path: Path) -> None:
    evidence = collect(Behaviour(Contents(TURIN, 5, platform_info=0x67)), tmp_path)
    claims = json.loads(evidence.verify().stdout)["claims"]
    assert claims["reported_tcb"] == {"bl": 1, "tee": 1, "snp": 4, "ucode": 0x48, "fmc": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_of_two_certificates_in_a_table_the_signing_keys_counts(tmp_path: Path, kind: Kind) -> None:
    both = {name: stub_chain.pem([fake_amd.endorsement(GENOA, name).chain[0].der]) for name in KINDS}
    own = fake_amd.endorsement(GENOA, kind).chain
    table = certtable.Certificates(both["VCEK"], both["VLEK"], own[1].der, own[2].der)
    (tmp_path / "certificates").write_bytes(certtable.pack(table))
    key_info = VLEK if kind == "VLEK" else VCEK
    contents = Contents(measurement=DIGEST, report_data=DATA, key_info=key_info)
    (tmp_path / "report").write_bytes(fake_amd.report(contents).raw)
    result = Evidence(tmp_path, own[2].der).verify("--at", "2026-06-01T12:00:00Z")
    assert failed(result) == {}
    assert json.loads(result.stdout)["claims"]["signed_by"] == kind


def test_a_test_root_is_loud(tmp_path: Path) -> None:
    evidence = collect(Behaviour(Contents()), tmp_path)
    (tmp_path / "root").write_bytes(evidence.root)
    words = ["report", str(tmp_path / "report"), "--certs", str(tmp_path / "certificates")]
    result = CliRunner().invoke(verify.command, [*words, "--trust-root", str(tmp_path / "root")])
    assert result.exception is None, result.stderr
    assert "but by a TEST ROOT" in result.stdout
    assert result.stderr.startswith("WARNING: ")
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_issuers_that_the_user_names_come_before_those_of_the_hosts_table(tmp_path: Path) -> None:
    evidence = collect(Behaviour(Contents(GENOA)), tmp_path)
    table = certtable.parse((tmp_path / "certificates").read_bytes())
    assert table.ask is not None
    assert table.ark is not None
    (tmp_path / "chain").write_bytes(stub_chain.pem([table.ask, table.ark]))
    forged = [bytes((*der[:-1], der[-1] ^ 1)) for der in (table.ask, table.ark)]  # of the same names
    hostile = table._replace(ask=forged[0], ark=forged[1])
    (tmp_path / "certificates").write_bytes(certtable.pack(hostile))
    assert "certificate-signatures" in failed(evidence.verify())
    named = evidence.verify("--chain", str(tmp_path / "chain"))
    assert failed(named) == {}
    assert named.exit_code == 0
