"""The smoke workload's container: its server on loopback, its code's answers, and what mkosi makes of it."""

from __future__ import annotations

import base64
import importlib
import json
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import oci_image
import pytest
from oci_layouts import Layout, tar
from weights import fetch

from tinboot.builder import oci_layout, places
from tinboot.formats.errors import Malformed

EXAMPLE = places.REPOSITORY / "examples" / "smoke"


class Vector(list[float]):
    """As much of an array as the server uses."""

    def astype(self, form: str) -> Vector:
        assert form == "<f4"
        return self

    def tobytes(self) -> bytes:
        return struct.pack(f"<{len(self)}f", *self)


class Encoder:
    """A text's embedding is its length and 1."""

    def __init__(self, folder: str) -> None:
        assert folder == "model"

    def encode(self, text: str) -> tuple[Vector, int]:
        return Vector([float(len(text)), 1.0]), len(text.split())


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """`embed.__main__` without numpy."""
    monkeypatch.syspath_prepend(EXAMPLE)
    stand_in = ModuleType("embed.bert")
    stand_in.Encoder = Encoder  # type: ignore[attr-defined]  # a module made up
    monkeypatch.setitem(sys.modules, "embed.bert", stand_in)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    before = set(sys.modules)
    yield importlib.import_module("embed.__main__")
    for name in set(sys.modules) - before:
        if name.startswith("embed"):
            del sys.modules[name]


Send = Callable[[bytes], bytes]


class Ended(Exception):
    """The test is over."""


