"""PyPI's `tinfoil`, a client that is not ours, and a guest of ours that booted: what it accepts and refuses.

More of the same, on this machine without a boot: tests/client/test_foreign_client.py.
"""

from __future__ import annotations

import json
import shutil
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import boot_logs
import forwarding
import pytest
from cryptography import x509
from foreign_client import Mode, Roots, Server, Told, ask
from guest import make_guest
from host_service import CONTENTS
from psp import Behaviour, Psp
from serial_log import Outcome
from stand_in import WORKLOAD
from stub_chain import MARK
from tls_relay import Relay

if TYPE_CHECKING:
    from guest import Wrapped

    from tinboot.builder import image

DEADLINE = 180.0
PATH = "/v1/echo"
BODY = json.dumps({"input": "a secret"}).encode()


class Booted:
    """A guest that serves. `server`: by the first name of its certificate, which only it can have."""

    def __init__(self, port: int, psp: Psp) -> None:
        certificate = ssl.get_server_certificate(("127.0.0.1", port), timeout=DEADLINE)
        names = x509.load_pem_x509_certificate(certificate.encode()).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
        self.server = Server(names.value.get_values_for_type(x509.DNSName)[0], port, certificate)
        self.roots = Roots(psp.chain.ark, psp.chain.ask, psp.chain.vcek, MARK)
        self.measurement = psp.measurement

    def ask(self, mode: Mode, measurement: bytes | None = None) -> Told:
        return ask(self.server, self.roots, measurement or self.measurement, mode, BODY, PATH)


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
        guest = make_guest(release, wrapped, logs, disks).with_service(disks, f"paths: [{PATH}]")
        guest = replace(guest.with_hook("86-workload", WORKLOAD), firmware=firmware)
        psp = stack.enter_context(Psp(Behaviour(CONTENTS)))
        machine = stack.enter_context(guest.machine(psp=psp))
        event = machine.wait(DEADLINE)
        assert event.outcome is Outcome.UP, event
        yield Booted(forwarding.port(machine, 443), psp)
    if request.session.testsfailed == failed:
        shutil.rmtree(logs)


@pytest.mark.parametrize("mode", ["tls", "ehbp"])
def test_it_accepts_and_is_answered(booted: Booted, mode: Mode) -> None:
    told = booted.ask(mode)
    assert told.refused == ""
    assert told.steps["verify_enclave"] == told.steps["compare_measurements"] == "success"
    if mode == "tls":  # the stand-in answers with the head where a body is counted, and echoes one in chunks
        assert told.answer.startswith(b"POST /v1/echo HTTP/1.1\r\n")
    else:
        assert json.loads(told.answer)["input"] == "a secret"


def test_it_refuses_another_measurement(booted: Booted) -> None:
    told = booted.ask("ehbp", bytes(48))
    assert "SNP measurement mismatch" in told.refused
    assert told.answer == b""


def test_it_refuses_another_tls_key(booted: Booted) -> None:
    with Relay(booted.server) as relay:
        told = ask(relay.server, booted.roots, booted.measurement, "tls", BODY, PATH)
    assert "Certificate fingerprint mismatch" in told.refused
    assert b"a secret" not in relay.read


def test_with_encrypted_bodies_who_relays_reads_none(booted: Booted) -> None:
    with Relay(booted.server) as relay:
        told = ask(relay.server, booted.roots, booted.measurement, "ehbp", BODY, PATH)
    assert told.refused == ""
    assert json.loads(told.answer)["input"] == "a secret"
    assert b"a secret" not in relay.read
