"""The workload's throughput while 1,000 clients ask for evidence for a nonce, beside the same alone.

    alone          wrk over TLS through HAProxy by the guest's file, to a workload as quick as itself
    honest         beside it 1,000 connections, open before, which all ask at once; each asks again a second
                   after an answer, or when the `Retry-After` of a refusal has passed; each of its own address
    honest, NAT    the same, all of one address
    greedy         each asks again as soon as it has any answer, over the same connection, or over a new one
                   where that was closed; each of its own address
    greedy, NAT    the same, all of one address

One CPU is the guest: HAProxy, the workload, the evidence server, whose report the stub's chip signs in
Python. The other is the world: wrk, and at the lowest priority the flood, which has what wrk leaves. What
stands in for CPUWeight=20 of the evidence server's unit is nice 7, at which the kernel gives 215 to a normal
process's 1024 (sched_prio_to_weight in kernel/sched/core.c). All are run --rounds times in turn; the table
has the best of each. The ratio is of the guest's CPU time for a request of the workload, into which all that
goes that the flood costs: with the guest's CPU in full use that is the throughput's, and other work on the
machine does not change it. Memory is VmRSS and VmHWM of proc_pid_status(5).
"""

from __future__ import annotations

import argparse
import heapq
import multiprocessing
import os
import re
import select
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from tinboot.builder import places
from tinboot.formats.errors import Unavailable
from tinboot.formats.snptcb import GENOA

sys.path.insert(0, str(places.REPOSITORY / "qemu"))
sys.path.insert(0, str(places.REPOSITORY / "tests/support"))

from host_service import Service
from psp import chain

#: At least so much of the workload's throughput alone.
LIMIT = 0.9

CLIENTS = 1000
_NICE = 7
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_LARGE = 64 << 10
_DOCUMENT = "/.well-known/tinfoil-attestation"

#: Answers at once; buffers for the large one.
_WORKLOAD = """global
  nbthread 1
  tune.bufsize 131072
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 5s
frontend answers
  bind 127.0.0.1:{port}
  http-request return status 200 content-type text/plain file {folder}/large if {{ path /v1/large }}
  http-request return status 200 content-type text/plain string {small}
"""


class Kind(NamedTuple):
    name: str
    honest: bool = True
    one: bool = False  # address


KINDS = (
    Kind("honest"),
    Kind("honest, NAT", one=True),
    Kind("greedy", honest=False),
    Kind("greedy, NAT", honest=False, one=True),
)


class _Client:
    """One of the flood. `since`: when it asked; None while it waits to ask again."""

    def __init__(self, number: int, port: int, kind: Kind, context: ssl.SSLContext) -> None:
        self.source = "127.0.0.1" if kind.one else f"127.1.{number // 250}.{number % 250 + 1}"
        self.port, self.context = port, context
        self.request = f"GET {_DOCUMENT}?nonce={number:064x} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        self.received = b""
        self.connection = self._connect()

    def _connect(self) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), 30, (self.source, 0))
        connection = self.context.wrap_socket(plain)
        connection.setblocking(False)
        return connection

    def ask(self) -> None:
        self.received = b""
        self.connection.send(self.request)

    def again(self) -> None:
        self.connection.close()
        self.connection = self._connect()

    def answer(self) -> tuple[int, float, bool] | None:
        """Status, seconds of Retry-After, whether the connection goes on; OSError where there is none."""
        try:
            while part := self.connection.recv(65536):
                self.received += part
        except ssl.SSLWantReadError:
            part = b"-"
        head, end, body = self.received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        if not end or length is None or len(body) < int(length[1]):
            if not part:
                raise ConnectionResetError
            return None
        after = re.search(rb"(?i)\r\nretry-after: (\d+)", head)
        closes = not part or re.search(rb"(?i)\r\nconnection: close", head) is not None
        return int(head.split()[1]), float(after[1]) if after else 1.0, not closes


def _flood(pipe: Connection, port: int, kind: Kind) -> None:
    """Says when it is there, begins when told to, and says what it got when told to end."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    clients = [_Client(number, port, kind, context) for number in range(CLIENTS)]
    by_number = {client.connection.fileno(): client for client in clients}
    poll = select.epoll()
    for descriptor in by_number:
        poll.register(descriptor, select.EPOLLIN)
    waiting: list[tuple[float, int]] = []
    got: Counter[str] = Counter()

    def renew(client: _Client) -> None:
        del by_number[client.connection.fileno()]  # which the close takes out of the poll, too
        client.again()
        by_number[client.connection.fileno()] = client
        poll.register(client.connection.fileno(), select.EPOLLIN)
        got["new connections"] += 1

    os.nice(19)
    pipe.send(None)
    pipe.recv()
    for client in clients:
        client.ask()
    while not pipe.poll():
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, number = heapq.heappop(waiting)
            if number in by_number:
                by_number[number].ask()
        for descriptor, _ in poll.poll(0.02):
            client = by_number[descriptor]
            try:
                if (answer := client.answer()) is None:
                    continue
                status, after, goes_on = answer
                got[str(status)] += 1
            except OSError:
                got["dropped"] += 1
                after, goes_on = 1.0, False
            if not goes_on:
                renew(client)
            if kind.honest:
                heapq.heappush(waiting, (now + after, client.connection.fileno()))
            else:
                client.ask()
    pipe.send(got)


@contextmanager
def _flooded(port: int, kind: Kind, got: Counter[str]) -> Iterator[Connection]:
    """Sent anything, it begins; `got` is added to at the end."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_flood, args=(theirs, port, kind))
    process.start()
    theirs.close()
    try:
        ours.recv()
        yield ours
        ours.send(None)
        got.update(ours.recv())
    finally:
        process.kill()
        process.join()


