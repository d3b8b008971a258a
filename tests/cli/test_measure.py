"""`tinboot measure` and `tinboot id-block`: as sev-snp-measure prints it, and what is refused how."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import made_build
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from synthetic_ovmf import image

from tinboot.cli import idblock, measure
from tinboot.formats.errors import Malformed, Mismatch, Refused, TinbootError, Unavailable

LINE = "console=ttyS0 quiet"


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fd").write_bytes(image())
    Path("old.fd").write_bytes(image(seed=1))
    Path("bare.fd").write_bytes(image(hash_table=None))
    Path("kernel").write_bytes(b"kernel")
    Path("initrd").write_bytes(b"initrd")


FILES = ("--ovmf", "fd", "--kernel", "kernel", "--initrd", "initrd", "--append", LINE)


def run(*arguments: str) -> Result:
    done = CliRunner().invoke(measure.command, arguments, catch_exceptions=True)
    if done.exception is not None and not isinstance(done.exception, SystemExit | TinbootError):
        raise done.exception
    return done


def digest(*arguments: str) -> str:
    done = run(*arguments)
    assert done.exit_code == 0, (done.output, done.exception)
    assert done.stderr == ""
    return done.stdout.removesuffix("\n")


def theirs(*arguments: str) -> str:
    """sev-snp-measure, the program."""
    program = Path(sys.executable).with_name("sev-snp-measure")
    done = subprocess.run([program, "--mode", "snp", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.removesuffix("\n")


@pytest.mark.parametrize(
    "more",
    [
        ("--vcpu-type", "EPYC-v4"),
        ("--vcpu-type", "EPYC-Milan", "--vcpus", "64"),
        ("--vcpu-sig", "0xa10f11"),
        ("--vcpu-family", "25", "--vcpu-model", "17", "--vcpu-stepping", "1"),
        ("--vcpu-type", "EPYC-v4", "--guest-features", "0x21"),
        ("--vcpu-type", "EPYC-v4", "--vmm-type", "ec2"),
        ("--vcpu-type", "EPYC-v4", "--vmm-type", "gce"),
        ("--vcpu-type", "EPYC-v4", "--output-format", "base64"),
        ("--vcpu-type", "EPYC-v4", "--snp-ovmf-hash", "ab" * 48),
    ],
)
def test_the_same_words_the_same_answer(more: tuple[str, ...]) -> None:
    arguments = (*FILES, *more, *(() if "--vcpus" in more else ("--vcpus", "2")))
    assert digest(*arguments) == theirs(*arguments)


def test_kernel_alone_and_no_kernel() -> None:
    for arguments in (("--kernel", "kernel"), ()):
        words = ("--ovmf", "fd", *arguments, "--vcpus", "1", "--vcpu-type", "EPYC-v4")
        assert digest(*words) == theirs(*words)


@pytest.mark.parametrize("line", ["", "ü", "a  b "])
def test_command_lines(line: str) -> None:
    words = (*FILES[:-1], line, "--vcpus", "1", "--vcpu-type", "EPYC-v4")
    assert digest(*words) == theirs(*words)


def test_a_command_line_of_any_bytes() -> None:
    """sev-snp-measure fails here; QEMU hashes the bytes that the kernel will get."""
    digest(*FILES[:-1], os.fsdecode(b"a=\xff"), "--vcpus", "1", "--write-manifest", "launch.json")
    hashed = json.loads(Path("launch.json").read_text())["kernel"]["command_line"]
    assert hashed == hashlib.sha256(b"a=\xff\0").hexdigest()


def test_a_build(tmp_path: Path) -> None:
    made = made_build.make(tmp_path)
    files = (
        "--ovmf",
        "fd",
        "--kernel",
        "build/vmlinuz",
        "--initrd",
        "build/initrd",
        "--vcpu-type",
        "EPYC-v4",
    )
    line = made.manifest.command_line
    for options, count in (((), "2"), (("--vcpus", "5"), "5")):  # the config has two
        expected = theirs(*files, "--append", line, "--vcpus", count)
        assert digest("build", "--ovmf", "fd", *options) == expected
    suffixed = theirs(*files, "--append", f"{line} initrd=initrd", "--vcpus", "2")
    assert "initrd=initrd, not as given" in digest("build", "--ovmf", "fd", "--explain", suffixed)
    (made.directory / "initrd").write_bytes(b"Initrd")
    done = run("build", "--ovmf", "fd")
    assert isinstance(done.exception, Mismatch)
    assert done.stdout == ""


def test_digest_of_the_firmware_alone() -> None:
    alone = digest("--mode", "snp:ovmf-hash", "--ovmf", "fd")
    assert alone == theirs("--mode", "snp:ovmf-hash", "--ovmf", "fd")
    assert digest(*FILES, "--vcpus", "1", "--snp-ovmf-hash", alone) == digest(*FILES, "--vcpus", "1")


def test_a_range_is_a_line_each() -> None:
    lines = digest(*FILES, "--vcpus", "2..5").splitlines()
    assert [line.split(" ")[0] for line in lines] == ["2", "3", "4", "5"]
    assert lines[3].split(" ")[1] == digest(*FILES, "--vcpus", "5")


def test_launch_manifest_in_place_of_the_files() -> None:
    expected = digest(*FILES, "--vcpus", "3", "--write-manifest", "launch.json")
    for name in ("fd", "kernel", "initrd"):
        Path(name).unlink()
    assert digest("--manifest", "launch.json", "--vcpus", "3") == expected
    other = digest("--manifest", "launch.json", "--vcpus", "3", "--vcpu-type", "EPYC-Genoa")
    assert other != expected


def test_a_file_that_is_there_is_kept() -> None:
    Path("launch.json").write_text("mine")
    done = run(*FILES, "--vcpus", "1", "--write-manifest", "launch.json")
    assert isinstance(done.exception, Refused)
    assert Path("launch.json").read_text() == "mine"
    digest(*FILES, "--vcpus", "1", "--write-manifest", "launch.json", "--force")
    assert Path("launch.json").read_text().startswith("{")


def test_json() -> None:
    shown = json.loads(digest(*FILES, "--vcpus", "1..2", "--json"))
    assert shown["digests"] == {count: digest(*FILES, "--vcpus", count) for count in ("1", "2")}
    assert shown["manifest"]["kernel"]["kernel"] == hashlib.sha256(b"kernel").hexdigest()


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ((), "the digest is of this very launch"),
        (("--vcpus", "7"), "vCPUs: 7, not 2"),
        (("--vcpu-type", "EPYC-Genoa"), "CPU model: EPYC-Genoa (0xa10f10), not EPYC (0x800f12)"),
        (
            ("--append", f"{LINE} initrd=initrd"),
            "command line: with the firmware's suffix initrd=initrd, not",
        ),
        (("--ovmf", "old.fd"), "firmware: old.fd, not the one given"),
    ],
)
def test_explain(changed: tuple[str, ...], expected: str) -> None:
    launched = digest(*FILES, "--vcpus", "2", *changed)
    words = (*FILES, "--vcpus", "2", "--other-ovmf", "old.fd", "--explain")
    assert expected in digest(*words, launched)
    encoded = base64.b64encode(bytes.fromhex(launched)).decode()
    assert json.loads(digest(*words, encoded, "--json"))["digest"] == launched


@pytest.mark.parametrize(
    ("arguments", "tried"),
    [
        (FILES, "slips in the command line, no other firmware"),
        ((*FILES, "--other-ovmf", "old.fd"), "slips in the command line, 1 further firmware"),
        (("--manifest", "launch.json"), "no slip in the command line, whose text is unknown"),
        (("--manifest", "launch.json", "--append", LINE), "slips in the command line, no"),
        (FILES[:2], "VMMs QEMU ec2 gce, no other firmware"),
    ],
)
def test_explain_finds_nothing(arguments: tuple[str, ...], tried: str) -> None:
    digest(*FILES, "--vcpus", "2", "--write-manifest", "launch.json")
    done = run(*arguments, "--vcpus", "2", "--explain", "00" * 48)
    assert isinstance(done.exception, Mismatch)
    assert "is of none of" in done.exception.message
    assert tried in done.exception.message
    assert done.stdout == ""


def test_the_text_of_another_command_line_than_the_launch_manifests() -> None:
    digest(*FILES, "--vcpus", "2", "--write-manifest", "launch.json")
    digest("--ovmf", "fd", "--vcpus", "2", "--write-manifest", "disk.json")
    for arguments in (("launch.json", "--append", "quiet"), ("disk.json", "--append", LINE)):
        done = run("--manifest", *arguments, "--vcpus", "2")
        assert isinstance(done.exception, Mismatch)
        assert "is not the command line of the launch manifest" in done.exception.message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name the firmware with --ovmf"),
        (("--ovmf", "fd"), "say how many vCPUs"),
        ((*FILES, "--vcpus", "0"), "neither a count nor a range"),
        ((*FILES, "--vcpus", "2..1"), "is not within 1..4096"),
        ((*FILES, "--vcpus", "4097"), "is not within 1..4096"),
        ((*FILES, "--vcpus", "1", "--vcpu-type", "host"), "Invalid value for '--vcpu-type'"),
        ((*FILES, "--vcpus", "1", "--vcpu-type", "EPYC", "--vcpu-sig", "1"), "give one of"),
        ((*FILES, "--vcpus", "1", "--vcpu-family", "25"), "go together"),
        ((*FILES, "--vcpus", "1", "--vcpu-sig", "0x100000000"), "32 bits"),
        ((*FILES, "--vcpus", "1", "--guest-features", "-1"), "64 bits"),
        ((*FILES, "--vcpus", "1", "--guest-features", "one"), "is not a number"),
        (("--ovmf", "fd", "--initrd", "initrd", "--vcpus", "1"), "go with --kernel"),
        ((*FILES, "--vcpus", "1", "--explain", "abc"), "not 48 bytes"),
        ((*FILES, "--vcpus", "1", "--other-ovmf", "old.fd"), "goes with --explain"),
        ((*FILES, "--vcpus", "1", "--manifest", "x"), "leave out BUILD and the files"),
        ((*FILES, "--vcpus", "1..2", "--explain", "00" * 48), "takes the one count"),
        (
            (*FILES, "--vcpus", "1", "--explain", "00" * 48, "--write-manifest", "x"),
            "writes no launch manifest",
        ),
        (("--mode", "snp:ovmf-hash", *FILES), "nothing else to measure"),
        ((".", *FILES), "give no others"),
    ],
)
def test_usage(arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("--ovmf", "none", "--vcpus", "1"), Unavailable, "none: No such file"),
        (("--ovmf", "kernel", "--vcpus", "1"), Malformed, "kernel: the firmware has 6 bytes"),
        (("--ovmf", "bare.fd", *FILES[2:], "--vcpus", "1"), Refused, "no room for a table of kernel hashes"),
        (("--ovmf", "fd", "--kernel", "none", "--vcpus", "1"), Unavailable, "none: No such file"),
        (("--manifest", "kernel", "--vcpus", "1"), Malformed, "kernel: launch manifest is not strict JSON"),
        ((".", "--ovmf", "fd"), Unavailable, "manifest.json"),
    ],
)
def test_refusals(arguments: tuple[str, ...], kind: type[TinbootError], message: str) -> None:
    done = run(*arguments)
    assert isinstance(done.exception, kind)
    assert message in done.exception.message
    assert done.stdout == ""


def test_id_block(tmp_path: Path) -> None:
    for name in ("id.pem", "author.pem"):
        key = ec.generate_private_key(ec.SECP384R1())
        (tmp_path / name).write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    words = ["ab" * 48, "--id-key", "id.pem", "--author-key", "author.pem", "--family-id", "0102"]
    shown = json.loads(CliRunner().invoke(idblock.command, [*words, "--svn", "7", "--json"]).stdout)
    block = base64.b64decode(shown["id-block"])
    assert block[:48] == bytes.fromhex("ab" * 48)
    assert block[48:64] == bytes([1, 2]).ljust(16, b"\0")
    assert (len(base64.b64decode(shown["id-auth"])), len(shown["id_key_digest"])) == (4096, 96)
    text = CliRunner().invoke(idblock.command, words)
    assert text.stdout.startswith("id-block=")
    assert text.stdout.endswith(",author-key-enabled=on\n")
    refused = CliRunner().invoke(idblock.command, [*words, "--policy", "0xb0000"])
    assert isinstance(refused.exception, Refused)
