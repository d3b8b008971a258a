"""The service from outside: what answers, under which paths, over which TLS; and what cannot disturb it."""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import boot_logs
import forwarding
import pytest
from arguments import Disk
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from guest import make_guest
from hostile_disks import from_bytes
from serial_log import Outcome
from stand_in import LOOK, WORKLOAD

from tinboot.formats import attestationdocument, bootlog, operatorinput, snpreport

if TYPE_CHECKING:
    from guest import Guest, Wrapped
    from machine import Machine

    from tinboot.builder import image

#: Seconds for anything from an emulated guest on a loaded machine.
DEADLINE = 120.0

DOCUMENT = "/.well-known/tinfoil-attestation"
PROBLEM = "application/problem+json"

#: What systemd would take for credentials, units, a machine id or a host name, were it asked to.
HOSTILE = [
    *("-smbios", "type=1,uuid=11111111-2222-3333-4444-555555555555,serial=EVIL,sku=EVIL"),
    *("-smbios", "type=11,value=io.systemd.credential:system.hostname=EVIL"),
    *("-smbios", "type=11,value=io.systemd.credential:system.machine_id=66666666666666666666666666666666"),
    *("-smbios", "type=11,value=io.systemd.credential.binary:systemd.extra-unit.evil.service=RVZJTA=="),
    *("-smbios", "type=11,value=io.systemd.credential:systemd.unit-dropin.tinboot-proxy.service=EVIL"),
    *("-smbios", "type=11,value=io.systemd.credential:tls.pem=EVIL"),
    *("-smbios", "type=11,value=io.systemd.credential:vmm.notify_socket=EVIL"),
    *("-smbios", "type=11,value=EVIL"),
    *("-fw_cfg", "name=opt/io.systemd.credentials/system.machine_id,string=" + "6" * 32),
    *("-fw_cfg", "name=opt/io.systemd.credentials/systemd.extra-unit.e.service,string=EVIL"),
    *("-fw_cfg", "name=opt/io.systemd.credentials/tls.pem,string=EVIL"),
    *("-fw_cfg", "name=opt/io.systemd.credentials/hpke.key,string=EVIL"),
]


@dataclass(frozen=True, slots=True)
class Answer:
    """`head`: header names in lower case."""

    status: int
    head: dict[str, str]
    body: bytes

    @property
    def problem(self) -> str:
        """The type of a problem, or an AssertionError."""
        assert self.head["content-type"] == PROBLEM, self
        return str(json.loads(self.body)["type"])


@dataclass(frozen=True, slots=True)
class Served:
    """A guest that serves, and the port that leads to it."""

    machine: Machine
    port: int

    def connect(self, version: ssl.TLSVersion | None = None, *protocols: str) -> ssl.SSLSocket:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the key is compared with what the evidence says
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if protocols:
            context.set_alpn_protocols(list(protocols))
        plain = socket.create_connection(("127.0.0.1", self.port), DEADLINE)
        try:
            return context.wrap_socket(plain, server_hostname="guest.example")
        except BaseException:
            plain.close()
            raise

    def get(self, path: str, *headers: str, method: str = "GET") -> Answer:
        with self.connect() as connection:
            connection.sendall(request(path, *headers, method=method))
            return answer(connection)

    def spki(self) -> bytes:
        with self.connect() as connection:
            certificate = x509.load_der_x509_certificate(connection.getpeercert(True) or b"")
        key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(key).digest()


def request(path: str, *headers: str, method: str = "GET") -> bytes:
    lines = (f"{method} {path} HTTP/1.1", "Host: guest.example", *headers, "Connection: close", "", "")
    return "\r\n".join(lines).encode("latin-1")


def answer(connection: socket.socket) -> Answer:
    """Until the connection ends."""
    data = b""
    while part := connection.recv(65536):
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    return Answer(int(status.split()[1]), {name.lower(): value for name, _, value in pairs}, body)


