"""Booted guests with containers, and what one of them says of itself through the proxy."""

from __future__ import annotations

import http.client
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import boot_logs
import forwarding
from arguments import Disk
from guest import make_config, make_guest
from hostile_disks import from_bytes
from serial_log import Outcome
from test_service import DEADLINE, Served

from tinboot.formats import bootlog

if TYPE_CHECKING:
    import pytest
    from guest import Guest, Wrapped

    from tinboot.builder import image

#: Containers need more memory than a guest without.
MEMORY = ["-m", "1536M"]


class Booted(NamedTuple):
    """`published`: of this machine, to the port of the container `gateway`."""

    served: Served
    published: int

    def app(self, path: str) -> str:
        """What the container `app` answers, through the proxy, which takes a moment to see that it may."""
        deadline = time.monotonic() + DEADLINE
        while (got := self.served.get(path)).status == 503 and time.monotonic() < deadline:
            time.sleep(0.3)
        assert got.status == 200, got
        return got.body.decode()

    def gateway(self, path: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.published, timeout=DEADLINE)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def containers(self) -> dict[str, tuple[str, str]]:
        """State and reason of each."""
        got = self.served.get("/.well-known/tinfoil-containers")
        assert got.status == 200, got
        return {item["name"]: (item["state"], item["reason"]) for item in json.loads(got.body)["containers"]}

    def until(self, status: int) -> None:
        """Readiness answers with this."""
        deadline = time.monotonic() + DEADLINE
        while (got := self.served.get("/.well-known/readyz")).status != status:
            assert time.monotonic() < deadline, (got, self.containers())
            time.sleep(0.5)


def asking(guest: Guest, stored: Wrapped, text: str, folder: Path) -> Guest:
    """A config with that image and, below, `text`; a machine that has its disk."""
    lines = ("images:", f"  - image: {stored.name}", f"    mpk: {stored.ref}")
    sections = text.format(image=stored.name, digest="5" * 64)
    changed = guest.with_config(make_config(guest.volumes, *lines) + sections.encode(), folder)
    return replace(changed, volumes=(*guest.volumes, stored), ports=(443, 2222))


def running(
    release: image.Image,
    volumes: tuple[Wrapped, ...],
    stored: Wrapped,
    text: str,
    request: pytest.FixtureRequest,
    operator: bytes | None = None,
) -> Iterator[Booted]:
    """A guest with such a config, for the tests of one module; its log stays where one of them fails."""
    failed = request.session.testsfailed
    logs = boot_logs.empty(f"{request.path}::{request.fixturename}", boot_logs.ROOT)
    with ExitStack() as stack:
        disks = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tinboot-disks-")))
        guest = asking(make_guest(release, volumes, logs, disks), stored, text, disks)
        listed = guest.disks
        if operator is not None:
            listed.append(Disk(from_bytes(operator, disks, "operator"), bootlog.OPERATOR_SERIAL))
        machine = stack.enter_context(guest.machine(listed, extra=MEMORY))
        event = machine.wait(DEADLINE)
        assert event.outcome is Outcome.UP, event
        served = Served(machine, forwarding.port(machine, 443))
        yield Booted(served, forwarding.port(machine, 2222))
    if request.session.testsfailed == failed:
        shutil.rmtree(logs)
