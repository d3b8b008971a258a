"""Requests with encrypted bodies, from the proxy to the workload. Called by tinboot-ehbp.service.

The private key is a credential of the unit: nothing but systemd and this process reads it.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tinboot.ehbp import hpke
from tinboot.formats.errors import Malformed
from tinboot.guest import ehbp_gateway, notify
from tinboot.guest.ehbp_exchange import Settings

SOCKET = Path("/run/tinboot-ehbp/http.sock")

#: By tinboot-prepare: one line, the workload's address and port.
UPSTREAM = Path("/run/tinboot-prepared/upstream")

CREDENTIAL = "hpke.key"

#: More processes than this serve no workload that one machine has.
_PROCESSES = 8


def upstream(text: str) -> tuple[str, int]:
    """Of `10.89.0.2:8080` and a line feed. Raises `Malformed`."""
    match = re.fullmatch(r"((?:[0-9]{1,3}\.){3}[0-9]{1,3}):([1-9][0-9]{0,4})\n", text)
    if match is None or int(match[2]) > 65535:
        raise Malformed(f"the workload's address is {text[:40]!r}, expected an IPv4 address and a port")
    return match[1], int(match[2])


def private_key(data: bytes) -> X25519PrivateKey:
    """Of 32 raw bytes. Raises `Malformed`."""
    if len(data) != hpke.KEY:
        raise Malformed(f"the HPKE key has {len(data)} bytes, expected {hpke.KEY}")
    return X25519PrivateKey.from_private_bytes(data)


def main() -> None:
    """Called by tinboot-ehbp.service; ends, with an error, when one of its processes does."""
    key = private_key(Path(os.environ["CREDENTIALS_DIRECTORY"], CREDENTIAL).read_bytes())
    settings = Settings(key, upstream(UPSTREAM.read_text("ascii")))
    listening = ehbp_gateway.listen(SOCKET)
    count = min(_PROCESSES, len(os.sched_getaffinity(0)))
    requests, memory = ehbp_gateway.REQUESTS // count, ehbp_gateway.MEMORY // count
    notify.ready()
    ehbp_gateway.in_processes(count, lambda: ehbp_gateway.serve(listening, settings, requests, memory))
    sys.exit("a process of the gateway has ended")


if __name__ == "__main__":
    main()