@pytest.fixture
def send(program: ModuleType) -> Iterator[Send]:
    """Bytes to the server, on a connection of their own whose other direction ends; what came back."""
    http = sys.modules["embed.http"]
    service = program.Service(Encoder("model"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        ended = threading.Event()

        class Served:
            """Ends the loop with the test."""

            def accept(self) -> tuple[socket.socket, object]:
                while not ended.is_set():
                    try:
                        return listener.accept()
                    except TimeoutError:
                        continue
                raise Ended

        def serve() -> None:
            with suppress(Ended):
                http.serve(Served(), service.answer)

        server = threading.Thread(target=serve, daemon=True)
        server.start()

        def send(data: bytes) -> bytes:
            with socket.create_connection(listener.getsockname()[:2], timeout=20) as connection:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                return b"".join(iter(lambda: connection.recv(1 << 16), b""))

        yield send
        ended.set()
        server.join(20)


def request(body: bytes, *headers: str, path: str = "/v1/embeddings", method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def with_length(value: object) -> bytes:
    body = json.dumps(value).encode()
    return request(body, f"Content-Length: {len(body)}")


def answers(data: bytes) -> list[tuple[int, Any]]:
    """Status and JSON of each answer."""
    found = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        status = int(lines[0].split()[1])
        if status == 100:
            data = rest
            continue
        length = int(next(line.split(": ")[1] for line in lines if line.startswith("Content-Length")))
        found.append((status, json.loads(rest[:length])))
        data = rest[length:]
    return found


def test_embeddings(send: Send) -> None:
    ((status, found),) = answers(send(with_length({"input": ["four", "a b"], "model": "all-MiniLM-L6-v2"})))
    assert status == 200
    assert [(d["index"], d["embedding"]) for d in found["data"]] == [(0, [4.0, 1.0]), (1, [3.0, 1.0])]
    assert found["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


def test_embeddings_in_base64(send: Send) -> None:
    ((_, found),) = answers(send(with_length({"input": "four", "encoding_format": "base64", "user": "x"})))
    assert struct.unpack("<2f", base64.b64decode(found["data"][0]["embedding"])) == (4.0, 1.0)


def test_several_requests_on_one_connection(send: Send) -> None:
    health = request(b"", path="/health?x=1", method="GET")
    body = b'{"input":"four"}'
    chunked = (
        b"".join(b"%x;x=y\r\n%s\r\n" % (len(part), part) for part in (body[:5], body[5:]))
        + b"0\r\nT: 1\r\n\r\n"
    )
    parts = (
        health,
        request(chunked, "Transfer-Encoding: chunked"),
        request(body, "content-length: 16", "Expect: 100-continue"),
    )
    found = answers(send(b"".join(parts)))
    assert [status for status, _ in found] == [200, 200, 200]
    assert found[0][1] == {"status": "ok"}
    assert found[1] == found[2]


def test_close_is_close(send: Send) -> None:
    once = request(b"", "Connection: close", path="/health", method="GET")
    assert len(answers(send(once * 2))) == 1


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        (request(b"", path="/", method="GET"), 404, "nothing is at /"),
        (request(b"", path="/health", method="POST"), 405, "/health takes GET"),
        (request(b"", method="GET"), 405, "/v1/embeddings takes POST"),
        (request(b"x", "Content-Length: 1"), 400, "Expecting value"),
        (with_length([]), 400, "expected an object"),
        (with_length({"input": "x", "stream": True}), 400, "no other member"),
        (with_length({"input": "x", "model": "other"}), 400, "the model here is"),
        (with_length({"input": "x", "encoding_format": "hex"}), 400, "float or base64"),
        (with_length({"input": ""}), 400, "1 to 8192 characters"),
        (with_length({"input": "x" * 8193}), 400, "1 to 8192 characters"),
        (with_length({"input": []}), 400, "1 to 32 of them"),
        (with_length({"input": ["x"] * 33}), 400, "1 to 32 of them"),
        (with_length({"input": [1]}), 400, "1 to 8192 characters"),
        (with_length({}), 400, "input is a text"),
        (request(b"[" * 100_000, "Content-Length: 100000"), 400, "recursion"),
        (request(b"", "Content-Length: 262145"), 413, "more than 262144 bytes"),
        (request(b"40001\r\n", "Transfer-Encoding: chunked"), 413, "more than 262144 bytes"),
        (request(b"x", "Content-Length: 2"), 400, "its body is cut off"),
        (request(b"", "Content-Length: -1"), 400, "a length that is no number"),
        (request(b"", "Content-Length: 1", "Content-Length: 1"), 400, "its head is damaged"),
        (request(b"x", "Content-Length: 1", "Transfer-Encoding: chunked"), 400, "told twice"),
        (request(b"", "Transfer-Encoding: gzip"), 400, "told twice, or not at all"),
        (request(b"1\r\nxy", "Transfer-Encoding: chunked"), 400, "a chunk without its end"),
        (request(b"zz\r\n", "Transfer-Encoding: chunked"), 400, "a length that is no number"),
        (request(b"0\r\n", "Transfer-Encoding: chunked"), 400, "its end is cut off"),
        (request(b"", "no colon"), 400, "its head is damaged"),
        (request(b"", "X: " + "y" * 20_000), 400, "cut off, or too large"),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n", 400, "cut off, or too large"),
        (b"GET /health SPDY/3\r\n\r\n", 400, "no HTTP/1.1 request"),
        (b"\x16\x03\x01\x02\r\n", 400, "no HTTP/1.1 request"),
    ],
)
def test_refusals(send: Send, data: bytes, status: int, said: str) -> None:
    found = answers(send(data))
    assert [answer for answer, _ in found] == [status]
    assert said in found[0][1]["error"]["message"]
    assert answers(send(request(b"", path="/health", method="GET"))) == [(200, {"status": "ok"})]


def test_nothing_at_all(send: Send) -> None:
    assert send(b"") == b""


def test_the_one_image_of_a_layout(tmp_path: Path) -> None:
    layout = Layout()
    made = layout.image([tar([])])
    layout.entry(made)
    assert oci_image.digest(layout.write(tmp_path / "oci")) == made.digest
    layout.entry(made)
    with pytest.raises(Malformed, match="has 2 images, expected one"):
        oci_image.digest(layout.write(tmp_path / "oci"))


def test_what_the_config_starts() -> None:
    program, *arguments = oci_image.entrypoint("minilm")
    listed = (EXAMPLE / "inventory").read_text("utf-8")
    assert f"usr/bin/{'{python}'}" in listed
    assert program.startswith("/usr/bin/python3.")
    assert arguments == ["-I", "-m", "embed", "/models/minilm", "8001"]


@pytest.mark.build
def test_the_container_that_mkosi_makes() -> None:
    path = oci_image.build(lambda _line: None)
    with oci_layout.open_layout(path) as layout:
        image = oci_layout.find(layout, None, None)
    assert image.digest == oci_image.digest(path)
    assert sum(blob.size for blob in image.manifest.layers) < 40_000_000


@pytest.mark.build
def test_embeddings_are_those_that_others_compute() -> None:
    """The model's card has these sentences and their similarity to the first: 0.695, 0.943, 0.257."""
    texts = [
        "That is a happy person",
        "That is a happy dog",
        "That is a very happy person",
        "Today is a sunny day",
    ]
    first, *others = oci_image.reference(fetch(places.build_folder()), texts)
    found = [round(sum(a * b for a, b in zip(first, other, strict=True)), 3) for other in others]
    assert found == [0.695, 0.943, 0.257]
    assert sum(a * a for a in first) == pytest.approx(1, abs=1e-6)
