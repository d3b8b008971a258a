"""`tinboot verify HOST` against a guest on a real socket: verdicts, exit codes, every option, every file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_amd
import fake_gpus
import fake_nvidia
import pytest
import served_guest
import stub_nvidia
import stub_report
import synthetic_ovmf
from click.testing import CliRunner, Result
from served_guest import MEASUREMENT, Guest, Host, tls_key

from tinboot.cli import verify
from tinboot.formats import certtable, gpureference, launchdigest, ovmf
from tinboot.formats.errors import Malformed, Mismatch, Refused, TinbootError, Unavailable
from tinboot.formats.launchmanifest import KernelHashes, LaunchManifest
from tinboot.formats.snptcb import GENOA
from tinboot.verify import policy

AT = ("--at", "2026-06-01T12:00:00Z")
ROOTS = ("--trust-root", "ark.pem")
COMMON = (*AT, *ROOTS, "--offline", "--measurement", MEASUREMENT.hex())
GPUS = ("--gpu-reference-values", "values", "--trust-gpu-root", "gpu-root.pem")


def run(*arguments: str) -> Result:
    done = CliRunner().invoke(verify.command, arguments)
    if done.exception is not None and not isinstance(done.exception, SystemExit | TinbootError):
        raise done.exception
    return done


def code(done: Result) -> int:
    return done.exception.exit_code if isinstance(done.exception, TinbootError) else done.exit_code


def failed(done: Result) -> list[str]:
    shown: dict[str, Any] = json.loads(done.stdout)
    lists = [shown["connection"], shown["checks"], shown["cpu"]["checks"]]
    if shown["gpus"]:
        lists += [shown["gpus"]["checks"], *(gpu["checks"] for gpu in shown["gpus"]["gpus"])]
    return [check["id"] for checks in lists for check in checks if check["verdict"] == "fail"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("ark.pem").write_bytes(stub_nvidia.pem([served_guest.issuers()[1]]))
    Path("chain.pem").write_bytes(stub_nvidia.pem([*served_guest.issuers()]))
    Path("vcek.der").write_bytes(served_guest.vcek())
    Path("crl").write_bytes(served_guest.revocation_list())
    Path("values").write_bytes(gpureference.render(fake_gpus.reference()))
    Path("gpu-root.pem").write_bytes(stub_nvidia.pem([fake_nvidia.device_root()]))
    return tmp_path


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as host:
        yield host


@pytest.fixture
def name(host: Host) -> str:
    return host.origin.authority


def test_accepted(name: str) -> None:
    done = run(name, *COMMON, "--no-gpus")
    assert code(done) == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == f"{name}:"
    assert re.sub(r"\s+", " ", done.stdout).find(f"accepted: {name}, no GPUs, by the policy 'baseline'") > 0
    assert "TEST ROOT" in lines[-1]
    assert "FAIL" not in done.stdout
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in done.stdout
    assert done.stderr == "WARNING: trusting the root 'ARK-Genoa' of ark.pem, which is not AMD's\n"


def test_the_word_host_may_stand_or_not(name: str) -> None:
    words = (*COMMON, "--no-gpus")
    assert code(run("host", name, *words)) == 0
    assert code(run(*words, name)) == 0
    assert code(run(*words[2:], *words[:2], name)) == 0


def test_two_gpus() -> None:
    with Host(Guest(gpus=2)) as host:
        name = host.origin.authority
        done = run(name, *COMMON, *GPUS, "--gpus", "2", "--gpu-architecture", "hopper")
        assert code(done) == 0, done.output
        assert "2 GPUs, by the policy" in re.sub(r"\s+", " ", done.stdout)
        assert "TEST ROOT" in done.stdout.splitlines()[-2]
        assert "TEST ROOT" in done.stdout.splitlines()[-1]
        assert max(map(len, done.stdout.splitlines())) <= 80
        done = run(name, *COMMON, *GPUS, "--gpus", "3", "--json")
        assert isinstance(done.exception, Refused)
        assert failed(done) == ["count"]
        assert json.loads(done.stdout)["gpus"]["accepted"] is False


def test_json_has_every_check_and_claim(host: Host, name: str) -> None:
    shown = json.loads(run(name, *COMMON, "--no-gpus", "--json").stdout)
    assert (shown["accepted"], shown["exit_code"], shown["host"]) == (True, 0, name)
    assert shown["claims"]["tls_key_sha256"] == served_guest.spki_sha256(host.guest.tls).hex()
    assert shown["claims"]["hpke_key"] == host.guest.hpke_public.hex()
    assert shown["claims"]["measurement"] == MEASUREMENT.hex()
    assert shown["cpu"]["root"]["amd"] is False
    asked = {check["id"] for part in (shown["connection"], shown["checks"]) for check in part}
    assert {"certificate-dates", "tls-key", "hpke-key", "nonce", "report-data", "gpu-evidence"} <= asked


def test_what_failed_stands_first(name: str) -> None:
    done = run(name, *AT, *ROOTS, "--offline", "--no-gpus", "--measurement", "00" * 48)
    assert isinstance(done.exception, Refused)
    assert done.stdout.splitlines()[0] == f"{name}, NOT VERIFIED:"
    assert "FAIL measurement: " in done.stdout
    assert "accepted" not in done.stdout
    assert done.stdout.splitlines()[-1] == "refused with exit code 5"


def test_a_relay(folder: Path) -> None:
    guest = Guest()
    with Host(Guest(tls=tls_key(1))) as relay:
        relay.answers[served_guest.EVIDENCE] = lambda request: served_guest.Answer(
            guest.document(request.nonce or b"")
        )
        done = run(relay.origin.authority, *COMMON, "--no-gpus", "--json")
        assert isinstance(done.exception, Mismatch)
        assert failed(done) == ["tls-key"]
        assert "unverified" in json.loads(done.stdout)


def test_certificates_from_files() -> None:
    with Host(Guest(collateral=())) as host:
        words = (host.origin.authority, *COMMON, "--no-gpus")
        done = run(*words, "--json")
        assert isinstance(done.exception, Unavailable)
        assert "endorsements: there is no certificate of the report's key" in done.exception.message
        assert code(run(*words, "--vek", "vcek.der", "--chain", "chain.pem")) == 0
        table = certtable.pack(certtable.Certificates(served_guest.vcek(), None, *served_guest.issuers()))
        Path("table").write_bytes(table)
        assert code(run(*words, "--certs", "table")) == 0


def test_a_list_from_a_file(name: str) -> None:
    own = json.loads(policy.text("baseline"))
    own["revocation"] = "require"
    own["measurement"] = [MEASUREMENT.hex()]
    Path("policy.json").write_text(json.dumps(own))
    words = (name, *AT, *ROOTS, "--offline", "--no-gpus", "--policy", "policy.json")
    done = run(*words)
    assert isinstance(done.exception, Unavailable)
    assert "--crl FILE" in done.exception.hint
    assert code(run(*words, "--crl", "crl")) == 0
    Path("crl").write_bytes(served_guest.revocation_list(fake_amd.authority(GENOA).ask().serial))
    done = run(*words, "--crl", "crl", "--json")
    assert failed(done) == ["revocation"]


def test_a_policy_that_names_another_measurement(name: str) -> None:
    own = json.loads(policy.text("baseline"))
    own["measurement"] = ["00" * 48]
    Path("policy.json").write_text(json.dumps(own))
    done = run(name, *COMMON, "--no-gpus", "--policy", "policy.json")
    assert isinstance(done.exception, Refused)
    assert "does not allow the measurement" in done.exception.message
    assert done.stdout == ""


def test_several_measurements(name: str) -> None:
    words = (name, *AT, *ROOTS, "--offline", "--no-gpus", "--measurement", "00" * 48)
    assert code(run(*words)) == 5
    assert code(run(*words, "--measurement", MEASUREMENT.hex())) == 0


def test_manifests() -> None:
    image = synthetic_ovmf.image()
    hashes = KernelHashes(bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32)
    digest, vcpu = launchdigest.firmware_digest(image), launchdigest.Vcpu(0x800F12, 0x1)
    manifest = LaunchManifest(ovmf.parse(image), digest, hashes, vcpu)
    Path("launch.json").write_bytes(manifest.dump())
    digests = {str(count): manifest.launch_digest(count).hex() for count in (2, 4)}
    measured = {"digests": digests, "manifest": json.loads(manifest.dump())}
    Path("measured.json").write_text(json.dumps(measured))
    with Host(Guest(measurement=manifest.launch_digest(4))) as host:
        words = (host.origin.authority, *AT, *ROOTS, "--offline", "--no-gpus", "--manifest")
        assert code(run(*words, "measured.json")) == 0
        assert code(run(*words, "measured.json", "--vcpus", "4")) == 0
        assert code(run(*words, "measured.json", "--vcpus", "2")) == 5
        assert code(run(*words, "launch.json", "--vcpus", "4")) == 0
        assert code(run(*words, "launch.json", "--vcpus", "3")) == 5
        assert "say --vcpus N" in run(*words, "launch.json").stderr
        assert "is none of" in run(*words, "measured.json", "--vcpus", "3").stderr
        measured["digests"]["4"] = MEASUREMENT.hex()
        Path("measured.json").write_text(json.dumps(measured))
        done = run(*words, "measured.json")
        assert isinstance(done.exception, Mismatch)
        assert "measured.json: manifest.digests.4 is 0001" in done.exception.message
        measured["digests"] = {"four": MEASUREMENT.hex()}
        Path("measured.json").write_text(json.dumps(measured))
        assert isinstance(run(*words, "measured.json").exception, Malformed)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--no-gpus",), "say what must run there"),
        (("--measurement", "00" * 48), "say how many GPUs"),
        (("--measurement", "00" * 48, "--gpus", "1", "--no-gpus"), "say how many GPUs"),
        (("--measurement", "00" * 48, "--gpus", "1"), "--gpus N goes with --gpu-reference-values"),
        (("--measurement", "00" * 48, "--no-gpus", *GPUS), "--no-gpus goes with nothing"),
        (("--measurement", "00" * 48, "--no-gpus", "--vcpus", "4"), "--vcpus goes with --manifest"),
        (("--measurement", "00" * 48, "--no-gpus", "--policy", "x", "--profile", "strict"), "not both"),
        (("--measurement", "00" * 48, "--no-gpus", "--kds", "ftp://x"), "--kds: 'ftp://x'"),
        (("--measurement", "00" * 48, "--no-gpus", "--connect", "x"), "has no port"),
        (("--measurement", "00", "--no-gpus"), "48 bytes in hex"),
        (("--measurement", "00" * 48, "--no-gpus", "--at", "today"), "is no time like"),
    ],
)
def test_usage(words: tuple[str, ...], message: str) -> None:
    done = run("guest.invalid", *words)
    assert done.exit_code == 2
    assert message in re.sub(r"\s+", " ", done.stderr)


def test_no_host() -> None:
    done = run("https://guest.example/", *COMMON, "--no-gpus")
    assert done.exit_code == 2
    assert "is no HOST:PORT" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--vek", "none"),
        ("--certs", "none"),
        ("--chain", "none"),
        ("--crl", "none"),
        ("--manifest", "none"),
        ("--policy", "none"),
    ],
)
def test_files_that_are_not_there(name: str, words: tuple[str, ...]) -> None:
    done = run(name, *COMMON, "--no-gpus", *words)
    assert isinstance(done.exception, Unavailable)
    assert "none: No such file" in done.exception.message


def test_nobody_answers() -> None:
    done = run("127.0.0.1:1", *COMMON, "--no-gpus")
    assert isinstance(done.exception, Unavailable)
    assert "Connection refused" in done.exception.message
    assert done.stdout == ""


def test_where_it_is_reached(host: Host, name: str) -> None:
    done = run("guest.example", *COMMON, "--no-gpus", "--connect", name)
    assert code(done) == 0, done.output
    assert host.seen[0].headers["host"] == "guest.example"
    assert done.stdout.startswith("guest.example:\n")


def test_a_slow_host_is_told_of_and_ends(host: Host, name: str) -> None:
    host.instead = lambda _: host.stopped(10)
    done = run(name, *COMMON, "--no-gpus", "--timeout", "1.5")
    assert isinstance(done.exception, Unavailable)
    assert f"asking {name} for evidence …\n" in done.stderr


def test_amd_is_asked_for_what_nobody_has(folder: Path) -> None:
    """Over a loopback key distribution service, once; then its cache has it."""
    with Host(tls=False) as service, Host(Guest(collateral=())) as host:
        path = re.compile("/vcek/v1/Genoa/[0-9a-f]{128}")

        def answer(request: served_guest.Request) -> served_guest.Answer:
            assert path.fullmatch(request.path)
            return served_guest.Answer(served_guest.vcek())

        hwid = stub_report.chip_id(GENOA).hex()
        service.answers[f"/vcek/v1/Genoa/{hwid}"] = answer
        words = (*AT, *ROOTS, "--measurement", MEASUREMENT.hex(), "--no-gpus", "--chain", "chain.pem")
        for _ in range(2):
            done = run(host.origin.authority, *words, "--kds", f"http://{service.origin.authority}")
            assert code(done) == 0
        assert len(service.seen) == 1
        assert service.seen[0].target.endswith("?blSPL=10&teeSPL=00&snpSPL=27&ucodeSPL=84")
        assert list((folder / "cache/tinboot/kds").iterdir())
