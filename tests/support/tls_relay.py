"""Somebody in the middle: ends TLS with a certificate of his own, and passes on what he has read."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import tempfile
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from foreign_client import Server

_DAY = timedelta(days=1)


class Relay:
    """A context manager. `server`: under the guest's name, with a certificate that its clients trust.

    `read`: every byte that came from clients, once TLS was off it.
    """

    def __init__(self, guest: Server) -> None:
        self.read = b""
        self._guest = guest
        self._listener = socket.create_server(("127.0.0.1", 0))
        key, certificate = _self_signed(guest.name)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:  # OpenSSL takes both from a file
            both = Path(folder, "both.pem")
            both.write_bytes(certificate + key)
            self._context.load_cert_chain(both)
        port: int = self._listener.getsockname()[1]
        self.server = Server(guest.name, port, guest.certificates + certificate.decode())
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(20)

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(accepted,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, accepted: socket.socket) -> None:
        unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
        with contextlib.suppress(OSError), accepted:
            accepted.settimeout(20)
            onward = socket.create_connection(("127.0.0.1", self._guest.port), 20)
            with (
                self._context.wrap_socket(accepted, server_side=True) as client,
                unchecked.wrap_socket(onward) as guest,
            ):
                self._pass_on(client, guest)

    def _pass_on(self, client: ssl.SSLSocket, guest: ssl.SSLSocket) -> None:
        while True:
            ready = [side for side in (client, guest) if side.pending()]
            ready = ready or select.select([client, guest], [], [], 20)[0]
            if not ready:
                return
            for side in ready:
                side.setblocking(False)
                try:
                    data = side.recv(1 << 16)
                except ssl.SSLWantReadError:  # what came was TLS's own, such as a session ticket
                    continue
                finally:
                    side.settimeout(20)
                if not data:
                    return
                if side is client:
                    self.read += data
                (guest if side is client else client).sendall(data)


def _self_signed(name: str) -> tuple[bytes, bytes]:
    """Key and certificate for `name`, PEM."""
    key, now = ec.generate_private_key(ec.SECP384R1()), datetime.now(UTC)
    own = x509.Name([])
    made = (
        x509.CertificateBuilder()
        .subject_name(own)
        .issuer_name(own)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
        .sign(key, hashes.SHA384())
    )
    raw = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return raw, made.public_bytes(Encoding.PEM)
