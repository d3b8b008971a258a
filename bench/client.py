"""`tinboot verify HOST` with a warm library, beside the cryptography and the round trips that it takes.

    round trips    TCP and a TLS 1.3 handshake, then with three requests and their answers, over a bare socket
                   and looked at no further than it takes to find their ends; a nonce each time, so what the
                   host takes to sign is in it
    cryptography   the report's signature and each GPU's, through `cryptography` with their keys decoded, and
                   what REPORT_DATA binds
    ours           from the host's address to a verified host, `client.verify`

The guest is made up and another process of this machine, so a round trip is as short as it gets; what ours
takes beyond the two others is the same over any network. Where the limit does not hold, it follows from the
five trips how long one has to be for it. Chains are those that a warm library has verified before, and both
sides keep their TLS context. Beside that the CPU seconds of the commands from their start, in processes of
their own.

With --at-once the guest has one document for all, so that what is left of it is its Python around sockets.
Each is run --rounds times in turn; the table has the best.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tinboot import client
from tinboot.builder import places
from tinboot.client import Origin, Terms, verified
from tinboot.client import evidence as fetched
from tinboot.formats import gpureference, reportdata, snpreport
from tinboot.formats.deviceevidence import parse as parse_devices

sys.path.insert(0, str(places.REPOSITORY / "qemu"))
sys.path.insert(0, str(places.REPOSITORY / "tests/support"))

import client_terms
import fake_amd
import fake_gpus
import fake_nvidia
import served_guest
import stub_nvidia
import stub_report
from fake_amd import NOW

#: At most so many times both together; CPU seconds of a command.
WARM, START = 1.2, 0.4

TRIPS = 5  # TCP, TLS 1.3 (RFC 8446, 2), three requests

_CODE = "from tinboot.cli.main import main; main()"

SIZE = 96  # bytes of a P-384 signature in a GPU's report: DMTF DSP0274 1.1, 10.11.1


@contextmanager
def host(gpus: int) -> Iterator[Origin]:
    """A guest with so many GPUs, in a process of its own."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(gpus, theirs))
    process.start()
    try:
        yield Origin("127.0.0.1", ours.recv())
    finally:
        ours.send(None)
        process.join()


def _serve(gpus: int, pipe: Connection) -> None:
    with served_guest.Host(served_guest.Guest(gpus=gpus)) as serving:
        pipe.send(serving.port)
        pipe.recv()


def answer_at_once() -> None:
    """One nonce for all, and each guest's document for it signed once."""
    fixed, signed = bytes(reportdata.NONCE), served_guest.Guest.document
    pem, known = served_guest.published(served_guest.Guest()), dict[int, bytes]()

    def document(guest: served_guest.Guest, _: bytes) -> bytes:
        return known.get(guest.gpus) or known.setdefault(guest.gpus, signed(guest, fixed))

    patch.object(fetched, "secrets", SimpleNamespace(token_bytes=lambda _: fixed)).start()
    patch.object(served_guest.Guest, "document", document).start()
    patch.object(served_guest, "published", lambda _: pem).start()


@contextmanager
def connected(origin: Origin, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    """A TLS 1.3 handshake, and the end of it."""
    with socket.create_connection((origin.host, origin.port)) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(plain) as sock:
            yield sock


def handshake(origin: Origin, context: ssl.SSLContext) -> None:
    with connected(origin, context):
        pass


def round_trips(origin: Origin, context: ssl.SSLContext) -> None:
    """The handshake and the three answers; nothing of them is looked at but how long they are."""
    with connected(origin, context) as sock:
        nonce = time.monotonic_ns().to_bytes(32, "big").hex()
        for path in (
            f"{served_guest.EVIDENCE}?nonce={nonce}",
            served_guest.HPKE_KEYS,
            served_guest.CERTIFICATE,
        ):
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {origin.authority}\r\n\r\n".encode())
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += sock.recv(1 << 16)
            head, _, body = answer.partition(b"\r\n\r\n")
            left = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0]) - len(body)
            while left > 0:
                left -= len(sock.recv(1 << 16))


