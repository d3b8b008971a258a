"""`tinboot gpu verify`: verdicts, exit codes, and every input that can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fake_gpus
import fake_nvidia
import pytest
import stub_nvidia
import vectors
from click.testing import CliRunner, Result
from fake_gpus import GOOD, answers, evidence, gpus
from fake_nvidia import NONCE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinboot.cli import gpu
from tinboot.formats import gpuevidence, gpureference
from tinboot.formats.errors import TinbootError

AT = ("--at", "2026-06-01T12:00:00Z")
COMMON = ("--reference-values", "values", "--trust-root", "root.pem", *AT)
ASKED = ("--nonce", NONCE.hex(), "--architecture", "hopper", "--count", "1")


def run(*arguments: str, stdin: bytes = b"") -> Result:
    done = CliRunner().invoke(gpu.command, ["verify", *arguments], input=stdin)
    if done.exception is not None and not isinstance(done.exception, SystemExit | TinbootError):
        raise done.exception
    return done


def code(done: Result) -> int:
    return done.exception.exit_code if isinstance(done.exception, TinbootError) else done.exit_code


def error(done: Result) -> tuple[int, str, str]:
    assert isinstance(done.exception, TinbootError), done.output
    return done.exception.exit_code, done.exception.message, done.exception.hint


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With evidence of one GPU and of two, what they are compared with, and OCSP responses."""
    monkeypatch.chdir(tmp_path)
    Path("one.json").write_bytes(gpuevidence.render(gpus(1)))
    Path("two.json").write_bytes(gpuevidence.render(gpus(2)))
    values = fake_gpus.reference()
    Path("values").write_bytes(gpureference.render(values))
    Path("pinned").mkdir()
    Path("pinned/reference-values.json").write_bytes(gpureference.render(values))
    for rim in values.rims:
        Path(rim.kind).write_bytes(gpureference.render(values._replace(rims=(rim,))))
    Path("root.pem").write_bytes(stub_nvidia.pem([fake_nvidia.device_root()]))
    for number, answer in enumerate(answers()):
        Path(f"ocsp{number}").write_bytes(answer.pack())
    return tmp_path


OCSP = tuple(word for number in range(3) for word in ("--ocsp", f"ocsp{number}"))


def test_accepted(folder: Path) -> None:
    done = run("one.json", *COMMON, *ASKED, *OCSP, "--revocation", "ocsp")
    assert code(done) == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("GPU 0: GH100 A01 GSP BROM, driver 550.90.07, VBIOS 96.00.9F.00.01, serial")
    assert lines[-2] == "accepted: 1 GPU, by reference values of 2026-05-02"
    assert "TEST ROOT" in lines[-1]
    assert "open" not in done.stdout
    assert "FAIL" not in done.stdout
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in done.stdout
    assert done.stderr == (
        "WARNING: trusting the root 'NVIDIA Device Identity CA' of root.pem, which is not NVIDIA's\n"
    )


def test_what_was_not_asked_is_said(folder: Path) -> None:
    done = run("two.json", *COMMON)
    assert code(done) == 0
    for name, option in (
        ("nonce", "--nonce"),
        ("architecture", "--architecture"),
        ("revocation", "--revocation ocsp"),
        ("count", "--count"),
    ):
        assert f"open {name}: " in done.stdout
        assert option in done.stdout
    assert "accepted: 2 GPUs, by reference values of" in done.stdout


@pytest.mark.parametrize(
    "values", [("values",), ("pinned",), ("driver", "vbios"), ("pinned", "driver")], ids=" ".join
)
def test_reference_values_of_files_and_folders(folder: Path, values: tuple[str, ...]) -> None:
    given_as = [word for value in values for word in ("--reference-values", value)]
    assert code(run("one.json", *given_as, "--trust-root", "root.pem", *AT)) == 0


def test_standard_input(folder: Path) -> None:
    assert code(run("-", *COMMON, stdin=Path("two.json").read_bytes())) == 0


def test_a_root_is_taken_as_pem_or_der(folder: Path) -> None:
    Path("root.der").write_bytes(fake_nvidia.device_root())
    assert code(run("one.json", "--reference-values", "values", "--trust-root", "root.der", *AT)) == 0


