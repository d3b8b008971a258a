"""Evidence for a nonce from a guest that serves: of its PSP and two GPUs; none once they misbehave."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import shutil
import ssl
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import boot_logs
import forwarding
import pytest
import stub_gpu_files
from boot import finish
from gpu import Gpus
from gpu_faults import failing, good, hanging
from guest import make_guest
from psp import GOOD, REQUEST, Behaviour, Psp
from serial_log import Outcome

from tinboot.formats import (
    attestationdocument,
    completeattestation,
    cryptomaterial,
    deviceevidence,
    gpureport,
    halt,
    snpreport,
)

if TYPE_CHECKING:
    from guest import Guest, Wrapped
    from machine import Machine

    from tinboot.builder import image

#: Seconds for anything from an emulated guest on a loaded machine.
DEADLINE = 180.0

#: How often a request comes back that was one too many: all of these come from one address.
TURNS = 10

DOCUMENT = "/.well-known/tinfoil-attestation"
COMPLETE = "/.well-known/attestation/complete-attestation.json"
LIVE = "/.well-known/livez"


@dataclass(frozen=True, slots=True)
class Served:
    """A guest that serves, and whom it asks."""

    machine: Machine
    psp: Psp
    gpus: Gpus | None

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body, over a connection of its own; comes back when it is told to."""
        for _ in range(TURNS):
            status, after, body = self._get(path)
            if status != 429:
                break
            time.sleep(int(after))
        return status, body

    def _get(self, path: str) -> tuple[int, str, bytes]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        port = forwarding.port(self.machine, 443)
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=DEADLINE, context=context)
        try:
            connection.request("GET", path, headers={"Host": "guest.example"})
            answer = connection.getresponse()
            return answer.status, answer.getheader("Retry-After", ""), answer.read()
        finally:
            connection.close()


@contextmanager
def booted(guest: Guest, psp: Psp) -> Iterator[Served]:
    with guest.machine(psp=psp) as machine:
        event = machine.wait(DEADLINE)
        assert event.outcome is Outcome.UP, event
        yield Served(machine, psp, guest.gpus)


@pytest.fixture(scope="module")
def served(
    release: image.Image, wrapped: tuple[Wrapped, Wrapped], request: pytest.FixtureRequest
) -> Iterator[Served]:
    """One for the tests of this file, with two GPUs, reports by /dev/sev-guest."""
    failed = request.session.testsfailed
    logs = boot_logs.empty(f"{__file__}::served", boot_logs.ROOT)
    with ExitStack() as stack:
        disks = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tinboot-disks-")))
        gpus, psp = stack.enter_context(Gpus(good())), stack.enter_context(Psp())
        guest = make_guest(release, wrapped, logs, disks)
        guest = guest.with_gpus(gpus, stub_gpu_files.known(datetime.now(UTC)), disks, *SHIM)
        yield stack.enter_context(booted(replace(guest, ports=(443,)), psp))
    if request.session.testsfailed == failed:
        shutil.rmtree(logs)


SHIM = ("shim:", "  upstream-port: 8080")


@pytest.fixture(autouse=True)
def well(request: pytest.FixtureRequest) -> None:
    """What a test broke is whole again for the next."""
    if "served" in request.fixturenames:
        served: Served = request.getfixturevalue("served")
        served.psp.behaviour = GOOD
        assert served.gpus is not None
        served.gpus.faults = good()