def cryptography_alone(found: fetched.Evidence) -> Callable[[], None]:
    """The signatures of the report and of each GPU's, and the hashes, with everything at hand."""
    document, report = found.document, found.document.report
    jobs = [(fake_amd.KEY.public_key(), report[: snpreport.SIGNED], stub_report.signature(report))]
    for number, gpu in enumerate(parse_devices(found.document.device_evidence)):
        raw = gpu.evidence[-SIZE:]
        halves = int.from_bytes(raw[: SIZE // 2], "big"), int.from_bytes(raw[SIZE // 2 :], "big")
        jobs.append((stub_nvidia.chain("HOPPER", number).key.public_key(), gpu.evidence[:-SIZE], halves))
    algorithm = ec.ECDSA(hashes.SHA384())
    ready = [(key, encode_dss_signature(*halves), signed) for key, signed, halves in jobs]

    def run() -> None:
        for key, signature, signed in ready:
            key.verify(signature, signed, algorithm)
        sections = (sha256(part).digest() for part in (document.crypto_material, document.device_evidence))
        assert reportdata.v3_of_hashes(document.nonce, *sections) == document.report_data

    return run


def best(rounds: int, works: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Milliseconds of each, the best of `rounds`, in turn so that other work on the machine meets all."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            taken[name].append((time.perf_counter() - began) * 1000)
    return {name: min(times) for name, times in taken.items()}


def warm(rounds: int, gpus: int) -> None:
    """Prints the rows of a guest with so many GPUs."""
    terms: Terms = client_terms.terms(gpus)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with host(gpus) as origin:
        found = fetched.fetch(origin)
        verified.appraise(origin, found, terms, NOW).accept()
        took = best(
            rounds,
            {
                "handshake": lambda: handshake(origin, context),
                "network": lambda: round_trips(origin, context),
                "cryptography": cryptography_alone(found),
                "fetch": lambda: fetched.fetch(origin),
                "appraise": lambda: verified.appraise(origin, found, terms, NOW).accept(),
                "ours": lambda: client.verify(origin, terms, NOW),
            },
        )
    floor = took["network"] + took["cryptography"]

    def row(text: str, value: float, beside: float = 0.0, limit: str = "") -> None:
        print(f"{text:52}{value:9.2f}{f'{value / beside:.2f}' if beside else '':>8}{limit:>7}")

    print(f"{f'{gpus} GPUs':52}{'ms':>9}{'ratio':>8}{'limit':>7}")
    row("TCP and a TLS 1.3 handshake, bare", took["handshake"])
    row("three requests and their answers, bare", took["network"] - took["handshake"])
    row(f"{gpus + 1} P-384 signatures, three hashes", took["cryptography"])
    row("together", floor)
    row("  ours", took["ours"], floor, f"{WARM}")
    row("    beside the bare network: HTTP, JSON, the key", took["fetch"] - took["network"])
    row("    beside bare cryptography: all checks", took["appraise"] - took["cryptography"])
    needed = (took["ours"] / WARM - floor) / TRIPS
    if needed > 0:
        row("    within the limit where a round trip takes", needed)


def cold(rounds: int) -> None:
    """Prints the CPU seconds of the commands."""
    with tempfile.TemporaryDirectory() as name, host(2) as origin:
        folder = Path(name)
        (folder / "ark").write_bytes(served_guest.issuers()[1])
        (folder / "gpu-root").write_bytes(fake_nvidia.device_root())
        (folder / "values").write_bytes(gpureference.render(fake_gpus.reference()))
        words = [
            *("--at", NOW.isoformat(), "--offline", "--trust-root", f"{folder}/ark"),
            *("--gpus", "2", "--gpu-reference-values", f"{folder}/values"),
            *("--trust-gpu-root", f"{folder}/gpu-root", "--measurement", served_guest.MEASUREMENT.hex()),
        ]
        print(f"{'commands from their start, 2 GPUs':52}{'CPU s':>9}{'':8}{'limit':>7}")
        for named in ("verify --help", "verify HOST", "request HOST", "request HOST --ehbp"):
            command = named.replace(
                "HOST", f"{origin.authority} /" if "request" in named else origin.authority
            )
            started = [sys.executable, "-c", _CODE, *command.split(), *([] if "--help" in named else words)]
            _cpu(started)  # which leaves byte code behind, as an installation does
            took = min(_cpu(started) for _ in range(rounds))
            print(f"{f'  tinboot {named}':52}{took:9.2f}{'':8}{START:7}")


def _cpu(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="of each (default 15)")
    parser.add_argument("--at-once", action="store_true", help="the guest signs nothing anew")
    options = parser.parse_args()
    rounds = options.rounds
    if options.at_once:
        answer_at_once()
    print(f"\nverifying a live host, library warm, best of {rounds}")
    for gpus in (0, 2, 8):
        warm(rounds, gpus)
    if not options.at_once:
        cold(min(rounds, 5))


if __name__ == "__main__":
    main()
