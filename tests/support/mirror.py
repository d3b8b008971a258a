"""A mirror on the loopback interface, with the ways in which real ones fail."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tinboot.builder.lockfile import Kind, Lock, Package

#: What to do about a request for a path, instead of sending its file.
Fault = Callable[[BaseHTTPRequestHandler, bytes], None]


def package(name: str, version: str = "1.0", *, archive: Kind = "debian") -> Package:
    """A package whose file holds `content(name)`."""
    digest = hashlib.sha256(content(name)).hexdigest()
    return Package(name, version, "all", digest, archive, f"pool/main/{name[0]}/{name}_{version}_all.deb")


def content(name: str) -> bytes:
    return f"package {name}\n".encode() * 1000


def lock(*names: str) -> Lock:
    return Lock("debian", "trixie", "20261125T040357Z", tuple(map(package, sorted(names))))


class Mirror:
    """`files`: URL path -> bytes. `faults`: URL path -> Fault. `asked`: paths, in order."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, Fault] = {}
        self.asked: list[str] = []
        self.uri = ""

    def add(self, lock: Lock) -> None:
        self.files |= {f"/debian/{p.path}": content(p.name) for p in lock.packages}

    def fail(self, package: Package, fault: Fault) -> None:
        self.faults[f"/debian/{package.path}"] = fault


def wrong_bytes(request: BaseHTTPRequestHandler, data: bytes) -> None:
    """The right length, the wrong content: what a mirror has that replaced a file."""
    send(request, bytes(len(data)))


def cut(request: BaseHTTPRequestHandler, data: bytes) -> None:
    """Half of what was promised, then the end of the connection."""
    request.send_response(200)
    request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    request.wfile.write(data[: len(data) // 2])
    request.close_connection = True


def broken(request: BaseHTTPRequestHandler, data: bytes) -> None:
    request.send_error(503)


def send(request: BaseHTTPRequestHandler, data: bytes) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    request.wfile.write(data)


@contextmanager
def serve() -> Iterator[Mirror]:
    mirror = Mirror()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            mirror.asked.append(self.path)
            if self.path not in mirror.files:
                self.send_error(404)
            else:
                mirror.faults.get(self.path, send)(self, mirror.files[self.path])

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    mirror.uri = f"http://127.0.0.1:{server.server_port}/debian"
    try:
        yield mirror
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
