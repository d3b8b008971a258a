"""The evidence server as a program, over its socket, with a stub PSP; and all that ends the machine."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import stub_chain
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from stub_report import Contents, sign

from tinboot.formats import (
    attestationdocument,
    bootstages,
    cryptomaterial,
    dcode,
    halt,
    hpkekeys,
    servicesettings,
    snpreport,
)
from tinboot.formats.halt import Halt, Refusal
from tinboot.formats.servicesettings import Settings
from tinboot.guest import attestation, collector, http_request, http_server, report
from tinboot.guest.attestation import Program
from tinboot.guest.endpoints import ATTESTATION, WELL_KNOWN, Places
from tinboot.guest.evidence import BadAnswer, Busy, DeviceError, Evidence, NoAnswer, NoDevice

KEY = stub_chain.chip_key()
SEALED = b'{"cmdline": "x", "hooks": [], "ms": 9}\n'
UNIT = (
    Path(__file__).parents[2]
    / "mkosi.images/root/mkosi.extra/usr/lib/systemd/system/tinboot-attestation.service"
)


def psp(report_data: bytes) -> Evidence:
    return Evidence("sev-guest", sign(Contents(report_data=report_data).pack(), KEY), b"")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    monkeypatch.setattr(report, "collect", psp)
    places = Places(tmp_path / "sealed", tmp_path / "report", tmp_path / "status.json")
    made = Program(tmp_path / "service.json", tmp_path / "identity", tmp_path / "http.sock", places)
    for folder in (places.sealed, made.identity):
        folder.mkdir()
    (places.sealed / "boot.json").write_bytes(SEALED)
    made.settings.write_bytes(servicesettings.render(Settings(0, "hopper", True, False)))
    return made


@pytest.fixture
def served(program: Program) -> Iterator[Path]:
    """The socket of a server that runs."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            server = attestation.prepare(program)
            os.write(writer, b"1")
            server.serve()
        finally:
            os._exit(1)
    os.close(writer)
    assert os.read(reader, 1) == b"1"
    os.close(reader)
    yield program.socket
    assert os.waitpid(process, os.WNOHANG) == (0, 0)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


