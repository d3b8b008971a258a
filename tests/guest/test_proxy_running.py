"""HAProxy by the guest's file, on this machine: what reaches the server behind it, and what does not."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import h2.connection
import h2.events
import httpx
import pytest
import served_guest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from ehbp_world import GIVE_UP

from tinboot.formats.config_schema import Shim
from tinboot.guest import http1, proxy_config

HAPROXY = "/usr/sbin/haproxy"

pytestmark = pytest.mark.skipif(shutil.which(HAPROXY) is None, reason="HAProxy is not installed")


class Behind:
    """One server in the place of each of the three: it answers with its name, and remembers request lines."""

    def __init__(self, name: str, listener: socket.socket) -> None:
        self.name = name
        self.seen: list[str] = []
        self.listener = listener
        listener.listen(64)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                data = b""
                while http1.END not in data and (part := connection.recv(65536)):
                    data += part
                if data:
                    self.seen.append(data.decode("latin-1"))
                    answer = f"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n{self.name}"
                    connection.sendall(answer.encode())


class Proxy:
    """`workload`, `attestation` and `ehbp` are behind it."""

    def __init__(self, folder: Path) -> None:
        self.workload = Behind("w", _bound(socket.AF_INET, ("127.0.0.1", 0)))
        self.attestation = Behind("a", _bound(socket.AF_UNIX, str(folder / "a")))
        self.ehbp = Behind("e", _bound(socket.AF_UNIX, str(folder / "e")))
        with _bound(socket.AF_INET, ("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        guest = served_guest.Guest()
        key = guest.tls.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / "tls.pem").write_bytes(guest.certificate() + key)
        shim = Shim(8080, paths=("/v1/chat", "/static/*"))
        address = self.workload.listener.getsockname()
        text = proxy_config.render(shim, address, cpus=1, memory=256, readiness=None)
        for guests, ours in (
            ("0.0.0.0:443", f"127.0.0.1:{self.port}"),
            (proxy_config.ATTESTATION, f"unix@{folder}/a"),
            (proxy_config.EHBP, f"unix@{folder}/e"),
        ):
            text = text.replace(guests, ours)
        (folder / "proxy.cfg").write_text(text)
        own = {"CREDENTIALS_DIRECTORY": os.fspath(folder), "PATH": os.defpath}
        self._process = subprocess.Popen([HAPROXY, "-db", "-q", "-f", folder / "proxy.cfg"], env=own)
        self._await()

    def _await(self) -> None:
        deadline = time.monotonic() + GIVE_UP
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert self._process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            else:
                return

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(GIVE_UP)
        for behind in (self.workload, self.attestation, self.ehbp):
            behind.listener.close()

    def connect(self, *protocols: str) -> ssl.SSLSocket:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(list(protocols))
        plain = socket.create_connection(("127.0.0.1", self.port), GIVE_UP)
        try:
            return context.wrap_socket(plain)
        except BaseException:
            plain.close()
            raise

    def ask(self, target: str, *fields: str, method: str = "GET") -> tuple[int, str]:
        """Status and body."""
        lines = (f"{method} {target} HTTP/1.1", "Host: guest.example", *fields, "", "")
        with self.connect() as connection:
            connection.sendall("\r\n".join(lines).encode("latin-1"))
            data = b""
            while http1.END not in data or data.endswith(http1.END):
                if not (part := connection.recv(65536)):
                    break
                data += part
        head, _, body = data.partition(http1.END)
        return int(head.split()[1]), body.decode()


def _bound(family: socket.AddressFamily, address: tuple[str, int] | str) -> socket.socket:
    made = socket.socket(family)
    made.bind(address)
    return made


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    made = Proxy(tmp_path_factory.mktemp("p"))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def fresh(proxy: Proxy) -> None:
    for behind in (proxy.workload, proxy.attestation, proxy.ehbp):
        behind.seen.clear()


def test_who_answers(proxy: Proxy) -> None:
    assert proxy.ask("/v1/chat") == (200, "w")
    assert proxy.ask("/static/a?b=/../c") == (200, "w")
    assert proxy.ask("/.well-known/hpke-keys") == (200, "a")
    assert proxy.ask("/v1/chat", "Ehbp-Encapsulated-Key: 00") == (200, "e")
    assert proxy.ask("/v1/chat", "EHBP-ENCAPSULATED-KEY:") == (200, "e")
    assert proxy.ask("/.well-known/hpke-keys", "Ehbp-Encapsulated-Key: 00") == (200, "a")


@pytest.mark.parametrize(
    "target",
    [
        *("http://guest.example/v1/chat", "https://guest.example/static/a", "foo:///v1/chat"),
        *("http://a@b:c@guest.example/v1/chat", "http://guest.example/.well-known/hpke-keys", "*"),
        *(
            "//v1/chat",
            "/static//a",
            "/static/../v1/other",
            "/static/%2e%2e/x",
            "/static/..;/x",
            "/static/%2f",
        ),
        *("/static/%2f", "/static/%5c", "/static/%00", "/static/a%25b", "/static/%c0%ae", "/static/%C1%9c"),
        *("/v1/other", "/V1/chat", "/v1/chat/", "/v1/chat;x"),
        *("/.WELL-KNOWN/hpke-keys", "/.well-known", "/.well-known;/hpke-keys", "/.well-known%2fhpke-keys"),
        *("/.well-known/../v1/chat", "/static/../.well-known/hpke-keys"),
    ],
)
def test_another_spelling_reaches_nobody(proxy: Proxy, target: str) -> None:
    for more in ((), ("Ehbp-Encapsulated-Key: 00",)):
        assert proxy.ask(target, *more)[0] in {400, 404}
    assert [*proxy.workload.seen, *proxy.attestation.seen, *proxy.ehbp.seen] == []


def test_http_2_is_held_to_the_same(proxy: Proxy) -> None:
    with httpx.Client(http2=True, verify=False, base_url=f"https://127.0.0.1:{proxy.port}") as talk:  # noqa: S501 - the rules, not the key
        answers = [talk.get(path) for path in ("/v1/chat?a=b", "/static//a", "/v1/other", "/.well-known/x")]
    assert {answer.http_version for answer in answers} == {"HTTP/2"}
    assert [answer.status_code for answer in answers] == [200, 400, 404, 200]
    assert [len(behind.seen) for behind in (proxy.workload, proxy.attestation)] == [1, 1]
    assert proxy.workload.seen[0].startswith("GET /v1/chat?a=b HTTP/1.1")


@pytest.mark.parametrize(("scheme", "reached"), [("https", 1), ("foo", 0), ("http", 0)])
def test_http_2_has_one_scheme(proxy: Proxy, scheme: str, reached: int) -> None:
    talk = h2.connection.H2Connection()
    talk.initiate_connection()
    fields = {":method": "GET", ":scheme": scheme, ":authority": "guest.example", ":path": "/v1/chat"}
    talk.send_headers(1, list(fields.items()), end_stream=True)
    status = ""
    with proxy.connect("h2") as connection:
        while not status:
            connection.sendall(talk.data_to_send())
            for event in talk.receive_data(connection.recv(65536)):
                if isinstance(event, h2.events.ResponseReceived):
                    status = dict(event.headers or ())[b":status"].decode()
    assert (status, len(proxy.workload.seen)) == ("200" if reached else "400", reached)
    assert all(request.startswith("GET /v1/chat HTTP/1.1") for request in proxy.workload.seen)


def test_an_old_request_has_no_chunks(proxy: Proxy) -> None:
    head = "POST /v1/chat HTTP/1.0\r\nHost: guest.example\r\n"
    with proxy.connect() as connection:
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n".encode())
        assert connection.recv(12) == b"HTTP/1.1 400"
    assert proxy.workload.seen == []


WEBSOCKET = "Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw=="


@pytest.mark.parametrize(
    "protocol",
    [
        *("h2c", "h2c, websocket", "websocket, h2c", "websocket\r\nUpgrade: h2c", "TLS/1.3", "foo"),
        *("websocket/13", "websocket, websocket"),
    ],
)
def test_no_upgrade_leads_to_what_is_not_looked_at(proxy: Proxy, protocol: str) -> None:
    """RFC 7540, 3.2: a server that takes it would be asked for any path after that. Newer HAProxys strike
    h2c out themselves.
    """
    settings = ("Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABk")
    status, _ = proxy.ask("/v1/chat", f"Upgrade: {protocol}", *settings, WEBSOCKET)
    for request in proxy.workload.seen:
        assert "h2c" in protocol
        assert not re.search("^upgrade:(?! websocket\r$)", request, re.MULTILINE | re.IGNORECASE)
    assert status == 400 or proxy.workload.seen


def test_web_sockets_do(proxy: Proxy) -> None:
    assert proxy.ask("/v1/chat", "Upgrade: WebSocket", "Connection: Upgrade", WEBSOCKET) == (200, "w")
    assert "upgrade: websocket" in proxy.workload.seen[0].lower()