@pytest.fixture(scope="module")
def served(
    release: image.Image, wrapped: tuple[Wrapped, Wrapped], request: pytest.FixtureRequest
) -> Iterator[Served]:
    """One for the tests of this file: a hostile host, a workload that is no container."""
    failed = request.session.testsfailed
    logs = boot_logs.empty(f"{__file__}::served", boot_logs.ROOT)
    with ExitStack() as stack:
        disks = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tinboot-disks-")))
        guest = make_guest(release, wrapped, logs, disks)
        guest = guest.with_service(disks, "paths: [/v1/echo, /static/*]", "origins: [https://a.example]")
        guest = guest.with_hook("86-workload", WORKLOAD).with_hook("87-look", LOOK)
        yield stack.enter_context(booted(guest, extra=HOSTILE))
    if request.session.testsfailed == failed:
        shutil.rmtree(logs)


@contextmanager
def booted(guest: Guest, *, extra: list[str]) -> Iterator[Served]:
    with guest.machine(extra=extra) as machine:
        event = machine.wait(DEADLINE)
        assert event.outcome is Outcome.UP, event
        yield Served(machine, forwarding.port(machine, 443))


def said(served: Served, prefix: str) -> str:
    """The line of a hook that begins with `prefix`, which may not be there yet."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        for line in served.machine.log.read_text(errors="replace").splitlines():
            if line.startswith(prefix):
                return line.removeprefix(prefix)
        time.sleep(0.2)
    raise AssertionError(f"the guest did not say {prefix!r}: {served.machine.log}")


def test_nothing_listens_before_the_gates_passed(served: Served) -> None:
    there = ast.literal_eval(said(served, "late-open: "))
    assert there == ["tinboot-report/report", "tinboot-identity/tls.pem"]


def test_nothing_of_the_host_reaches_the_root_or_a_service(served: Served) -> None:
    look = ast.literal_eval(said(served, "late-look: "))
    assert look["ports"] == [443, 8080]  # the second is the stand-in's
    assert (look["host"], look["id"]) == ("tinboot", True)
    assert look["credentials"] == ["tinboot-ehbp.service", "tinboot-proxy.service"]
    assert look["evil"] == []


def test_the_connections_key_is_the_attested_one(served: Served) -> None:
    got = served.get(DOCUMENT)
    assert (got.status, got.head["content-type"]) == (200, "application/json")
    report = snpreport.parse(attestationdocument.parse_v2(got.body).report)
    assert report.report_data[:32] == served.spki()


def test_evidence_for_a_nonce(served: Served) -> None:
    nonce = bytes(range(32))
    got = served.get(f"{DOCUMENT}?nonce={nonce.hex()}")
    document = attestationdocument.parse_v3(got.body)
    assert document.nonce == nonce
    assert snpreport.parse(document.report).report_data == document.report_data


def test_older_tls_is_refused(served: Served) -> None:
    with pytest.raises(ssl.SSLError, match="alert protocol version"):
        served.connect(ssl.TLSVersion.TLSv1_2)


@pytest.mark.parametrize(
    ("offered", "chosen"), [(("h2", "http/1.1"), "h2"), (("http/1.1",), "http/1.1"), ((), None)]
)
def test_protocols(served: Served, offered: tuple[str, ...], chosen: str | None) -> None:
    with served.connect(None, *offered) as connection:
        assert connection.version() == "TLSv1.3"
        assert connection.selected_alpn_protocol() == chosen


def test_plain_http_is_none(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), DEADLINE) as connection:
        connection.sendall(request(DOCUMENT))
        assert not connection.recv(4096).startswith(b"HTTP/1.1 2")


@pytest.mark.parametrize(
    "path", ["/v1/echo", "/v1/echo?q=%2e%2e//", "/static/a", "/static/a%20b", "/static/"]
)
def test_allowed_paths_reach_the_workload_as_they_are(served: Served, path: str) -> None:
    got = served.get(path)
    assert got.status == 200
    assert got.body.startswith(f"GET {path} HTTP/1.1\r\n".encode())
    assert "server" not in got.head


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 404),
        ("/v1/echo/", 404),
        ("/v1/echo2", 404),
        ("/V1/echo", 404),
        ("/static", 404),
        ("/.well-known", 404),
        ("/.Well-Known/tinfoil-attestation", 404),
        ("/.well-known/nothing", 404),
        ("/static/../v1/models", 400),
        ("/static/./a", 400),
        ("/static/..", 400),
        ("/static/..;/v1/models", 400),
        ("/static//a", 400),
        ("/static/%2e%2e/v1/models", 400),
        ("/static/%2E./v1/models", 400),
        ("/static/a%2fb", 400),
        ("/static/a%5cb", 400),
        ("/static/a\\b", 400),
        ("/static/%252e%252e/v1", 400),
        ("/static/%00", 400),
        ("/static/%zz", 400),
        ("/static/%", 400),
        ("//.well-known/tinfoil-attestation", 400),
        ("/%2ewell-known/tinfoil-attestation", 400),
        ("/.well-known%2ftinfoil-attestation", 400),
        ("/static/../.well-known/tinfoil-attestation", 400),
        ("/.well-known/../v1/echo", 400),
        ("/%76%31/echo", 400),
    ],
)
def test_no_other_spelling_reaches_anything(served: Served, path: str, status: int) -> None:
    got = served.get(path)
    assert got.status == status, got
    assert got.head["content-type"] == PROBLEM
    assert "server" not in got.head


@pytest.mark.parametrize("method", ["CONNECT", "TRACE"])
def test_methods_that_nobody_serves(served: Served, method: str) -> None:
    path = "guest.example:443" if method == "CONNECT" else "/v1/echo"
    assert served.get(path, method=method).status in (400, 405)


@pytest.mark.parametrize("value", ["", " ", "00", "z" * 64])
def test_a_key_in_the_header_leads_to_decryption_and_never_to_the_workload(
    served: Served, value: str
) -> None:
    got = served.get("/v1/echo", f"Ehbp-Encapsulated-Key: {value}", "Content-Length: 0", method="POST")
    assert 400 <= got.status < 500
    assert got.head["content-type"] == PROBLEM
    assert b"POST /v1/echo" not in got.body


def test_the_evidence_server_is_never_told_of_keys(served: Served) -> None:
    assert served.get(DOCUMENT, "Ehbp-Encapsulated-Key: 00").status == 200


def test_bodies_flow_both_ways_at_once(served: Served) -> None:
    """Each piece is back before the next one is sent."""
    with served.connect() as connection:
        head = request("/v1/echo", "Transfer-Encoding: chunked", method="POST")
        connection.sendall(head)
        data = b""
        for piece in (b"one", b"two" * 1000, b"three"):
            connection.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            while not data.endswith(piece + b"\r\n"):
                part = connection.recv(65536)
                assert part, data
                data += part
        connection.sendall(b"0\r\n\r\n")
        assert connection.recv(65536).endswith(b"0\r\n\r\n")


def test_only_the_configs_origins_may_read(served: Served) -> None:
    preflight = ("Access-Control-Request-Method: POST", "Origin: https://a.example")
    got = served.get("/v1/echo", *preflight, method="OPTIONS")
    assert (got.status, got.head["access-control-allow-origin"]) == (204, "https://a.example")
    assert served.get(DOCUMENT, preflight[1]).head["access-control-allow-origin"] == "https://a.example"
    assert "access-control-allow-origin" not in served.get("/v1/echo", "Origin: https://b.example").head


@pytest.mark.parametrize(
    "headers",
    [
        tuple(f"X-{number}: x" for number in range(200)),
        ("X: " + "x" * 60000,),
        ("Content-Length: 5", "Content-Length: 6"),
        ("Content-Length: 5", "Transfer-Encoding: chunked, identity"),
        ("Transfer-Encoding: gzip",),
        ("X y: z",),
        ("Host: other.example",),
    ],
    ids=["many", "long", "two lengths", "two framings", "coding", "space", "two hosts"],
)
def test_requests_that_are_none(served: Served, headers: tuple[str, ...]) -> None:
    got = served.get("/v1/echo", *headers, method="POST")
    assert got.status in (400, 501), got
    assert served.get("/v1/echo").status == 200


def test_slow_requests_end_and_hold_nobody_up(served: Served) -> None:
    """More of them than the proxy lets in at a time would have to be there to hold others up."""
    with ExitStack() as stack:
        slow = [stack.enter_context(served.connect()) for _ in range(8)]
        for connection in slow:
            connection.sendall(b"GET /v1/echo HTTP/1.1\r\nHost: guest.exam")
        assert served.get("/v1/echo").status == 200
        for connection in slow:
            assert answer(connection).status == 408


def test_a_flood_of_nonces_leaves_the_workload_alone(served: Served) -> None:
    """Some are answered, the rest are told to come later, none is left without an answer."""
    path = f"{DOCUMENT}?nonce={'ab' * 32}"
    with ExitStack() as stack:
        flood = [stack.enter_context(served.connect()) for _ in range(80)]
        for connection in flood:
            connection.sendall(request(path))
        assert [served.get("/v1/echo").status for _ in range(5)] == [200] * 5
        statuses = {answer(connection).status for connection in flood}
    assert 200 in statuses
    assert statuses <= {200, 429, 503}


def test_a_workload_that_ended_is_not_ready_and_the_evidence_is_there(served: Served) -> None:
    """The last test with this guest: the stand-in does not come back."""
    assert served.get("/static/exit").status in (502, 503)
    gone = served.get("/v1/echo")
    assert (gone.status, gone.problem) == (503, "urn:tinboot:error:not-ready")
    assert served.get(DOCUMENT).status == 200


def halts(guest: Guest, reason: str, *, operator: bytes | None = None, folder: Path) -> None:
    disks = guest.disks
    if operator is not None:
        disks.append(Disk(from_bytes(operator, folder), bootlog.OPERATOR_SERIAL))
    guest.boot(disks=disks).expect_halt(reason, hook="prepare")


class TestRefusals:
    """Of tinboot-prepare: each ends the machine before a packet comes in."""

    def test_a_config_that_asks_for_more_than_there_is(self, guest: Guest, disk_dir: Path) -> None:
        halts(guest.with_service(disk_dir, "tls-mode: acme"), "config-unsupported", folder=disk_dir)

    def test_no_network_device(self, guest: Guest, disk_dir: Path) -> None:
        alone = replace(guest.with_service(disk_dir), ports=())
        halts(alone, "network-missing", folder=disk_dir)

    def test_an_operator_who_is_not_understood(self, guest: Guest, disk_dir: Path) -> None:
        halts(guest.with_service(disk_dir), "operator-malformed", operator=b"{]".ljust(512), folder=disk_dir)

    def test_an_operator_who_says_too_much(self, guest: Guest, disk_dir: Path) -> None:
        given = operatorinput.pad(b'{"env":{"LD_PRELOAD":"/evil.so"}}')
        halts(guest.with_service(disk_dir), "operator-undeclared", operator=given, folder=disk_dir)

    def test_an_operator_who_says_too_little(self, guest: Guest, disk_dir: Path) -> None:
        image = "localhost/app@sha256:" + "0" * 64
        container = f"containers:\n  - {{name: app, image: {image!r}, secrets: [KEY]}}\n"
        asking = guest.with_service(disk_dir, "paths: [/*]")
        asking = replace(asking.with_config(asking.config + container.encode(), disk_dir), ports=(443,))
        halts(asking, "operator-missing", folder=disk_dir)

    def test_two_operators(self, guest: Guest, disk_dir: Path) -> None:
        given = Disk(from_bytes(operatorinput.pad(b"{}"), disk_dir), bootlog.OPERATOR_SERIAL)
        asking = guest.with_service(disk_dir)
        asking.boot(disks=[*asking.disks, given, given]).expect_halt("operator-duplicate", hook="30-volumes")

    def test_an_operator_where_nothing_is_served(self, guest: Guest, disk_dir: Path) -> None:
        given = Disk(from_bytes(operatorinput.pad(b"{}"), disk_dir), bootlog.OPERATOR_SERIAL)
        guest.boot(disks=[*guest.disks, given]).expect_halt("disk-unexpected", hook="30-volumes")


def test_an_address_of_the_operators(guest: Guest, disk_dir: Path) -> None:
    """QEMU's user network takes any address of its net, and forwards to the one that it gives out."""
    given = operatorinput.pad(b'{"network":{"address":"10.0.2.15/24","gateway":"10.0.2.2"}}')
    asking = guest.with_service(disk_dir)
    disks = [*asking.disks, Disk(from_bytes(given, disk_dir), bootlog.OPERATOR_SERIAL)]
    with asking.machine(disks) as machine:
        event = machine.wait(DEADLINE)
        assert event.outcome is Outcome.UP, event
        assert Served(machine, forwarding.port(machine, 443)).get(DOCUMENT).status == 200
