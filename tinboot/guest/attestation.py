"""The evidence server: the guest's identity is born and reported, then its evidence served; or all ends.

In this order:

    keys                                                                identity.py
    a report that binds them: the v2 document, and its hash in the certificate
    the files for the proxy and for EHBP
    the socket, behind the proxy, to which nobody else is connected     http_server.py, endpoints.py

A machine whose evidence nobody can fetch must not serve, so the end of this program is the machine's.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from tinboot.formats import attestationdocument, bootlog, reportdata, servicesettings
from tinboot.formats.halt import Halt, Refusal
from tinboot.guest import collector, http_server, identity, report
from tinboot.guest.boot_stages import Moments
from tinboot.guest.console import halt
from tinboot.guest.endpoints import Endpoints, Facts, Places
from tinboot.guest.evidence import EvidenceError
from tinboot.guest.http_server import Server
from tinboot.guest.notify import ready

SOCKET = Path("/run/tinboot-attestation/http.sock")

_BACKLOG = 1024  # connections that wait to be accepted: as many callers may come at the same moment


class Program(NamedTuple):
    """Where things lie in the guest."""

    settings: Path = Path(servicesettings.PATH)
    identity: Path = identity.FOLDER
    socket: Path = SOCKET
    places: Places = Places()


def prepare(program: Program) -> Server:
    """Everything up to the first connection. Raises EvidenceError, `Refusal`, `Malformed` and OSError."""
    started = _uptime_ms()
    settings = servicesettings.parse(program.settings.read_bytes())
    born = identity.born()
    report_data = reportdata.v2(born.spki_sha256, born.hpke_public)
    evidence = report.within(report.DEADLINE, lambda: report.collect(report_data))
    report.judge(evidence, report_data)
    document = attestationdocument.compose_v2(evidence.report)
    certificate = identity.certificate(born, attestationdocument.document_hash(document), datetime.now(UTC))
    identity.install(born, certificate, program.identity)
    identity.install_hpke(born, program.identity)
    listener = listen(program.socket)
    booted = time.time() - _uptime_ms() / 1000
    sealed_at = (program.places.sealed / bootlog.REPORT_FILE).stat().st_mtime
    moments = Moments(booted, round((sealed_at - booted) * 1000), started, _uptime_ms())
    facts = Facts(settings, born.spki_sha256, born.hpke_public, certificate, document, moments)
    collecting = collector.Collector(collector.limits(settings.gpus))
    return Server(listener, Endpoints(facts, collecting, program.places), collecting, http_server.Limits())


def listen(path: Path) -> socket.socket:
    """A socket for the group of this process, which is the proxy's."""
    with contextlib.ExitStack() as stack:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        stack.enter_context(listener)
        listener.bind(str(path))
        path.chmod(0o660)  # before anybody can connect
        listener.listen(_BACKLOG)
        stack.pop_all()
    return listener


def _uptime_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def main() -> None:
    """Called by tinboot-attestation.service. Does not return."""
    os.umask(0o077)
    try:
        server = prepare(Program())
        ready()
        server.serve()
    except Refusal as refusal:
        halt(Halt("attestation", refusal.reason, refusal.detail))
    except EvidenceError as error:
        halt(Halt("attestation", report.REASONS[type(error)], str(error)))
    except BaseException as error:  # whatever it is, the machine does not stay up without evidence
        halt(Halt("attestation", "attestation-failed", f"{type(error).__name__}: {error}"))


if __name__ == "__main__":
    main()
