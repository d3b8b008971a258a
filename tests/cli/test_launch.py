"""`tinboot launch` on a small made-up build: what is printed, what is refused and how, what is executed."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from made_build import Made, make, write

from tinboot.cli import launch
from tinboot.formats import manifest
from tinboot.formats.errors import TinbootError
from tinboot.host import builddir


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make(tmp_path)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(launch.command, [str(a) for a in arguments])


def refused(result: Result) -> TinbootError:
    assert isinstance(result.exception, TinbootError), result.output
    return result.exception


def both(made: Made) -> list[str]:
    return [f"--volume={path}" for path in made.volumes.values()]


def test_dry_run_prints_one_argument_a_line(made: Made) -> None:
    result = run(made.directory, "--harness", "--dry-run", *both(made))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "qemu-system-x86_64"
    assert lines[lines.index("-kernel") + 1] == str(made.directory / "vmlinuz")
    assert lines[lines.index("-append") + 1] == f"'{made.manifest.command_line}'"
    assert lines[lines.index("-smp") + 1] == "2"
    assert lines[lines.index("-m") + 1] == "1024M"
    serials = [line.split("serial=")[1].split(",")[0] for line in lines if "serial=" in line]
    hashes = [made.manifest.verity.root_hash, *(v.ref.root_hash for v in made.manifest.volumes)]
    assert serials == ["tinboot-config", *(h[:20] for h in hashes)]


def test_ocsp_responses_are_the_last_disk(made: Made, tmp_path: Path) -> None:
    given: list[str | Path] = ["--harness", "--gpu-ocsp", tmp_path / "ocsp.disk"]
    result = run(made.directory, *given, "--dry-run", *both(made))
    assert result.exit_code == 0, result.output
    serials = [
        line.split("serial=")[1].split(",")[0] for line in result.stdout.splitlines() if "serial=" in line
    ]
    assert serials[-1] == "tinboot-gpu-ocsp"
    assert f"file.filename={tmp_path / 'ocsp.disk'}" in result.stdout
    result = run(made.directory, *given, *both(made))
    assert result.exit_code == 2, result.output
    assert "ocsp.disk: no such file" in result.stderr


def test_the_operators_input_is_the_last_disk(made: Made, tmp_path: Path) -> None:
    given = tmp_path / "operator.json"
    given.write_text('{"network":{"address":"192.0.2.7/24","gateway":"192.0.2.1"}}')
    result = run(made.directory, "--harness", f"--operator={given}", "--dry-run", *both(made))
    assert result.exit_code == 0, result.output
    assert f"file.filename={given}" in result.stdout
    assert "serial=tinboot-operator" in result.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("[]", 3, "operator.json: operator is an array, expected an object"),
        ('{"secrets":{"KEY":"x"}}', 5, "operator.secrets.KEY: no container of the config asks for it"),
        (None, 6, "No such file or directory"),
    ],
)
def test_an_operator_whom_the_guest_would_refuse(
    made: Made, tmp_path: Path, text: str | None, code: int, told: str
) -> None:
    given = tmp_path / "operator.json"
    if text is not None:
        given.write_text(text)
    error = refused(run(made.directory, "--harness", f"--operator={given}", "--dry-run", *both(made)))
    assert error.exit_code == code
    assert told in error.message


def test_an_operator_for_a_machine_that_serves_nothing(tmp_path: Path) -> None:
    made = make(tmp_path, b"cpus: 2\nmemory: 1024\n")
    given = tmp_path / "operator.json"
    given.write_text("{}")
    error = refused(run(made.directory, "--harness", f"--operator={given}", "--dry-run", *both(made)))
    assert "the config has no services" in error.message


def test_json(made: Made, tmp_path: Path) -> None:
    arguments: list[str | Path] = ["--firmware", tmp_path / "OVMF.fd", "--dry-run", "--json"]
    result = run(made.directory, *arguments, *both(made))
    assert result.exit_code == 0, result.output
    value = json.loads(result.stdout)
    assert value["form"] == "production"
    assert value["command_line"] == made.manifest.command_line
    assert str(tmp_path / "OVMF.fd") in value["arguments"]


@pytest.mark.parametrize("style", ["{path}", "{name}={path}"])
def test_volumes_in_any_order_are_told_by_content(made: Made, style: str) -> None:
    given = [style.format(name=name, path=path) for name, path in reversed(made.volumes.items())]
    assert builddir.match_volumes(made.manifest, given) == made.volumes


def test_swapped_names_are_a_mismatch(made: Made) -> None:
    error = refused(run(made.directory, "--harness", "--dry-run", f"--volume=one={made.volumes['two']}"))
    assert error.exit_code == 4
    assert "not the volume one" in error.message


def test_one_flipped_bit_in_the_top_of_the_tree(made: Made) -> None:
    flip(made.volumes["two"], -1)
    error = refused(run(made.directory, "--harness", "--dry-run", *both(made)))
    assert (error.exit_code, "two.raw: not the volume one or two" in error.message) == (4, True)


def test_another_salt_is_another_volume(made: Made) -> None:
    other = [v._replace(repo=v.repo.replace("@1", "@2")) for v in made.manifest.volumes]
    write(made.directory, made.manifest._replace(volumes=tuple(other)))
    assert refused(run(made.directory, "--harness", "--dry-run", *both(made))).exit_code == 4


def test_missing_and_repeated_volumes(made: Made) -> None:
    error = refused(run(made.directory, "--harness", "--dry-run", both(made)[0]))
    assert (error.exit_code, "no file is given for two" in error.message) == (5, True)
    assert "--volume two=FILE" in error.hint
    error = refused(run(made.directory, "--harness", "--dry-run", *both(made), both(made)[0]))
    assert (error.exit_code, "the volume one is given twice" in error.message) == (5, True)


def test_a_volume_that_cannot_be_read(made: Made, tmp_path: Path) -> None:
    error = refused(run(made.directory, "--harness", "--dry-run", f"--volume={tmp_path / 'none'}"))
    assert (error.exit_code, "none: No such file" in error.message) == (6, True)
    os.mkfifo(tmp_path / "pipe")
    error = refused(run(made.directory, "--harness", "--dry-run", f"--volume={tmp_path / 'pipe'}"))
    assert (error.exit_code, "neither a file nor a block device" in error.message) == (3, True)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["vmlinuz", "initrd", "root.raw", "config.disk"])
@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda p: flip(p, 0), 4),
        (lambda p: p.write_bytes(p.read_bytes()[:-1]), 4),
        (lambda p: p.write_bytes(p.read_bytes() + b"x"), 4),
        (lambda p: p.write_bytes(b""), 4),
        (lambda p: p.unlink(), 6),
    ],
    ids=["bit", "shorter", "longer", "empty", "gone"],
)
def test_a_file_that_is_not_the_manifests(
    made: Made, name: str, change: Callable[[Path], object], code: int
) -> None:
    if name == "config.disk" and code == 4:
        # one NUL of padding less is still the same config, so cut into the content
        before = (made.directory / name).read_bytes()
        change(made.directory / name)
        if (made.directory / name).read_bytes() == before[:-1]:
            (made.directory / name).write_bytes(before[:3])
    else:
        change(made.directory / name)
    error = refused(run(made.directory, "--harness", "--dry-run", *both(made)))
    assert error.exit_code == code
    assert error.message.startswith(f"{made.directory / name}: ")
    assert error.hint


def test_manifest_errors(made: Made, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    error = refused(run(tmp_path / "empty", "--harness"))
    assert (error.exit_code, error.message.split(": ")[0]) == (6, str(tmp_path / "empty/manifest.json"))
    (made.directory / manifest.FILE).write_bytes(b"{}")
    error = refused(run(made.directory, "--harness"))
    assert (error.exit_code, "manifest.schema is missing" in error.message) == (3, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needs --firmware"),
        (["--json", "--harness"], "goes with --dry-run"),
        (["--harness", "--dry-run", "--forward", "x:1"], "is not [ADDR:]PORT:PORT"),
        (["--harness", "--dry-run", "--forward", "1"], "is not [ADDR:]PORT:PORT"),
    ],
)
def test_usage(made: Made, arguments: list[str], message: str) -> None:
    result = run(made.directory, *arguments, *both(made))
    assert (result.exit_code, message in result.stderr) == (2, True)


def test_forward(made: Made) -> None:
    ports = ["--forward", "8443:443", "--forward", "10.0.0.1:80:8080"]
    result = run(made.directory, "--harness", "--dry-run", *ports, *both(made))
    assert "hostfwd=tcp:127.0.0.1:8443-:443,hostfwd=tcp:10.0.0.1:80-:8080" in result.stdout


def test_gpu_count_and_address(made: Made) -> None:
    write(made.directory, made.manifest._replace(gpus=2))
    start: list[str | Path] = [made.directory, "--firmware", "OVMF.fd", "--dry-run", *both(made)]
    error = refused(run(*start, "--gpu", "41:00.0"))
    assert (error.exit_code, "asks for 2 GPUs, 1 are given" in error.message) == (5, True)
    result = run(*start, "--gpu", "41:00.0", "--gpu", "0000:C1:00.0")
    assert "host=0000:41:00.0" in result.stdout
    assert "host=0000:c1:00.0" in result.stdout
    assert refused(run(*start, "--gpu", "zz")).exit_code == 5
    result = run(made.directory, "--harness", "--dry-run", *both(made))
    assert result.exit_code == 0
    assert "asks for 2 GPUs" in result.stderr


def fake_qemu(path: Path, version: str) -> Path:
    path.write_text(f"#!/bin/sh\necho '{version}'\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_becomes_qemu(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = fake_qemu(tmp_path / "qemu", "QEMU emulator version 7.2.0")
    calls: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(os, "execv", lambda path, arguments: calls.append((path, arguments)))
    result = run(made.directory, "--harness", "--qemu", program, *both(made))
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    [(path, arguments)] = calls
    assert path == arguments[0] == str(program)
    assert "-accel" in arguments


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("QEMU emulator version 9.0.2", "is 9.0, the production form needs QEMU 9.1 or newer"),
        ("hello", "answers 'hello', expected a version of QEMU"),
    ],
)
def test_qemu_too_old_or_strange(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, message: str
) -> None:
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("started"))
    program = fake_qemu(tmp_path / "qemu", version)
    error = refused(run(made.directory, "--firmware", "OVMF.fd", "--qemu", program, *both(made)))
    assert (error.exit_code, message in error.message) == (6, True)


def test_no_qemu(made: Made, tmp_path: Path) -> None:
    error = refused(run(made.directory, "--harness", "--qemu", tmp_path / "none", *both(made)))
    assert (error.exit_code, "is not installed" in error.message) == (6, True)
    assert "apt install" in error.hint


def test_command_is_registered() -> None:
    assert isinstance(launch.command, click.Command)
