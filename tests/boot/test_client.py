"""Our own client and a booted guest of ours with two GPUs: verified, talked to both ways, refused."""

from __future__ import annotations

import json
import shutil
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import boot_logs
import forwarding
import pytest
import stub_gpu_files
from click.testing import CliRunner, Result
from foreign_client import Server
from gpu import Gpus
from gpu_faults import good
from guest import make_guest
from psp import Psp
from serial_log import Outcome
from stand_in import WORKLOAD
from stub_gpu_files import DEVICE_ROOT, VALUES
from tls_relay import Relay

from tinboot.cli import inspect, request, verify
from tinboot.formats.errors import Mismatch, Refused, TinbootError

if TYPE_CHECKING:
    import click
    from guest import Wrapped

    from tinboot.builder import image

DEADLINE = 180.0
NAME = "guest.example"
COMPLETE = "/.well-known/attestation/complete-attestation.json"


class Booted(NamedTuple):
    """A guest that serves, and what it is held to, as options of the commands."""

    port: int
    reached: tuple[str, ...]
    measurement: tuple[str, ...]
    gpus: tuple[str, ...]
    roots: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.reached, *self.measurement, *self.gpus, *self.roots)


@pytest.fixture(scope="module")
def booted(
    release: image.Image,
    wrapped: tuple[Wrapped, Wrapped],
    firmware: Path,
    request: pytest.FixtureRequest,
) -> Iterator[Booted]:
    """One for the tests of this file, under the production firmware: its measurement is of what started."""
    failed = request.session.testsfailed
    logs = boot_logs.empty(f"{__file__}::booted", boot_logs.ROOT)
    with ExitStack() as stack:
        disks = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tinboot-disks-")))
        gpus, psp = stack.enter_context(Gpus(good())), stack.enter_context(Psp())
        known = stub_gpu_files.known(datetime.now(UTC))
        shim = ("shim:", "  upstream-port: 8080", "  paths: [/v1/echo]")
        guest = make_guest(release, wrapped, logs, disks).with_gpus(gpus, known, disks, *shim)
        guest = replace(guest.with_hook("86-workload", WORKLOAD), firmware=firmware, ports=(443,))
        machine = stack.enter_context(guest.machine(psp=psp))
        event = machine.wait(DEADLINE)
        assert event.outcome is Outcome.UP, event
        for name, data in (("ark", psp.chain.ark), ("root", known[DEVICE_ROOT]), ("values", known[VALUES])):
            (disks / name).write_bytes(data)
        port = forwarding.port(machine, 443)
        yield Booted(
            port,
            ("--connect", f"127.0.0.1:{port}", "--offline", "--timeout", str(DEADLINE)),
            ("--measurement", psp.measurement.hex()),
            ("--gpus", "2", "--gpu-reference-values", f"{disks}/values", "--gpu-architecture", "hopper"),
            ("--trust-root", f"{disks}/ark", "--trust-gpu-root", f"{disks}/root"),
        )
    if request.session.testsfailed == failed:
        shutil.rmtree(logs)


def run(command: click.Command, *words: str, stdin: bytes = b"") -> Result:
    done = CliRunner().invoke(command, [NAME, *words], input=stdin)
    if done.exception is not None and not isinstance(done.exception, SystemExit | TinbootError):
        raise done.exception
    return done


def test_it_is_verified(booted: Booted) -> None:
    done = run(verify.command, *booted.all, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["accepted"]
    asked = [*found["connection"], *found["checks"]]
    assert {check["id"] for check in asked if check["verdict"] != "pass"} == set()
    assert len(found["gpus"]["gpus"]) == 2
    assert found["cpu"]["claims"]["measurement"] == booted.measurement[1]


@pytest.mark.parametrize("ehbp", [(), ("--ehbp",)], ids=["tls", "ehbp"])
def test_it_is_talked_to(booted: Booted, ehbp: tuple[str, ...]) -> None:
    done = run(request.command, "/v1/echo", "-d", "-", *booted.all, *ehbp, stdin=b"a secret")
    assert done.exit_code == 0, done.output
    assert done.stdout_bytes == b"a secret"
    assert "verified guest.example" in done.stderr


def test_it_is_refused_with_the_right_check(booted: Booted) -> None:
    others = {
        "measurement": (*booted.reached, "--measurement", "00" * 48, *booted.gpus, *booted.roots),
        "count": (*booted.reached, *booted.measurement, "--gpus", "3", *booted.gpus[2:], *booted.roots),
        "gpu-evidence": (*booted.reached, *booted.measurement, "--no-gpus", *booted.roots[:2]),
        "root-pinned": (*booted.reached, *booted.measurement, *booted.gpus, *booted.roots[:2]),
    }
    for check, words in others.items():
        done = run(verify.command, *words)
        assert isinstance(done.exception, Refused | Mismatch), check
        assert f"{check}: " in done.exception.message


def test_a_relay_reads_nothing(booted: Booted) -> None:
    certificate = ssl.get_server_certificate(("127.0.0.1", booted.port), timeout=DEADLINE)
    with Relay(Server(NAME, booted.port, certificate)) as relay:
        connect = ("--connect", f"127.0.0.1:{relay.server.port}", *booted.reached[2:])
        words = (*connect, *booted.measurement, *booted.gpus, *booted.roots)
        done = run(request.command, "/v1/echo", "-d", "a secret", *words)
    assert isinstance(done.exception, Mismatch)
    assert "tls-key: " in done.exception.message
    assert b"a secret" not in relay.read


def test_it_is_shown(booted: Booted, tmp_path: Path) -> None:
    done = run(request.command, COMPLETE, *booted.all)
    assert done.exit_code == 0, done.output
    (tmp_path / "complete.json").write_bytes(done.stdout_bytes)
    words = ["--json", *booted.roots]
    shown = CliRunner().invoke(inspect.command, [str(tmp_path / "complete.json"), *words])
    assert shown.exit_code == 0, shown.output
    assert '"verdict": "fail"' not in shown.stdout
    assert run(inspect.command, *booted.reached[:2], *booted.roots).exit_code == 0
