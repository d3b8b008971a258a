"""A made-up guest behind a real socket: TLS 1.3, evidence of the fake AMD and NVIDIA, one place to break it.

    with Host(Guest(gpus=2)) as host:
        client.verify(host.origin, …)
        host.seen                       what reached it, beside the evidence that was asked for

A test replaces one field of `Guest`, or the answer to one path (`Host.answers`), or everything after the TLS
handshake (`Host.instead`).
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

import fake_amd
import fake_gpus
import stub_nvidia
import stub_report
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID
from fake_amd import NOW
from stub_gpu_report import Contents as GpuContents

from tinboot.client.fetch import Origin
from tinboot.formats import (
    attestationcollateral,
    attestationdocument,
    cryptomaterial,
    deviceevidence,
    hpkekeys,
    reportdata,
)
from tinboot.formats.attestationcollateral import Collateral, Vcek
from tinboot.formats.gpuevidence import GpuEvidence
from tinboot.formats.snptcb import GENOA

MEASUREMENT = bytes(range(48))
DAY = timedelta(days=1)

EVIDENCE = "/.well-known/tinfoil-attestation"
HPKE_KEYS = "/.well-known/hpke-keys"
CERTIFICATE = "/.well-known/tinfoil-certificate"

_TLS: dict[int, ec.EllipticCurvePrivateKey] = {}
_HPKE: dict[int, X25519PrivateKey] = {}


def tls_key(number: int = 0) -> ec.EllipticCurvePrivateKey:
    """One for each number, the same as long as the process lives."""
    return _TLS.setdefault(number, ec.generate_private_key(ec.SECP384R1()))


def hpke_key(number: int = 0) -> X25519PrivateKey:
    return _HPKE.setdefault(number, X25519PrivateKey.generate())


def spki_sha256(key: ec.EllipticCurvePrivateKey) -> bytes:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return digest.finalize()


class Guest(NamedTuple):
    """What a guest says of itself. `bound_nonce`: what goes into REPORT_DATA in place of the caller's."""

    tls: ec.EllipticCurvePrivateKey = tls_key()
    hpke: X25519PrivateKey = hpke_key()
    stated_tls: bytes | None = None  # 32 bytes; None: of `tls`
    stated_hpke: bytes | None = None
    measurement: bytes = MEASUREMENT
    gpus: int = 0
    contents: stub_report.Contents = stub_report.Contents()
    bound_nonce: bytes | None = None
    gpu_nonce: bytes | None = None
    change_gpus: Callable[[list[GpuEvidence]], list[GpuEvidence]] = list
    collateral: tuple[Collateral, ...] | None = None  # None: the chip's certificate and the chain
    not_before: datetime = NOW - DAY
    not_after: datetime = NOW + DAY

    @property
    def hpke_public(self) -> bytes:
        return self.hpke.public_key().public_bytes_raw()

    def certificate(self) -> bytes:
        """PEM, self-signed."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "guest.example")])
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.tls.public_key())
            .serial_number(7)
            .not_valid_before(self.not_before)
            .not_valid_after(self.not_after)
            .sign(self.tls, hashes.SHA384())
        )
        return made.public_bytes(Encoding.PEM)

    def gpu_evidence(self, nonce: bytes) -> list[GpuEvidence]:
        own = self.gpu_nonce or nonce
        made = [
            fake_gpus.evidence(GpuContents(nonce=own), stub_nvidia.chain("HOPPER", number))
            for number in range(self.gpus)
        ]
        return self.change_gpus(made)

    def report(self, report_data: bytes) -> bytes:
        contents = self.contents._replace(report_data=report_data, measurement=self.measurement)
        return fake_amd.report(contents).raw

    def document(self, nonce: bytes) -> bytes:
        """v3."""
        stated = (
            self.stated_tls or spki_sha256(self.tls),
            self.stated_hpke or self.hpke_public,
        )
        crypto = cryptomaterial.render(cryptomaterial.CryptoMaterial(*stated))
        device = deviceevidence.render(self.gpu_evidence(nonce))
        report = self.report(reportdata.v3(self.bound_nonce or nonce, crypto, device))
        collateral = endorsements() if self.collateral is None else self.collateral
        made = attestationdocument.compose_v3(nonce, report, crypto, device, collateral)
        return attestationdocument.render_v3(made)

    def document_v2(self) -> bytes:
        report = self.report(reportdata.v2(spki_sha256(self.tls), self.hpke_public))
        return attestationdocument.render_v2(report)


@cache
def issuers() -> tuple[bytes, bytes]:
    """The fake AMD's ASK and ARK, DER: the same ones every time, though signatures have a salt."""
    amd = fake_amd.authority(GENOA)
    return amd.issue(amd.ask()), amd.issue(amd.ark())


@cache
def vcek() -> bytes:
    """Of the stub chip, DER."""
    return fake_amd.authority(GENOA).issue(fake_amd.vek_form())