def nonce(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def test_every_gpu_reports_on_the_callers_nonce(served: Served) -> None:
    asked = nonce("a caller's")
    status, body = served.get(f"{DOCUMENT}?nonce={asked.hex()}")
    assert status == 200, body
    document = attestationdocument.parse_v3(body)
    assert document.nonce == asked
    assert snpreport.parse(document.report).report_data == document.report_data
    gpus = deviceevidence.parse(document.device_evidence)
    assert [gpureport.parse(gpu.evidence).nonce for gpu in gpus] == [asked, asked]
    assert gpus[0].certificate != gpus[1].certificate
    assert [entry.id for entry in document.collateral] == ["cpu-endorsement"]
    assert served.psp.asked[-1] == document.report_data


def test_each_nonce_is_asked_for_anew(served: Served) -> None:
    assert served.gpus is not None
    asked = nonce("the same")
    for times in (1, 2):
        before = len(served.psp.asked)
        status, body = served.get(f"{DOCUMENT}?nonce={asked.hex()}")
        assert status == 200, body
        assert len(served.psp.asked) > before
        assert served.gpus.nonces.count(asked) == 2 * times


def test_one_document_has_all_of_it(served: Served) -> None:
    asked = nonce("for everything")
    status, body = served.get(f"{COMPLETE}?nonce={asked.hex()}")
    assert status == 200, body
    found = completeattestation.parse(body)
    assert found.challenged is not None
    assert found.challenged.nonce == asked
    material = cryptomaterial.parse(found.challenged.crypto_material)
    assert snpreport.parse(found.document.report).report_data == material.tls + material.hpke
    assert found.hpke == material.hpke
    assert b"upstream-port: 8080" in found.config
    sealed = {hook["hook"]: hook["found"] for hook in json.loads(found.boot.sealed)["hooks"]}
    assert {gpu.nonce.hex() for gpu in found.gpus} == {sealed["40-gpu"]["nonce"]}


@pytest.mark.parametrize(
    "behaviour",
    [Behaviour(firmware_error=0x16), Behaviour(report_data=bytes(64)), Behaviour(size=1183)],
    ids=["refuses", "another's report", "cut"],
)
def test_a_psp_that_misbehaves_gives_no_document(served: Served, behaviour: Behaviour) -> None:
    """Nor an older one; and the next that is well does."""
    served.psp.behaviour = behaviour
    path = f"{DOCUMENT}?nonce={nonce('refused').hex()}"
    status, body = served.get(path)
    assert status == 503
    assert json.loads(body)["title"] == "Service Unavailable"
    assert served.get(LIVE)[0] == 200
    served.psp.behaviour = GOOD
    assert served.get(path)[0] == 200


def test_a_gpu_that_fails_gives_no_document(served: Served) -> None:
    assert served.gpus is not None
    served.gpus.faults = failing("nvmlDeviceGetConfComputeGpuAttestationReport@1")
    assert served.get(f"{DOCUMENT}?nonce={nonce('lost').hex()}")[0] == 503
    assert "no evidence: gpu-nvml-failed" in served.machine.log.read_text(errors="replace")


def test_a_gpu_that_hangs_costs_one_deadline(served: Served) -> None:
    """Others are served meanwhile, and after it all are. The stub has one port: either GPU's call is late."""
    assert served.gpus is not None
    served.gpus.faults = hanging("nvmlDeviceGetConfComputeGpuAttestationReport@1")
    path = f"{DOCUMENT}?nonce={nonce('hangs').hex()}"
    assert served.get(path)[0] == 503
    said = served.machine.log.read_text(errors="replace")
    assert re.search("nvmlDeviceGetConfComputeGpuAttestationReport of GPU [01] did not come back", said)
    assert served.get(LIVE)[0] == 200
    served.gpus.faults = good()
    assert served.get(path)[0] == 200


def test_reports_by_configfs(guest: Guest, disk_dir: Path) -> None:
    with (
        Psp() as psp,
        booted(replace(guest.with_service(disk_dir), interface="tsm"), psp) as served,
    ):
        status, body = served.get(f"{DOCUMENT}?nonce={nonce('configfs').hex()}")
        assert status == 200, body
        assert attestationdocument.parse_v3(body).report_data == psp.asked[-1]


class Once(Psp):
    """Reports the boot, and refuses whatever is asked then."""

    def answer(self, request: bytes) -> bytes | None:
        if len({*self.asked, REQUEST.unpack(request)[1]}) > 1:
            self.behaviour = Behaviour(firmware_error=0x16)
        return super().answer(request)


def test_without_a_report_of_its_keys_the_machine_ends(guest: Guest, disk_dir: Path) -> None:
    with Once() as psp, guest.with_service(disk_dir).machine(psp=psp) as machine:
        event = machine.wait(DEADLINE)
        result = finish(machine, event, seconds=60)
    ended = [halt.parse(line) for line in result.lines() if line.startswith(halt.PREFIX)]
    assert [(one.hook, one.reason) for one in ended] == [("attestation", "report-refused")]
    assert result.exit.by_itself
    assert len(set(psp.asked)) == 2
