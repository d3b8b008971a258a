"""The RIM service: a server on loopback that answers as NVIDIA's does, and in each way that it should not."""

from __future__ import annotations

import hashlib
import http.server
import json
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fake_nvidia
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tinboot.builder import rim_service
from tinboot.formats.errors import Malformed, Unavailable

ID = "NV_GPU_DRIVER_GH100_550.90.07"
RIM = fake_nvidia.rim("driver")
TEXT = b64encode(RIM).decode()
GOOD = {
    "id": ID,
    "rim": TEXT,
    "sha256": hashlib.sha256(RIM).hexdigest(),
    "rim_format": "TCG_RIM",
    "request_id": "x",
}


class Service(http.server.ThreadingHTTPServer):
    """Gives `answers`, one after another and the last of them ever after: a status and a body each."""

    daemon_threads = True
    answers: list[tuple[int, bytes]]
    asked: list[str]
    length: int | None = None
    drip: threading.Event | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/rim"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Service

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        answers = self.server.answers
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        self.send_header(
            "Content-Length", str(len(body) if self.server.length is None else self.server.length)
        )
        if status in {301, 302}:
            self.send_header("Location", f"{self.server.url}/elsewhere")
        self.end_headers()
        if self.server.drip is not None:
            while not self.server.drip.wait(0.01):
                self.wfile.write(b" ")
        else:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("no_proxy", "*")
    with Service(("127.0.0.1", 0), Handler) as server:
        server.answers, server.asked = [(200, json.dumps(GOOD).encode())], []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Pauses(list[float]):
    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def fetch(service: Service, pauses: Pauses | None = None, identifier: str = ID, timeout: float = 5) -> bytes:
    return rim_service.fetch(
        identifier, service.url, timeout=timeout, pause=Pauses() if pauses is None else pauses
    )


def test_a_rim(service: Service) -> None:
    assert fetch(service) == RIM
    assert service.asked == [f"/v1/rim/{ID}"]
    assert rim_service.fetch(ID, service.url + "/", timeout=5) == RIM


@pytest.mark.parametrize("stated", [hashlib.sha256(TEXT.encode()).hexdigest(), GOOD["sha256"].upper(), None])
def test_what_its_sha256_may_be_of(service: Service, stated: str | None) -> None:
    service.answers = [(200, json.dumps({**GOOD, "sha256": stated}).encode())]
    assert fetch(service) == RIM


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_it_is_asked_again(service: Service, status: int) -> None:
    service.answers = [(status, b"")] * 3 + service.answers
    pauses = Pauses()
    assert fetch(service, pauses) == RIM
    assert pauses == [1, 2, 4]


def test_and_no_more(service: Service) -> None:
    service.answers = [(503, b"")]
    with pytest.raises(Unavailable, match=f"/v1/rim/{ID}: HTTP 503, 4 times") as caught:
        fetch(service)
    assert "give the RIM as a file" in caught.value.hint
    assert len(service.asked) == 4


@pytest.mark.parametrize("status", [301, 302, 400, 401, 403, 404, 410])
def test_answers_that_stay(service: Service, status: int) -> None:
    service.answers = [(status, b"")]
    with pytest.raises(Unavailable, match=f"HTTP {status}"):
        fetch(service)
    assert len(service.asked) == 1


def test_a_version_that_it_does_not_have(service: Service) -> None:
    service.answers = [(404, b'{"error_code":"RIM Not Found"}')]
    with pytest.raises(Unavailable) as caught:
        fetch(service)
    assert "is the version spelled as NVIDIA does?" in caught.value.hint


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "is no JSON"),
        (b"<html>", "is no JSON"),
        (b"\xff", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b"[]", "has no RIM in it"),
        (b"{}", "has no RIM in it"),
        ({**GOOD, "rim": 7}, "has no RIM in it"),
        (
            {**GOOD, "id": "NV_GPU_DRIVER_GH100_550.90.08"},
            "answered with 'NV_GPU_DRIVER_GH100_550.90.08', asked",
        ),
        ({**GOOD, "id": None}, "answered with 'None', asked for"),
        ({**GOOD, "rim": "-"}, "is no base64"),
        ({**GOOD, "rim": "\N{BULLET}"}, "is no base64"),
        ({**GOOD, "sha256": "00"}, "does not have the SHA-256 that its answer states"),
        ({**GOOD, "rim": b64encode(bytes(1 << 19)).decode(), "sha256": None}, "has 524288 bytes"),
        (b" " * ((1 << 20) + 1), "an answer of more than 1048576 bytes"),
    ],
)
def test_answers_that_are_none(service: Service, answer: object, message: str) -> None:
    service.answers = [(200, answer if isinstance(answer, bytes) else json.dumps(answer).encode())]
    with pytest.raises(Malformed, match=message):
        fetch(service)
    assert len(service.asked) == 1


def test_an_answer_that_ends_too_soon(service: Service) -> None:
    service.length = 1 << 16
    service.answers = [(200, b"x")]
    with pytest.raises(Unavailable, match=r"an answer that ends 65535 bytes too soon, 4 times"):
        fetch(service, timeout=0.2)


def test_an_answer_that_never_ends(service: Service) -> None:
    """Each byte comes in time, all of them never."""
    service.length = 1 << 19
    service.drip = threading.Event()
    with pytest.raises(Unavailable, match=r"no answer within 0.2 seconds, 4 times"):
        fetch(service, timeout=0.2)
    service.drip.set()


@pytest.mark.parametrize("trusted", [True, False])
def test_https(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    start = datetime.now(UTC) - timedelta(days=1)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, start, start + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "server.pem").write_bytes(pem + certificate.public_bytes(Encoding.PEM))
    (tmp_path / "empty.pem").touch()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    service.socket = context.wrap_socket(service.socket, server_side=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / ("server.pem" if trusted else "empty.pem")))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    url = f"https://localhost:{service.server_port}/v1/rim"
    pauses = Pauses()
    if trusted:
        assert rim_service.fetch(ID, url, timeout=5, pause=pauses) == RIM
    else:
        with pytest.raises(Unavailable, match=r"/v1/rim/NV_.*certificate"):
            rim_service.fetch(ID, url, timeout=5, pause=pauses)
    assert pauses == []


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    pauses = Pauses()
    with pytest.raises(Unavailable, match="Connection refused, 4 times"):
        rim_service.fetch(ID, f"http://127.0.0.1:{port}", timeout=5, pause=pauses)
    assert len(pauses) == 3


def test_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_name(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    pauses = Pauses()
    with pytest.raises(Unavailable, match="Name or service not known") as caught:
        rim_service.fetch(ID, timeout=5, pause=pauses)
    assert "give the RIM as a file" in caught.value.hint
    assert pauses == []


@pytest.mark.parametrize(
    "url",
    ["", "x", "file:///etc", "ftp://a.example/b", "http:", "http://a.example/?x", "http://a.example/#x"],
)
def test_what_is_no_service(url: str) -> None:
    with pytest.raises(Malformed, match="is no http or https URL"):
        rim_service.fetch(ID, url)


def test_what_is_no_id(service: Service) -> None:
    with pytest.raises(Malformed, match="is not the id of a GPU's RIM"):
        fetch(service, identifier="../ids")
    assert service.asked == []