def _wrk(port: int, path: str, seconds: int) -> subprocess.Popen[str]:
    command = ["wrk", "-t1", "-c16", f"-d{seconds}", f"https://127.0.0.1:{port}{path}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"PATH": _PATH})


class Row(NamedTuple):
    """Of one run: the workload's requests a second, and microseconds of the guest's CPU a request of them."""

    rate: float
    cpu: float


def _row(running: subprocess.Popen[str], guest: list[int]) -> Row:
    before = sum(map(_cpu, guest))
    said, _ = running.communicate()
    used = sum(map(_cpu, guest)) - before
    requests = re.search(r"(\d+) requests in ([0-9.]+)s", said)
    if requests is None or "Non-2xx" in said or "Socket errors" in said:
        raise Unavailable(f"wrk: {said}")
    return Row(int(requests[1]) / float(requests[2]), used / int(requests[1]) * 1e6)


def _cpu(process: int) -> float:
    """Seconds, its ended children's among them: proc_pid_stat(5), fields 14 to 17."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _memory(process: int, field: str) -> float:
    """MiB."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


Memory = dict[str, tuple[float, float]]


class Measured(NamedTuple):
    """`rows`: of a load, by kind, of each round. `got`: by kind. `memory`: MiB of proxy, evidence server."""

    rows: dict[str, dict[str, list[Row]]]
    got: dict[str, Counter[str]]
    memory: Memory


def _measure(service: Service, workload: int, rounds: int, seconds: int, world: set[int]) -> Measured:
    loads = {"a small answer": "/v1/small", "64 KiB": "/v1/large"}
    rows: dict[str, dict[str, list[Row]]] = {load: {} for load in loads}
    got = {kind.name: Counter[str]() for kind in KINDS}
    os.sched_setaffinity(0, world)
    proxy, evidence = service.processes
    guest = [proxy, evidence, workload]

    def look(field: str) -> tuple[float, float]:
        return _memory(proxy, field), _memory(evidence, field)

    for path in loads.values():
        _row(_wrk(service.port, path, 1), guest)
    before = look("VmRSS")
    for _ in range(rounds):
        for load, path in loads.items():
            rows[load].setdefault("alone", []).append(_row(_wrk(service.port, path, seconds), guest))
            for kind in KINDS:
                with _flooded(service.port, kind, got[kind.name]) as pipe:
                    running = _wrk(service.port, path, seconds)
                    time.sleep(0.2)
                    pipe.send(None)
                    rows[load].setdefault(kind.name, []).append(_row(running, guest))
    peak = look("VmHWM")
    time.sleep(3)
    return Measured(rows, got, {"before": before, "peak": peak, "after": look("VmRSS")})


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of each (default 5)")
    parser.add_argument("--seconds", type=int, default=5, help="of each run (default 5)")
    asked = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise Unavailable("one CPU alone", "the flood would take what it has from the guest")
    guest, world = {cpus[0]}, {cpus[1]}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tinboot-flood-")))
        os.sched_setaffinity(0, guest)
        workload, upstream = stack.enter_context(_workload(folder))
        service = Service(folder / "service", chain(GENOA), upstream=("127.0.0.1", upstream))
        service.folder.mkdir()
        stack.enter_context(service)
        proxy, evidence = service.processes
        os.setpriority(os.PRIO_PROCESS, evidence, _NICE)
        measured = _measure(service, workload, asked.rounds, asked.seconds, world)
        for process in (proxy, evidence):
            os.kill(process, 0)  # none ended
    _print(measured, asked.rounds, asked.seconds)


def _print(measured: Measured, rounds: int, seconds: int) -> None:
    print(f"\nthe workload under {CLIENTS} clients with nonces, best of {rounds} runs of {seconds} s each")
    print(f"{'':24}{'requests/s':>12}{'cpu us':>9}{'ratio':>8}{'limit':>8}")
    for load, rows in measured.rows.items():
        alone = _best(rows["alone"])
        print(f"{load + ', alone':24}{alone.rate:12.0f}{alone.cpu:9.1f}")
        for kind in KINDS:
            own = _best(rows[kind.name])
            print(f"{'  ' + kind.name:24}{own.rate:12.0f}{own.cpu:9.1f}{alone.cpu / own.cpu:8.2f}{LIMIT:8}")
    print("\nwhat the clients got, a second")
    for name, got in measured.got.items():
        whole = len(measured.rows) * rounds * (seconds - 0.2)
        print(f"{'  ' + name:24}" + ", ".join(f"{what}: {n / whole:.1f}" for what, n in sorted(got.items())))
    print(f"\n{'MiB resident':24}{'before':>8}{'peak':>8}{'after':>8}")
    for number, name in enumerate(("HAProxy", "evidence server")):
        print(f"{'  ' + name:24}" + "".join(f"{pair[number]:8.1f}" for pair in measured.memory.values()))


def _best(rows: list[Row]) -> Row:
    """Each of its own run: other work on the machine disturbs the two differently."""
    return Row(max(row.rate for row in rows), min(row.cpu for row in rows))


@contextmanager
def _workload(folder: Path) -> Iterator[tuple[int, int]]:
    """Its process, and its port."""
    (folder / "large").write_bytes(b"x" * _LARGE)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    file = folder / "workload.cfg"
    file.write_text(_WORKLOAD.format(port=port, folder=folder, small="x" * 96))
    with subprocess.Popen(["haproxy", "-db", "-q", "-f", file], env={"PATH": _PATH}) as process:
        try:
            _listening(port)
            yield process.pid, port
        finally:
            process.terminate()


def _listening(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise Unavailable("HAProxy does not come up")


if __name__ == "__main__":
    main()