def test_refused(folder: Path) -> None:
    done = run("two.json", *COMMON, "--nonce", "ff" * 32, "--count", "3")
    assert error(done) == (
        5,
        f"GPU 0: nonce: the report's nonce is {NONCE.hex()}, expected {'ff' * 32}",
        "is it an old report?",
    )
    lines = done.stdout.splitlines()
    assert lines[-1] == "refused with exit code 5"
    assert done.stdout.count("NOT VERIFIED") == 2
    assert "FAIL count: evidence of 2 GPUs, expected 3" in done.stdout
    assert max(map(len, lines)) <= 80


def test_nvidias_root_alone_is_trusted_unless_one_is_named(folder: Path) -> None:
    done = run("one.json", "--reference-values", "values", *AT)
    exit_code, message, _ = error(done)
    assert (exit_code, message[:40]) == (4, "root-pinned: the root 'NVIDIA Device Ide")
    assert done.stderr == ""


def test_naming_nvidias_own_root_is_no_reason_to_warn(folder: Path) -> None:
    chain = vectors.read("gpu/go-nvtrust/gpuAkCertChain.txt")
    put("nvidia.pem", chain[chain.rindex(b"-----BEGIN") :])
    done = run("one.json", "--reference-values", "values", "--trust-root", "nvidia.pem", *AT)
    assert error(done)[0] == 4
    assert done.stderr == ""


def test_evidence_as_the_sdk_in_cpp_writes_it(folder: Path) -> None:
    stated = gpus(1)[0]._replace(driver_version="550.90.07", vbios_version="96.00.9F.00.01")
    put("sdk.json", gpuevidence.render([stated]))
    assert code(run("sdk.json", *COMMON)) == 0
    put("sdk.json", gpuevidence.render([stated._replace(driver_version="550.90.08")]))
    assert error(run("sdk.json", *COMMON))[:1] == (5,)


def put(name: str, data: bytes) -> str:
    Path(name).write_bytes(data)
    return name


@pytest.mark.parametrize(
    ("exit_code", "break_it", "message"),
    [
        (3, lambda: ("x", put("x", b"[]"), *COMMON), "x: evidence of 0 GPUs"),
        (3, lambda: ("x", put("x", b"\xff"), *COMMON), "x: "),
        (3, lambda: ("x", put("x", bytes(2 << 20)), *COMMON), "x: "),
        (3, lambda: ("one.json", "--reference-values", put("x", b"{}"), *AT), "x: reference values"),
        (3, lambda: ("one.json", *COMMON, "--ocsp", put("x", b"\0")), "revocation: offset 0x0"),
        (
            3,
            lambda: ("one.json", "--reference-values", "values", "--trust-root", "values", *AT),
            "values: 0 PEM",
        ),
        (4, lambda: ("one.json", *COMMON, "--ocsp", put("x", stray())), "ocsp-strays: 1 OCSP answers"),
        (4, lambda: ("one.json", *COMMON, "--ocsp", put("x", revoked())), "revocation: NVIDIA has revoked"),
        (4, lambda: ("x", put("x", forged()), *COMMON), "report-signature: "),
        (5, lambda: ("one.json", *COMMON, "--count", "2"), "count: evidence of 1 GPUs, expected 2"),
        (5, lambda: ("one.json", *COMMON, "--architecture", "blackwell"), "architecture: a GPU of HOPPER"),
        (6, lambda: ("absent", *COMMON), "absent: No such file or directory"),
        (
            6,
            lambda: ("one.json", "--reference-values", "absent", *AT),
            "absent: there are no reference values",
        ),
        (6, lambda: ("one.json", "--reference-values", ".", *AT), "reference-values.json: there are no ref"),
        (
            6,
            lambda: ("one.json", "--reference-values", "driver", "--trust-root", "root.pem", *AT),
            "vbios-version: no",
        ),
        (6, lambda: ("one.json", *COMMON, "--ocsp", "absent"), "absent: No such file or directory"),
        (6, lambda: ("one.json", *COMMON, "--revocation", "ocsp"), "revocation: no OCSP answer about"),
    ],
)
def test_every_wrong_input(folder: Path, exit_code: int, break_it: Any, message: str) -> None:
    arguments = break_it()
    if arguments[0] == "x":
        arguments = arguments[1:]
    found, text, _ = error(run(*arguments))
    assert (found, message in text) == (exit_code, True), text


def stray() -> bytes:
    return answers(stub_nvidia.chain(number=9))[0].pack()


def revoked() -> bytes:
    return answers()[1]._replace(status="revoked", reason=1).pack()


