"""What the guest's proxy costs beside the plainest one, and what encrypted bodies cost beside TLS alone.

    ours      HAProxy by the file that the guest makes (tinboot/guest/proxy_config.py), without a container
    plain     the same program with nothing but a certificate and one server
    EHBP      through ours and the gateway, encrypted both ways; wrk sends the ciphertext of one request again
              and again
    TLS       the same body through ours, to the same workload

wrk's connections stay open, so handshakes are no part of it, and it neither seals nor opens: what a client
does is not measured here. `cpu` is what the proxy's processes used, and with EHBP the gateway's, in
microseconds a request: it says the same with less noise. Rows that are compared are run --rounds times in
turn; the table has the best.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, NoReturn

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tinboot.ehbp import hpke
from tinboot.ehbp.messages import ENCAPSULATED_KEY, Exchange
from tinboot.formats import config
from tinboot.formats.errors import Unavailable
from tinboot.guest import ehbp_gateway, http1, identity, proxy_config
from tinboot.guest.ehbp_exchange import Settings

#: At least so much of the plainest proxy, and of TLS alone.
PROXY, EHBP = 0.95, 0.5

MIB = 1 << 20
_ZEROS = memoryview(bytes(MIB))
_READ = 128 << 10
_CONNECTIONS = 16
_SMALL = b'{"answer":"of some hundred bytes, as that of an API to a short question often is, give or take"}'

CONFIG = b"cvm-version: 0.1.0\ncpus: 2\nmemory: 1024\nshim:\n  upstream-port: 8080\n  paths:\n    - /v1/*\n"

PLAIN = """defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 5s
frontend tls
  bind 127.0.0.1:{port} ssl crt {folder}/tls.pem
  default_backend workload
backend workload
  server server 127.0.0.1:{upstream}
"""

#: A workload as quick as the proxy itself, for small bodies.
QUICK = """defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 5s
frontend answers
  bind 127.0.0.1:{port}
  http-request return status 200 content-type application/json string '{answer}'
"""


class Load(NamedTuple):
    """`script`: wrk's, where the request is no plain GET."""

    path: str
    script: str = ""


class Row(NamedTuple):
    """Of one run: requests a second, microseconds of CPU a request."""

    rate: float
    cpu: float


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of each (default 5)")
    parser.add_argument("--seconds", type=int, default=3, help="of each run (default 3)")
    asked = parser.parse_args()
    for program in ("haproxy", "wrk"):
        if shutil.which(program, path=_PATH) is None:
            raise Unavailable(f"{program} is not installed", "packages/host.txt")
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="tinboot-proxy-") as name:
        folder = Path(name)
        measured = _measure(folder, stack, asked.rounds, asked.seconds)
    print(f"\nthe proxy, {_CONNECTIONS} connections, best of {asked.rounds} runs of {asked.seconds} s each")
    print(f"{'':44}{'requests/s':>12}{'cpu us':>9}{'ratio':>8}{'limit':>8}")
    for (peer, its), (name, own), limit in measured:
        print(f"{peer:44}{its.rate:12.0f}{its.cpu:9.1f}")
        print(f"{'  ' + name:44}{own.rate:12.0f}{own.cpu:9.1f}{own.rate / its.rate:8.2f}{limit:8}")


Compared = tuple[tuple[str, Row], tuple[str, Row], float]


def _measure(folder: Path, stack: ExitStack, rounds: int, seconds: int) -> list[Compared]:
    made = identity.born()
    identity.install(made, identity.certificate(made, "0" * 64, datetime.now(UTC)), folder)
    quick, slow = _free_port(), stack.enter_context(_workload())
    answer = QUICK.format(port=quick, answer=_SMALL.decode())
    stack.enter_context(_haproxy(folder, "quick", answer, quick))
    gateway = stack.enter_context(_gateway(folder, made.hpke, slow))

    def pair(upstream: int) -> tuple[tuple[int, list[int]], tuple[int, list[int]]]:
        """Ports and processes of the plain proxy and of ours."""
        ports = _free_port(), _free_port()
        texts = (
            PLAIN.format(port=ports[0], folder=folder, upstream=upstream),
            _ours(folder, ports[1], upstream),
        )
        plain, ours = (
            stack.enter_context(_haproxy(folder, f"proxy-{port}", text, port))
            for port, text in zip(ports, texts, strict=True)
        )
        return (ports[0], [plain]), (ports[1], [ours])

    small, large = pair(quick), pair(slow)
    upload, download = Load("/v1/sink", _script(folder, "sink", bytes(MIB))), Load("/v1/large")
    sealed = Exchange(hpke.raw(made.hpke.public_key()))
    body = sealed.request.seal(bytes(MIB))
    echoes = (
        Load("/v1/echo", _script(folder, "echo", bytes(MIB))),
        Load("/v1/echo", _script(folder, "sealed", body, **{ENCAPSULATED_KEY: sealed.header})),
    )
    found: list[Compared] = []
    for text, load, ((port, plain), (own_port, ours)) in (
        ("a small answer, plain", Load("/v1/small"), small),
        ("a download of 1 MiB, plain", download, large),
        ("an upload of 1 MiB, plain", upload, large),
    ):
        runs = [_runner(port, plain, load, seconds), _runner(own_port, ours, load, seconds)]
        its, own = _best(runs, rounds)
        found.append(((text, its), ("ours", own), PROXY))
    port, ours = large[1]
    runs = [
        _runner(port, ours, echoes[0], seconds),
        _runner(port, [*ours, *gateway], echoes[1], seconds),
    ]
    its, own = _best(runs, rounds)
    found.append((("1 MiB there and back, TLS", its), ("EHBP", own), EHBP))
    return found


