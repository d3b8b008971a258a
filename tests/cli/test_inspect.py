"""`tinboot inspect`: every kind of evidence, from files and from a host; it decides nothing and says so."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_host
import fake_nvidia
import pytest
import served_guest
import stub_nvidia
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served_guest import Guest, Host

from tinboot.cli import inspect
from tinboot.formats import completeattestation, gpuevidence
from tinboot.formats.errors import Malformed, TinbootError, Unavailable

COMMON = (*("--at", "2026-06-01T12:00:00Z", "--trust-root", "ark.pem", "--trust-gpu-root", "gpu-root.pem"),)
NONCE = bytes(range(32))
CONFIG = b"cvm-version: 1.2.0\n"


def run(*arguments: str, stdin: bytes = b"") -> Result:
    done = CliRunner().invoke(inspect.command, [*arguments, *COMMON], input=stdin)
    if done.exception is not None and not isinstance(done.exception, SystemExit | TinbootError):
        raise done.exception
    return done


def complete(**changed: Any) -> bytes:
    keys = fake_host.KEYS._replace(tls=fake_host.tls())
    made = fake_host.complete(fake_host.gpus(1), challenged=fake_host.v3(keys))
    return completeattestation.render(made._replace(**changed))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    guest = Guest(gpus=2)
    Path("v3.json").write_bytes(guest.document(NONCE))
    Path("v2.json").write_bytes(guest.document_v2())
    Path("report").write_bytes(guest.report(bytes(64)))
    Path("gpus.json").write_bytes(gpuevidence.render(guest.gpu_evidence(NONCE)))
    Path("complete.json").write_bytes(complete())
    Path("ark.pem").write_bytes(stub_nvidia.pem([served_guest.issuers()[1]]))
    Path("chain.pem").write_bytes(stub_nvidia.pem([*served_guest.issuers()]))
    Path("vcek").write_bytes(served_guest.vcek())
    Path("gpu-root.pem").write_bytes(stub_nvidia.pem([fake_nvidia.device_root()]))
    return tmp_path


def tree(done: Result) -> dict[str, Any]:
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["decided"] == "nothing"
    return found


def claim(found: dict[str, Any], *names: str) -> dict[str, Any]:
    for name in names:
        found = next(part for part in found["claims"] if part["name"] == name)
    return found


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    return {check["id"]: check["verdict"] for check in found.get("checks", ())}


@pytest.mark.parametrize("name", ["v3.json", "v2.json", "report", "gpus.json", "complete.json"])
def test_every_kind_fits_in_eighty_columns(name: str) -> None:
    done = run(name)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1].startswith("Nothing is decided here")
    assert "accepted" not in done.stdout
    assert "\x1b" not in done.stdout
    assert [line for line in lines if line != line.rstrip()] == []


def test_a_v3_document() -> None:
    found = tree(run("v3.json", "--json"))
    assert (found["name"], found["value"]) == ("attestation document", "v3")
    assert claim(found, "nonce")["value"] == NONCE.hex()
    assert verdicts(claim(found, "nonce")) == {"nonce": "unchecked", "report-data": "pass"}
    assert verdicts(claim(found, "TLS key"))["tls-key"] == "unchecked"
    report = claim(found, "SEV-SNP report")
    assert verdicts(report)["report-signature"] == "pass"
    assert claim(report, "measurement")["value"] == served_guest.MEASUREMENT.hex()
    assert verdicts(claim(report, "measurement")) == {"measurement": "unchecked"}
    assert verdicts(claim(report, "REPORT_DATA")) == {"report-data": "pass"}
    gpus = claim(found, "GPUs")
    assert gpus["value"] == "2"
    assert verdicts(claim(gpus, "GPU 1"))["report-signature"] == "pass"
    assert verdicts(claim(gpus, "GPU 1", "nonce")) == {"nonce": "pass"}
    assert verdicts(claim(gpus, "GPU 1", "measurements")) == {
        "measurements": "unchecked",
        "uncovered": "unchecked",
    }


def test_a_v2_document() -> None:
    found = tree(run("v2.json", "--json", "--vek", "vcek", "--chain", "chain.pem"))
    assert found["value"] == "v2"
    assert verdicts(claim(found, "document hash")) == {"nonce": "unchecked"}
    assert verdicts(claim(found, "HPKE key"))["report-data"] == "pass"
    assert verdicts(claim(found, "SEV-SNP report"))["root-pinned"] == "pass"


def test_a_report_without_its_certificate() -> None:
    found = tree(run("report", "--json"))
    assert verdicts(found) == {"endorsements": "unchecked"}
    assert claim(found, "VMPL")["value"] == "0"
    found = tree(run("report", "--json", "--vek", "vcek", "--chain", "chain.pem"))
    assert verdicts(found)["report-signature"] == "pass"


def test_a_complete_attestation() -> None:
    found = tree(run("complete.json", "--json", "--vek", "vcek", "--chain", "chain.pem"))
    assert verdicts(found) == {"same-guest": "pass", "same-keys": "pass"}
    assert verdicts(claim(found, "config")) == {"config": "pass"}
    assert verdicts(claim(found, "boot", "sealed")) == {"boot-format": "pass", "boot-report-data": "pass"}
    assert verdicts(claim(found, "boot", "SEV-SNP report"))["report-signature"] == "pass"
    assert claim(found, "GPUs")["value"] == "1"
    assert verdicts(claim(found, "GPUs"))["boot-gpus"] == "pass"


def test_what_does_not_hang_together_is_said() -> None:
    Path("complete.json").write_bytes(complete(config=b"other", boot=fake_host.complete(boot=b"else").boot))
    found = tree(run("complete.json", "--json"))
    assert verdicts(claim(found, "config")) == {"config": "fail"}
    assert verdicts(claim(found, "boot", "sealed"))["boot-report-data"] == "fail"
    shown = run("complete.json")
    assert shown.exit_code == 0
    assert "FAIL config: the config has the hash" in " ".join(shown.stdout.replace("│", " ").split())


def test_another_root_is_not_trusted() -> None:
    words = ["v3.json", "--at", "2026-06-01T12:00:00Z", "--json"]
    found = tree(CliRunner().invoke(inspect.command, words))
    assert verdicts(claim(found, "SEV-SNP report"))["root-pinned"] == "fail"
    assert verdicts(claim(found, "GPUs", "GPU 0"))["root-pinned"] == "fail"


def test_standard_input() -> None:
    assert tree(run("-", "--json", stdin=Path("v3.json").read_bytes()))["value"] == "v3"


def test_a_host() -> None:
    with Host() as host:
        done = run("guest.example", "--json", "--connect", host.origin.authority)
        found = tree(done)
        shown = run(host.origin.authority)
    assert found["value"] == "guest.example"
    assert verdicts(claim(found, "TLS key shown"))["certificate-published"] == "pass"
    document = claim(found, "attestation document")
    assert verdicts(claim(document, "TLS key"))["tls-key"] == "pass"
    assert verdicts(claim(document, "HPKE key"))["hpke-key"] == "pass"
    assert verdicts(claim(document, "nonce"))["nonce"] == "pass"
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_a_host_that_would_be_refused() -> None:
    with Host(Guest(measurement=bytes(48), stated_tls=bytes(32))) as host:
        found = tree(run(host.origin.authority, "--json"))
    document = claim(found, "attestation document")
    assert verdicts(claim(document, "TLS key"))["tls-key"] == "fail"


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "not strict JSON"), (b"{}", "missing"), (b"[]", "0 GPUs"), (bytes(1183), "not strict JSON")],
)
def test_what_cannot_be_read(data: bytes, message: str) -> None:
    done = run("-", stdin=data)
    assert isinstance(done.exception, Malformed)
    assert message in done.exception.message
    assert done.stdout == ""


def test_no_such_file_and_no_such_host() -> None:
    assert isinstance(run("./none").exception, Unavailable)
    done = run("127.0.0.1:1")
    assert isinstance(done.exception, Unavailable)
    assert "there is no file of this name" in done.exception.hint
    assert run("no such thing").exit_code == 2


CHANGES: dict[str, Callable[[bytes, int], bytes]] = {
    "cut": lambda data, at: data[:at],
    "one bit": lambda data, at: data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :],
}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    name=st.sampled_from(["v3.json", "v2.json", "report", "gpus.json", "complete.json"]),
    where=st.floats(0, 1, exclude_max=True),
    how=st.sampled_from(sorted(CHANGES)),
)
def test_changed_evidence_is_shown_or_malformed(folder: Path, name: str, where: float, how: str) -> None:
    data = (folder / name).read_bytes()
    done = run("-", stdin=CHANGES[how](data, int(where * len(data))))
    with contextlib.suppress(TinbootError):
        if done.exception is not None:
            raise done.exception
        assert done.exit_code == 0
