"""A container registry on this machine, as far as a pull by digest asks it (OCI Distribution Spec 1.1)."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@contextmanager
def serving(blobs: Mapping[str, bytes]) -> Iterator[int]:
    """`blobs`: what is sent for a digest, right or not. Yields the port of 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            what, digest = self.path.rstrip("/").split("/")[-2:]
            data = b"" if self.path == "/v2/" else blobs.get(digest)
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Type", MANIFEST if what == "manifests" else "application/octet-stream")
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data or b"")

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
