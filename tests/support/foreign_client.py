"""PyPI's `tinfoil`, a client that is not ours, in an environment of its own, asked to talk to a guest.

Only what cannot be genuine here is replaced in it (foreign_program.py): AMD's roots and names by the stub's,
the service that has chips' certificates by one certificate, the authorities of TLS by the guest's own
certificate, and name resolution by this machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tinboot.builder import cache as build_cache
from tinboot.builder import output, places, wheels

PROGRAM = Path(__file__).with_name("foreign_program.py")

Mode = Literal["tls", "ehbp"]

#: Seconds: most of it goes into its imports.
_DEADLINE = 180


class Roots(NamedTuple):
    """The stub's chain, DER, and the organisation in its names."""

    ark: bytes
    ask: bytes
    vcek: bytes
    organisation: str


class Server(NamedTuple):
    """Where a guest is, on this machine. `name`: one of its certificate's, which is PEM."""

    name: str
    port: int
    certificates: str


class Told(NamedTuple):
    """What the client said: `refused` is the error that it ended with, and empty where it accepted.

    `answer`: the body of the response to its request. `steps`: of its own verification document.
    """

    refused: str
    answer: bytes
    steps: dict[str, str]
    hpke: str
    tls: str


@cache
def environment() -> Path:
    """A folder with the client and all that it needs, from packages/tinfoil.lock; made if it is not there."""
    lock = places.lock_file("tinfoil")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    build = places.build_folder()
    final = build / f"tinfoil-{hashlib.sha256(lock.read_bytes() + python.encode()).hexdigest()[:16]}"
    with build_cache.alone(build / ".tinfoil.lock", lambda _: None):
        if not final.exists():
            build_cache.prune(build, "tinfoil", 1)
            wanted = wheels.parse(str(lock), lock.read_text("utf-8"))
            found = wheels.fetch(wanted, python, build / "packages" / "wheels", lambda *_: None)
            with output.scratch(final) as scratch:
                command = [
                    sys.executable,
                    "-I",
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--no-input",
                    "--no-index",
                ]
                command += ["--no-deps", "--disable-pip-version-check", "--root-user-action=ignore"]
                subprocess.run([*command, "--target", scratch / "tree", *found], check=True)
                (scratch / "tree").replace(final)
        build_cache.used(final)
    return final


def ask(
    server: Server, roots: Roots, measurement: bytes, mode: Mode, body: bytes, path: str = "/v1/embeddings"
) -> Told:
    """One verification and, if that accepts, one POST, as the client's users make them."""
    with tempfile.TemporaryDirectory(prefix="tinboot-foreign-") as home:
        certificates = Path(home, "certificates.pem")
        certificates.write_text(server.certificates)
        request = {
            "site": os.fspath(environment()),
            "name": server.name,
            "port": server.port,
            "ark": roots.ark.hex(),
            "ask": roots.ask.hex(),
            "vcek": roots.vcek.hex(),
            "organisation": roots.organisation,
            "measurement": measurement.hex(),
            "mode": mode,
            "path": path,
            "body": body.hex(),
        }
        own = {"REQUESTS_CA_BUNDLE": os.fspath(certificates), "SSL_CERT_FILE": os.fspath(certificates)}
        own |= {"HOME": home, "XDG_CACHE_HOME": home, "PATH": os.defpath}
        done = subprocess.run(
            [sys.executable, "-IB", PROGRAM],
            input=json.dumps(request).encode(),
            capture_output=True,
            env=own,
            timeout=_DEADLINE,
            check=False,
        )
    assert done.returncode == 0, done.stderr.decode()
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return Told(told["refused"], bytes.fromhex(told["answer"]), told["steps"], told["hpke"], told["tls"])