def endorsements(vek: bytes | None = None) -> tuple[Collateral, ...]:
    """`vek`, or that of the stub chip, with its issuers."""
    chain = stub_nvidia.pem([*issuers()]).decode()
    return (attestationcollateral.of_vcek(Vcek(vek or vcek(), chain)),)


def published(guest: Guest) -> bytes:
    """What /.well-known/tinfoil-certificate answers."""
    return json.dumps({"certificate": guest.certificate().decode()}).encode()


def revocation_list(*serials: int) -> bytes:
    amd = fake_amd.authority(GENOA)
    return amd.revoke(amd.revocations(*serials))


class Request(NamedTuple):
    """`headers`: names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def nonce(self) -> bytes | None:
        found = parse_qs(urlsplit(self.target).query).get("nonce")
        return bytes.fromhex(found[0]) if found else None


class Answer(NamedTuple):
    body: bytes
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()

    def pack(self) -> bytes:
        lines = [f"HTTP/1.1 {self.status} x", f"Content-Length: {len(self.body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


Respond = Callable[[Request], Answer]


class Host:
    """Serves until the context ends. `connections`: how many were accepted."""

    def __init__(self, guest: Guest | None = None, *, tls: bool = True) -> None:
        self.guest = guest or Guest()
        self.answers: dict[str, Respond] = {}
        self.instead: Callable[[socket.socket], object] | None = None
        self.context = server_context(self.guest) if tls else None
        self.seen: list[Request] = []
        self.connections = 0
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]

    @property
    def origin(self) -> Origin:
        return Origin("127.0.0.1", self.port)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:  # the first is the one that starts the others
            thread.join()
        self._listening.close()

    def stopped(self, seconds: float = 0.0) -> bool:
        """For `instead`: waits so long, or until the test is over."""
        return self._stop.wait(seconds)

    def _start(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stop.is_set():
            if not select.select([self._listening], [], [], 0.05)[0]:
                continue
            with contextlib.suppress(OSError):
                accepted = self._listening.accept()[0]
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as proxies do
                self.connections += 1
                self._start(lambda sock=accepted: self._serve(sock))  # type: ignore[misc]  # bound now

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), contextlib.ExitStack() as stack:
            stack.enter_context(sock)
            sock.settimeout(0.05)
            if self.context is not None:
                sock.settimeout(5)
                sock = stack.enter_context(self.context.wrap_socket(sock, server_side=True))
                sock.settimeout(0.05)
            if self.instead is not None:
                self.instead(sock)
                return
            buffer = bytearray()
            while (request := self._request(sock, buffer)) is not None:
                self.seen.append(request)
                sock.settimeout(5)
                sock.sendall(self._answer(request).pack())
                sock.settimeout(0.05)

    def _request(self, sock: socket.socket, buffer: bytearray) -> Request | None:
        while b"\r\n\r\n" not in buffer:
            if not self._more(sock, buffer):
                return None
        head, _, rest = bytes(buffer).partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        buffer[:] = rest
        if headers.get("transfer-encoding") == "chunked":
            body = self._chunks(sock, buffer)
        else:
            body = self._take(sock, buffer, int(headers.get("content-length", "0")))
        return None if body is None else Request(method, target, headers, body)

    def _chunks(self, sock: socket.socket, buffer: bytearray) -> bytes | None:
        body = b""
        while True:
            while b"\r\n" not in buffer:
                if not self._more(sock, buffer):
                    return None
            size = int(buffer.partition(b"\r\n")[0], 16)
            del buffer[: buffer.index(b"\r\n") + 2]
            chunk = self._take(sock, buffer, size + 2)
            if chunk is None:
                return None
            body += chunk[:-2]
            if not size:
                return body

    def _take(self, sock: socket.socket, buffer: bytearray, length: int) -> bytes | None:
        while len(buffer) < length:
            if not self._more(sock, buffer):
                return None
        taken = bytes(buffer[:length])
        del buffer[:length]
        return taken

    def _more(self, sock: socket.socket, buffer: bytearray) -> bool:
        while not self._stop.is_set():
            try:
                data = sock.recv(65536)
            except TimeoutError:
                continue
            buffer += data
            return bool(data)
        return False

    def _answer(self, request: Request) -> Answer:
        if (respond := self.answers.get(request.path)) is not None:
            return respond(request)
        if request.path == EVIDENCE:
            nonce = request.nonce
            return Answer(self.guest.document_v2() if nonce is None else self.guest.document(nonce))
        if request.path == HPKE_KEYS:
            return Answer(hpkekeys.render(self.guest.hpke_public))
        if request.path == CERTIFICATE:
            return Answer(published(self.guest))
        return Answer(b"answer to " + request.body)


def server_context(guest: Guest) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    key = guest.tls.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with tempfile.TemporaryDirectory() as folder:  # OpenSSL takes both from files
        path = Path(folder, "both.pem")
        path.write_bytes(guest.certificate() + key)
        context.load_cert_chain(path)
    return context