def get(path: Path, target: str) -> bytes:
    """The body of a 200."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(60)
        client.connect(str(path))
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        data = b""
        while part := client.recv(65536):
            data += part
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), data
    return body


def test_everything_hangs_together(served: Path, program: Program) -> None:
    """The document binds the keys, the certificate names the document, and the proxy gets that very key."""
    document = attestationdocument.parse_v2(get(served, ATTESTATION))
    pem = json.loads(get(served, WELL_KNOWN + "tinfoil-certificate"))["certificate"]
    certificate = x509.load_pem_x509_certificate(pem.encode())
    spki = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    hpke = hpkekeys.parse(get(served, WELL_KNOWN + "hpke-keys"))
    assert snpreport.parse(document.report).report_data == hashlib.sha256(spki).digest() + hpke
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    listed = names.get_values_for_type(x509.DNSName)
    assert dcode.decode(listed, dcode.HASH_DOMAIN).decode() == attestationdocument.document_hash(document)
    assert dcode.decode(listed, dcode.HPKE_DOMAIN) == hpke
    assert (program.identity / "tls.pem").read_text().startswith(pem)
    nonce = hashlib.sha256(b"a caller's").hexdigest()
    fresh = attestationdocument.parse_v3(get(served, f"{ATTESTATION}?nonce={nonce}"))
    assert fresh.nonce.hex() == nonce
    assert snpreport.parse(fresh.report).report_data == fresh.report_data
    material = cryptomaterial.parse(fresh.crypto_material)
    assert (material.tls, material.hpke) == (hashlib.sha256(spki).digest(), hpke)


def test_stages_end_where_it_serves(served: Path) -> None:
    found = bootstages.parse(get(served, WELL_KNOWN + "tinfoil-boot-stages"))
    assert {stage.status for stage in found.stages} == {"ok", "skipped"}


def test_the_socket_is_for_its_group(served: Path) -> None:
    assert served.stat().st_mode & 0o777 == 0o660


def test_a_socket_that_is_there_already_is_not_taken_over(program: Program) -> None:
    program.socket.touch()
    with pytest.raises(OSError, match="in use"):
        attestation.prepare(program)


class Ended(Exception):
    """`halt` was called."""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NoDevice("why"), "report-unavailable"),
        (Busy("why"), "report-busy"),
        (NoAnswer("why"), "report-timeout"),
        (DeviceError("why"), "report-refused"),
        (BadAnswer("why"), "report-malformed"),
        (Refusal("report-mismatch", "why"), "report-mismatch"),
        (FileNotFoundError("why"), "attestation-failed"),
        (SystemExit("why"), "attestation-failed"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_each_end_is_the_machines(monkeypatch: pytest.MonkeyPatch, error: BaseException, reason: str) -> None:
    said = []

    def end(ended: Halt) -> None:
        said.append(halt.line(ended))
        raise Ended

    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(attestation, "halt", end)
    monkeypatch.setattr(attestation, "prepare", fail)
    before = os.umask(0o022)
    try:
        with pytest.raises(Ended):
            attestation.main()
    finally:
        os.umask(before)
    assert halt.parse(said[0])[:2] == ("attestation", reason)
    assert "why" in said[0]


def test_the_unit() -> None:
    """What the page says of it, and that nothing of it can be left out by a slip."""
    lines = UNIT.read_text("ascii").splitlines()
    for line in (
        "FailureAction=poweroff-immediate",
        "ConditionPathExists=/run/tinboot-prepared/proxy.cfg",
        "CapabilityBoundingSet=",
        "LimitCORE=0",
        "MemoryMax=256M",
        "TasksMax=64",
        "PrivateNetwork=yes",
        "RestrictAddressFamilies=AF_UNIX",
    ):
        assert line in lines
    assert not re.search("(?m)^Restart=", "\n".join(lines))  # other keys than those that were reported


PAGE = " ".join((Path(__file__).parents[2] / "docs/service.md").read_text("utf-8").split())


def test_docs_state_the_limits() -> None:
    connections, collections = http_server.Limits(), collector.Limits()
    for words in (
        f"{connections.connections} of them, each with {http_request.MAX_HEAD >> 10} KiB of a request",
        f"{connections.idle:g} seconds idle, {connections.request:g} for a request",
        f"{connections.answer:g} to take an answer",
        f"not whole {connections.request:g} seconds after its first byte",
        f"a target of more than {http_request.MAX_TARGET >> 10} KiB",
        "at most eight in the queue, two a second and eight at once",
        f"A collection has {collections.deadline:g} seconds and five more for each GPU",
        "256 MiB and 64 tasks",
    ):
        assert words in PAGE, words
    assert (collections.queue, collections.rate, collections.burst) == (8, 2, 8)


def exposed() -> dict[str, str]:
    page = (Path(__file__).parents[2] / "docs/service.md").read_text("utf-8").partition("| exposure |")[2]
    return dict(re.findall(r"^\| `(tinboot-[a-z]+\.service)` \| ([0-9.]+) \|$", page, re.MULTILINE))


@pytest.mark.parametrize("unit", exposed())
def test_docs_state_the_exposure(unit: str) -> None:
    """By a program that looks at the unit alone; it may know of fewer dangers, or of more, than ours does."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    words = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT.with_name(unit))]
    told = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", told)
    assert found is not None, told
    assert abs(float(found[1]) - float(exposed()[unit])) < 0.5


def test_what_it_imports() -> None:
    """In the guest each module costs 5 ms, and each is trusted: no large one, and NVML when it is needed."""
    words = "import sys, tinboot.guest.attestation; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    found = told.stdout.split()
    assert "tinboot.guest.endpoints" in found
    assert not {"asyncio", "http.server", "ssl", "email", "pynvml", "yaml", "logging"} & set(found)
    assert not [name for name in found if name.startswith(("cryptography.x509", "tinboot.verify"))]
