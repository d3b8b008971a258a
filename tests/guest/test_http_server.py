"""The server over a real Unix socket, in a process of its own: what it answers, what it lets nobody hold."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tinboot.guest import attestation
from tinboot.guest.collector import Collector
from tinboot.guest.collector import Limits as Collecting
from tinboot.guest.http_request import Request
from tinboot.guest.http_response import Response
from tinboot.guest.http_server import Handler, Limits, Server

GET = b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n"
LATER = GET.replace(b"small", b"later")
BIG = 4 << 20


class Servers:
    """Starts servers below a folder, each a process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.started: list[int] = []

    def __call__(self, limits: Limits | None = None, collecting: Collecting | None = None) -> Path:
        """Its socket."""
        path = self._folder / f"{len(self.started)}.sock"
        listener = attestation.listen(path)
        process = os.fork()
        if process == 0:
            try:
                collector = Collector(collecting or Collecting(rate=1000, burst=1000, queue=1000))
                Server(listener, handler(collector), collector, limits or Limits()).serve()
            finally:
                os._exit(1)
        listener.close()
        self.started.append(process)
        return path


def handler(collector: Collector) -> Handler:
    def answer(request: Request) -> Response | int:
        if request.path == "/later":
            return collector.ask(lambda attendance: f"of {os.getpid()}")
        if request.path == "/slow":
            return collector.ask(lambda attendance: time.sleep(600))
        if request.path == "/bug":
            raise ZeroDivisionError("planted")
        return Response(200, bytes(BIG) if request.path == "/big" else request.path.encode())

    return answer


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Servers]:
    servers = Servers(tmp_path)
    yield servers
    for process in servers.started:
        assert os.waitpid(process, os.WNOHANG) == (0, 0), "the server ended by itself"
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


@contextmanager
def held(path: Path, count: int, sent: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections, on each of which `sent` was sent."""
    with ExitStack() as stack:
        clients = []
        for _ in range(count):
            clients.append(stack.enter_context(connect(path)))
            clients[-1].sendall(sent)
        yield clients


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(60)
    client.connect(str(path))
    return client


def answer(client: socket.socket, *, head: bool = False) -> tuple[int, bytes]:
    """The next one: status and body."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = client.recv(1)
        if not part:
            raise EOFError(data)
        data += part
    found = re.match(rb"HTTP/1\.1 (\d{3}) .*\r\nContent-Length: (\d+)\r\n", data, re.DOTALL)
    assert found is not None, data
    body = b""
    while not head and len(body) < int(found[2]):
        body += client.recv(int(found[2]) - len(body))
    return int(found[1]), body


def ended(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_one_connection_for_many_requests(start: Servers) -> None:
    with connect(start()) as client:
        for _ in range(3):
            client.sendall(GET)
            assert answer(client) == (200, b"/small")
        client.sendall(LATER)
        assert answer(client)[0] == 200
        client.sendall(GET.replace(b"GET", b"HEAD"))
        assert answer(client, head=True) == (200, b"")
        client.sendall(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert answer(client) == (200, b"/small")
        assert ended(client)


def test_pipelined_in_order(start: Servers) -> None:
    """More than fit the interpreter's stack, were each of them handled inside the one before."""
    with connect(start()) as client:
        short = b"G /%03d HTTP/1.1\r\nHost:\r\n\r\n"
        client.sendall(LATER + b"".join(short % number for number in range(300)) + LATER)
        assert answer(client)[0] == 200
        assert [answer(client)[1] for _ in range(300)] == [b"/%03d" % number for number in range(300)]
        assert answer(client)[0] == 200


def test_byte_by_byte(start: Servers) -> None:
    with connect(start()) as client:
        for byte in GET:
            client.sendall(bytes((byte,)))
        assert answer(client) == (200, b"/small")


def test_a_long_answer_to_a_slow_reader(start: Servers) -> None:
    with connect(start()) as client, connect(start()) as other:
        client.sendall(GET.replace(b"small", b"big"))
        other.sendall(GET)
        assert answer(other) == (200, b"/small")
        assert answer(client) == (200, bytes(BIG))
        client.sendall(GET)
        assert answer(client) == (200, b"/small")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 2000, 431),
        (GET[:-2] + b"Content-Length: 5\r\n\r\nabcde", 413),
        (GET[:-2] + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 413),
    ],
)
def test_what_is_refused_ends_the_connection(start: Servers, sent: bytes, status: int) -> None:
    with connect(start()) as client:
        client.sendall(sent + GET)
        assert answer(client)[0] == status
        assert ended(client)


