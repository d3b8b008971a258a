"""The gateway: its socket, its limits, and what its processes do when one of them ends."""

from __future__ import annotations

import os
import signal
import socket
import stat
import threading
import time
from pathlib import Path

import pytest
from ehbp_world import (
    PRIVATE,
    PUBLIC,
    World,
    opened,
    parse_response,
    receive_all,
    receive_request,
    render_request,
)
from hypothesis import given
from hypothesis import strategies as st

from tinboot.ehbp.messages import Exchange
from tinboot.formats.errors import Malformed
from tinboot.guest import ehbp, ehbp_gateway, notify
from tinboot.guest.ehbp_exchange import Busy
from tinboot.guest.ehbp_gateway import Shared


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(20)
    client.connect(os.fspath(path))
    return client


def test_requests_through_the_socket_as_many_at_a_time_as_may_be(tmp_path: Path) -> None:
    """Of three requests, two are at work; the third waits its turn, and has it."""
    go, begun = threading.Event(), threading.Semaphore(0)
    most, now, lock = [0], [0], threading.Lock()

    def workload(connection: socket.socket) -> None:
        receive_request(connection)
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        begun.release()
        go.wait(20)
        with lock:
            now[0] -= 1
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    path = tmp_path / "http.sock"
    with World(workload) as world:
        listening = ehbp_gateway.listen(path)
        server = threading.Thread(
            target=ehbp_gateway.serve, args=(listening, world.settings, 2, 1 << 20), daemon=True
        )
        server.start()
        exchanges = [Exchange(PUBLIC) for _ in range(3)]
        clients = [connect(path) for _ in exchanges]
        for client, exchange in zip(clients, exchanges, strict=True):
            client.sendall(render_request(exchange.header, exchange.request.seal(b"{}")))
        for _ in range(2):
            assert begun.acquire(timeout=20)
        assert not begun.acquire(timeout=0.2)
        go.set()
        for client, exchange in zip(clients, exchanges, strict=True):
            assert opened(exchange, parse_response(receive_all(client))) == b"ok"
            client.close()
        listening.shutdown(socket.SHUT_RDWR)
        server.join(20)
        assert not server.is_alive()
        listening.close()
    assert most == [2]


def test_the_socket_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    for _ in range(2):
        with ehbp_gateway.listen(path):
            assert stat.S_ISSOCK(path.stat().st_mode)


@given(st.lists(st.integers(0, 200), max_size=20))
def test_what_is_held_is_what_was_granted(wanted: list[int]) -> None:
    shared, held = Shared(300), [0] * 3
    for at, now in enumerate(wanted):
        who = at % 3
        try:
            shared.hold(held[who], now)
        except Busy:
            assert sum(held) - held[who] + now > 300
        else:
            held[who] = now
        assert shared._held == sum(held) <= 300
    for before in held:
        shared.hold(before, 0)
    assert shared._held == 0


def test_when_a_process_ends_all_do(tmp_path: Path) -> None:
    """One of three ends by itself; the others, which would go on for ever, with it. A child of other origin
    that has ended is none of them.
    """
    other = os.fork()
    if other == 0:
        os._exit(0)
    os.waitid(os.P_PID, other, os.WEXITED | os.WNOWAIT)

    def work() -> None:
        (tmp_path / str(os.getpid())).touch()
        while len(list(tmp_path.iterdir())) < 3:
            time.sleep(0.01)
        if os.getpid() == min(int(path.name) for path in tmp_path.iterdir()):
            return
        signal.pause()

    ehbp_gateway.in_processes(3, work)
    children = [int(path.name) for path in tmp_path.iterdir()]
    assert len(children) == 3
    for child in children[:]:
        try:
            assert os.waitpid(child, 0)[1] == signal.SIGKILL
        except ChildProcessError:
            children.remove(child)  # the one that had ended was waited for
    assert len(children) == 2


def test_where_the_workload_is() -> None:
    assert ehbp.upstream("10.89.0.2:8080\n") == ("10.89.0.2", 8080)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.89.0.2:8080",
        "10.89.0.2\n",
        ":80\n",
        "10.89.0.2:0\n",
        "10.89.0.2:65536\n",
        "10.89.0.2:08\n",
        "10.89.0.2:80 \n",
        "10.89.0.2:80\n\n",
        "10.89.0:80\n",
        "1000.89.0.2:80\n",
        "localhost:80\n",
        "[::1]:80\n",
    ],
)
def test_where_no_workload_is(text: str) -> None:
    with pytest.raises(Malformed, match="expected an IPv4 address and a port"):
        ehbp.upstream(text)


def test_the_private_key() -> None:
    raw = PRIVATE.private_bytes_raw()
    assert ehbp.private_key(raw).private_bytes_raw() == raw
    for data in (b"", raw[:-1], raw + b"\n", raw.hex().encode()):
        with pytest.raises(Malformed, match="expected 32"):
            ehbp.private_key(data)


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = os.fspath(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(path)
        notify.ready()
        assert systemd.recv(100) == b"READY=1"


def test_the_whole_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As systemd starts it, in a process of its own that is ended by one of its children."""
    (tmp_path / "hpke.key").write_bytes(PRIVATE.private_bytes_raw())
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", os.fspath(tmp_path))
    monkeypatch.setenv("NOTIFY_SOCKET", os.fspath(tmp_path / "notify"))
    monkeypatch.setattr(ehbp, "SOCKET", tmp_path / "http.sock")
    monkeypatch.setattr(ehbp, "UPSTREAM", tmp_path / "upstream")
    exchange = Exchange(PUBLIC)
    with World() as world, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        address, port = world.settings.upstream
        (tmp_path / "upstream").write_text(f"{address}:{port}\n")
        systemd.bind(os.fspath(tmp_path / "notify"))
        systemd.settimeout(20)
        program = os.fork()
        if program == 0:
            try:
                os.setpgid(0, 0)
                ehbp.main()
            finally:
                os._exit(7)
        try:
            assert systemd.recv(100) == b"READY=1"
            with connect(tmp_path / "http.sock") as client:
                client.sendall(render_request(exchange.header, exchange.request.seal(b"{}")))
                assert opened(exchange, parse_response(receive_all(client))) == b"ok"
        finally:
            os.killpg(program, signal.SIGKILL)
            os.waitpid(program, 0)