def forged() -> bytes:
    item = evidence(chain=stub_nvidia.chain()._replace(key=stub_nvidia.key("x")))
    return gpuevidence.render([item])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing argument 'EVIDENCE'"),
        (("one.json",), "Missing option '--reference-values'"),
        (("one.json", *COMMON, "--nonce", "12"), "32 bytes in hex expected, 64 digits"),
        (("one.json", *COMMON, "--at", "yesterday"), "'yesterday' is no time like"),
        (("one.json", *COMMON, "--at", "2026-06-01T12:00:00"), "has no time zone: add Z or +01:00"),
        (("one.json", *COMMON, "--count", "0"), "0 is not in the range"),
        (("one.json", *COMMON, "--architecture", "ampere"), "'ampere' is not one of"),
        (("one.json", *COMMON, "--revocation", "none"), "'none' is not one of"),
        (("one.json", *COMMON, "--json", "--claims"), "give --json or --claims, not both"),
        ((".", *COMMON), "is a directory"),
    ],
)
def test_wrong_usage(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments)
    assert code(done) == 2
    assert message in done.stderr
    assert done.stdout == ""


def test_values_that_contradict_each_other(folder: Path) -> None:
    values = fake_gpus.reference()
    driver = fake_gpus.rim("driver")
    other = driver._replace(measurements={**driver.measurements, 7: ("11" * 48,)})
    Path("other").write_bytes(gpureference.render(values._replace(rims=(other,))))
    done = run("one.json", *COMMON, "--reference-values", "other")
    exit_code, message, _ = error(done)
    assert (exit_code, message) == (5, f"two RIMs of {driver.id}, with different measurements")


def test_json(folder: Path) -> None:
    done = run("two.json", *COMMON, "--json")
    shown = json.loads(done.stdout)
    assert (code(done), shown["accepted"], len(shown["gpus"])) == (0, True, 2)
    assert shown["at"] == "2026-06-01T12:00:00+00:00"
    refused = run("two.json", *COMMON, "--json", "--count", "1")
    shown = json.loads(refused.stdout)
    assert (code(refused), shown["accepted"], shown["exit_code"]) == (5, False, 5)
    assert [c["id"] for c in shown["checks"] if c["verdict"] == "fail"] == ["count"]


def test_claims(folder: Path) -> None:
    done = run("two.json", *COMMON, "--claims")
    overall, each = json.loads(done.stdout)
    assert (code(done), overall["x-nvidia-overall-att-result"]) == (0, True)
    assert list(each) == list(overall["submods"]) == ["GPU-0", "GPU-1"]
    assert each["GPU-1"]["measres"] == "success"
    refused = run("two.json", *COMMON, "--claims", "--nonce", "00" * 32)
    overall, each = json.loads(refused.stdout)
    assert (code(refused), overall["x-nvidia-overall-att-result"]) == (5, False)
    assert each["GPU-0"]["x-nvidia-gpu-attestation-report-nonce-match"] is False


def test_a_report_in_a_buffer_and_one_cut(folder: Path) -> None:
    item = evidence()
    put("padded", gpuevidence.render([item._replace(evidence=item.evidence + bytes(9))]))
    assert code(run("padded", *COMMON)) == 0
    put("cut", gpuevidence.render([item._replace(evidence=item.evidence[:100])]))
    exit_code, message, _ = error(run("cut", *COMMON))
    assert exit_code == 3
    assert message.startswith("report-format: offset 0x")


def test_terminal_control_characters_of_evidence_are_not_printed(folder: Path) -> None:
    """A certificate's name is the host's to choose until the chain holds."""
    form = stub_nvidia.chain().forms[4]
    chain = stub_nvidia.chain().put(4, form._replace(subject=(("CN", "\x1b[2Jaccepted\n"),)))
    put("evil", gpuevidence.render([evidence(GOOD, chain)]))
    done = run("evil", *COMMON)
    assert code(done) == 4
    assert "\x1b" not in done.stdout
    assert "\naccepted" not in done.stdout


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.integers(0, 20000), st.integers(0, 255))
def test_any_file_is_refused(folder: Path, data: bytes, at: int, byte: int) -> None:
    good = bytearray(Path("one.json").read_bytes())
    at %= len(good)
    changed = good[at] != byte
    good[at] = byte
    for raw in (data, bytes(good)) if changed else (data,):
        done = run("-", *COMMON, stdin=raw)
        if code(done) == 0:  # white space in the JSON or a text beside the PEM's blocks
            assert json.loads(raw)[0]["evidence"] == json.loads(Path("one.json").read_bytes())[0]["evidence"]
