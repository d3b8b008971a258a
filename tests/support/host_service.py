"""The guest's services on this machine: evidence server, gateway, and HAProxy by the guest's configuration.

    with Service(folder, chain) as service:
        service.server, service.measurement        what a client has to know

Of another guest are the report, which the stub's chip signs for this process, and where things lie.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from hashlib import sha256, sha384
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

import stub_report
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from ehbp_world import World, receive_request
from foreign_client import Roots, Server
from psp import Chain
from stub_chain import MARK
from stub_report import Contents, sign

from tinboot.formats import config, servicesettings
from tinboot.formats.servicesettings import Settings
from tinboot.formats.snpreport import FirmwareVersion
from tinboot.guest import attestation, ehbp, ehbp_gateway, identity, proxy_config, report
from tinboot.guest.attestation import Program
from tinboot.guest.ehbp_exchange import Settings as GatewaySettings
from tinboot.guest.endpoints import Places
from tinboot.guest.evidence import Evidence

CONFIG = b"cvm-version: 0.1.0\ncpus: 2\nmemory: 1024\nshim:\n  upstream-port: 8080\n  paths:\n    - /v1/*\n"

MEASUREMENT = sha384(b"a guest on the host").digest()

#: What the client that is not ours demands beside its floors of the TCB: TSME, and a build of 21 or later.
_VERSION = FirmwareVersion(1, 58, 21)
CONTENTS = Contents(
    platform_info=stub_report.PLATFORM_INFO | 1 << 1,
    current_version=_VERSION,
    committed_version=_VERSION,
    measurement=MEASUREMENT,
)

_DEADLINE = 20.0


def answer(body: bytes) -> bytes:
    """What the workload answers."""
    return json.dumps({"sha256": sha256(body).hexdigest(), "size": len(body)}).encode()


def workload(connection: socket.socket) -> None:
    body = answer(receive_request(connection).body)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)


class Service:
    """A context manager. `folder` is empty; `chain` signs the report, whose other fields are `contents`.

    `hpke`: the gateway's key, in the place of that which the report binds. `upstream`: another workload.
    """

    def __init__(
        self,
        folder: Path,
        chain: Chain,
        contents: Contents = CONTENTS,
        hpke: X25519PrivateKey | None = None,
        upstream: tuple[str, int] | None = None,
    ) -> None:
        self.folder = folder
        self.chain = chain
        self.contents = contents
        self.hpke = hpke
        self.world = World(workload)
        self.upstream = upstream or self.world.settings.upstream
        self.port = _free_port()
        self._children: list[int] = []
        self._proxy: subprocess.Popen[bytes] | None = None

    @property
    def roots(self) -> Roots:
        return Roots(self.chain.ark, self.chain.ask, self.chain.vcek, MARK)

    @property
    def processes(self) -> tuple[int, int]:
        """HAProxy's, and the evidence server's."""
        assert self._proxy is not None
        return self._proxy.pid, self._children[0]

    @property
    def server(self) -> Server:
        """By the first name of its certificate, which is authority enough for itself."""
        certificate = ssl.get_server_certificate(("127.0.0.1", self.port))
        names = x509.load_pem_x509_certificate(certificate.encode()).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
        return Server(names.value.get_values_for_type(x509.DNSName)[0], self.port, certificate)

    def __enter__(self) -> Self:
        self.world.__enter__()
        try:
            self._evidence()
            self._gateway()
            self._haproxy()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        if self._proxy is not None:
            self._proxy.terminate()
            self._proxy.wait(_DEADLINE)
        for child in self._children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        self.world.__exit__(None, None, None)

    def _evidence(self) -> None:
        sealed, kept = self.folder / "sealed", self.folder / "identity"
        for made in (sealed, kept):
            made.mkdir()
        (sealed / "boot.json").write_bytes(b'{"cmdline": "x", "hooks": [], "ms": 9}\n')
        settings = self.folder / "service.json"
        settings.write_bytes(servicesettings.render(Settings(0, "hopper", True, workload=False)))
        places = Places(sealed, self.folder / "report", self.folder / "status.json")
        program = Program(settings, kept, self.folder / "attestation.sock", places)

        def collect(report_data: bytes) -> Evidence:
            contents = self.contents._replace(report_data=report_data)
            return Evidence("sev-guest", sign(contents.pack(), self.chain.key), b"")

        def serve() -> None:
            report.collect = collect
            attestation.prepare(program).serve()

        self._start(serve, program.socket)

    def _gateway(self) -> None:
        path = self.folder / "ehbp.sock"
        key = ehbp.private_key((self.folder / "identity" / identity.HPKE_FILE).read_bytes())
        settings = GatewaySettings(self.hpke or key, self.world.settings.upstream)
        self._start(lambda: ehbp_gateway.serve(ehbp_gateway.listen(path), settings, 64, 64 << 20), path)

    def _haproxy(self) -> None:
        shim = config.load(CONFIG).shim
        assert shim is not None
        text = proxy_config.render(shim, self.upstream, cpus=2, memory=1024, readiness=None)
        for guests, ours in (
            ("0.0.0.0:443", f"127.0.0.1:{self.port}"),
            (proxy_config.ATTESTATION, f"unix@{self.folder}/attestation.sock"),
            (proxy_config.EHBP, f"unix@{self.folder}/ehbp.sock"),
        ):
            assert guests in text
            text = text.replace(guests, ours)
        file = self.folder / "proxy.cfg"
        file.write_text(text)
        own = {"CREDENTIALS_DIRECTORY": os.fspath(self.folder / "identity"), "PATH": os.defpath}
        self._proxy = subprocess.Popen(["/usr/sbin/haproxy", "-db", "-q", "-f", file], env=own)
        _until(lambda: _connects(self.port))

    def _start(self, work: Callable[[], None], path: Path) -> None:
        child = os.fork()
        if child == 0:
            _run(work)
        self._children.append(child)
        _until(path.exists)


def _run(work: Callable[[], None]) -> NoReturn:
    try:
        work()
    finally:
        os._exit(1)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DEADLINE
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.02)