def test_a_bug_is_one_answer(start: Servers) -> None:
    with connect(start()) as client:
        client.sendall(GET.replace(b"small", b"bug") + GET)
        status, body = answer(client)
        assert status == 500
        assert b"planted" not in body
        assert answer(client) == (200, b"/small")


def test_a_slow_request_ends(start: Servers) -> None:
    """A byte now and then does not extend its time."""
    with connect(start(Limits(request=0.3))) as client:
        client.sendall(GET[:5])
        while not select.select([client], [], [], 0.02)[0]:
            client.sendall(b"a")
        assert answer(client)[0] == 408
        assert ended(client)


def test_an_idle_connection_ends_without_a_word(start: Servers) -> None:
    with connect(start(Limits(idle=0.1))) as client:
        assert ended(client)


def test_who_does_not_take_the_answer_is_left(start: Servers) -> None:
    with connect(start(Limits(answer=0.1))) as client:
        client.sendall(GET.replace(b"small", b"big"))
        time.sleep(0.5)
        taken = 0
        while part := client.recv(1 << 20):
            taken += len(part)
        assert taken < BIG


def test_who_goes_while_waiting_makes_room(start: Servers) -> None:
    """One job runs, one place is in the queue: it is free again once the one who waited there has gone."""
    path = start(collecting=Collecting(rate=1000, burst=1000, queue=1, deadline=600, patience=600))
    with connect(path) as runs:
        runs.sendall(GET.replace(b"small", b"slow"))
        for _ in range(3):
            until = time.monotonic() + 60
            while True:  # the server may not have seen yet that the one before has gone
                with connect(path) as waits:
                    waits.sendall(LATER)
                    if not select.select([waits], [], [], 0.1)[0]:
                        break
                    assert answer(waits)[0] == 429
                assert time.monotonic() < until


def served(path: Path) -> int:
    with connect(path) as client:
        client.sendall(GET)
        return answer(client)[0]


def test_no_more_connections_than_allowed(start: Servers) -> None:
    """Those that begin a request are many; who comes then is told so, and served once one has gone."""
    path = start(Limits(connections=4))
    with held(path, 4, GET[:10]) as begun:
        with connect(path) as more:
            more.sendall(GET)
            assert answer(more)[0] == 503
            assert ended(more)
        begun.pop().close()
        while served(path) == 503:  # what the one that has gone had sent is read before its end
            pass
        for client in begun:
            client.sendall(GET[10:])
            assert answer(client) == (200, b"/small")


def test_an_idle_connection_makes_room(start: Servers) -> None:
    path = start(Limits(connections=2))
    with held(path, 2) as idle:
        time.sleep(2.5)  # no test of speed: within that time a first request may be on its way
        with connect(path) as client:
            client.sendall(GET)
            assert answer(client) == (200, b"/small")
        assert ended(idle[0])
        idle[1].sendall(GET)
        assert answer(idle[1]) == (200, b"/small")


def resident(process: int) -> int:
    """The most it ever had in memory, in KiB."""
    status = Path(f"/proc/{process}/status").read_text("ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1])


def test_a_thousand_at_once(start: Servers) -> None:
    """Every one gets an answer, most of them that it is too much; the server's memory stays as it was."""
    path = start(Limits(connections=256), Collecting(rate=2, burst=8, queue=8))
    with connect(path) as client:
        client.sendall(LATER)
        assert answer(client)[0] == 200
        before = resident(start.started[0])
        with held(path, 1000, LATER) as clients:
            found = [answer(one)[0] for one in clients]
        assert set(found) <= {200, 429, 503}
        assert found.count(200) >= 7
        assert found.count(429) >= 100
        client.sendall(GET)
        assert answer(client) == (200, b"/small")
        assert resident(start.started[0]) < before + (16 << 10)