def _best(runs: list[Callable[[], Row]], rounds: int) -> tuple[Row, ...]:
    """In turn, so that other work on the machine meets all."""
    rows = [[run() for run in runs] for _ in range(rounds)]
    return tuple(max(column, key=lambda row: row.rate) for column in zip(*rows, strict=True))


def _runner(port: int, processes: list[int], load: Load, seconds: int) -> Callable[[], Row]:
    command = ["wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{seconds}", f"https://127.0.0.1:{port}{load.path}"]
    if load.script:
        command[1:1] = ["-s", load.script]

    def run() -> Row:
        before = sum(map(_cpu, processes))
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PATH": _PATH})
        used = sum(map(_cpu, processes)) - before
        requests = re.search(r"(\d+) requests in ([0-9.]+)s", done.stdout)
        if requests is None or "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
            raise Unavailable(f"wrk: {done.stdout}")
        return Row(int(requests[1]) / float(requests[2]), used / int(requests[1]) * 1e6)

    return run


_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def _cpu(process: int) -> float:
    """Seconds, of user and kernel: proc_pid_stat(5), fields 14 and 15."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _script(folder: Path, name: str, body: bytes, **fields: str) -> str:
    """POST of `body`, in wrk's Lua."""
    (folder / name).write_bytes(body)
    lines = ['wrk.method = "POST"', f'wrk.body = io.open("{folder}/{name}", "rb"):read("*a")']
    lines += [f'wrk.headers["{field}"] = "{value}"' for field, value in fields.items()]
    script = folder / f"{name}.lua"
    script.write_text("\n".join(lines) + "\n")
    return os.fspath(script)


def _ours(folder: Path, port: int, upstream: int) -> str:
    shim = config.load(CONFIG).shim
    assert shim is not None
    text = proxy_config.render(shim, ("127.0.0.1", upstream), cpus=2, memory=1024, readiness=None)
    text = text.replace("0.0.0.0:443", f"127.0.0.1:{port}")
    return text.replace(proxy_config.EHBP, f"unix@{folder}/ehbp.sock")


@contextmanager
def _haproxy(folder: Path, name: str, text: str, port: int) -> Iterator[int]:
    """Its process, while it listens at `port`."""
    file = folder / f"{name}.cfg"
    file.write_text(text)
    environment = {"CREDENTIALS_DIRECTORY": os.fspath(folder), "PATH": _PATH}
    with subprocess.Popen(["haproxy", "-db", "-q", "-f", file], env=environment) as process:
        try:
            _until(lambda: _connects(port))
            yield process.pid
        finally:
            process.terminate()


@contextmanager
def _gateway(folder: Path, key: X25519PrivateKey, upstream: int) -> Iterator[list[int]]:
    """Its processes: as many as in a guest of two CPUs."""
    listening = ehbp_gateway.listen(folder / "ehbp.sock")
    settings = Settings(key, ("127.0.0.1", upstream))
    with _forked(2, lambda: ehbp_gateway.serve(listening, settings, 64, 64 << 20)) as children:
        yield children


@contextmanager
def _workload() -> Iterator[int]:
    """Its port: two processes, which read and write bodies and do nothing else."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    with listener, _forked(2, lambda: _accept(listener)):
        port: int = listener.getsockname()[1]
        yield port


def _accept(listener: socket.socket) -> NoReturn:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_serve, args=(connection,), daemon=True).start()


def _serve(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    room = memoryview(bytearray(_READ))
    with connection, suppress(ConnectionError):
        data = b""
        while True:
            while http1.END not in data:
                part = connection.recv(_READ)
                if not part:
                    return
                data += part
            head, _, rest = data.partition(http1.END)
            request = http1.parse_request(head + http1.END)
            body = http1.request_body(request)
            size = sum(map(len, body.feed(rest))) if rest else 0
            while not body.ended:
                size += sum(map(len, body.feed(room[: connection.recv_into(room)])))
            answer = {"/v1/large": MIB, "/v1/echo": size}.get(request.target, len(_SMALL))
            connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {answer}\r\n\r\n".encode())
            connection.sendall(_ZEROS[:answer])
            data = b""


@contextmanager
def _forked(count: int, work: Callable[[], object]) -> Iterator[list[int]]:
    children: list[int] = []
    try:
        for _ in range(count):
            child = os.fork()
            if child == 0:
                try:
                    work()
                finally:
                    os._exit(1)
            children.append(child)
        yield children
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _connects(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not there():
        if time.monotonic() > deadline:
            raise Unavailable("HAProxy does not come up")
        time.sleep(0.02)


if __name__ == "__main__":
    main()
