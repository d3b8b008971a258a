"""Containers that do not run, or not any more: each with its reason on the status endpoint."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import compiled
import forwarding
import probe_image
import pytest
import registry
from arguments import Disk
from guest import make_config
from hostile_disks import Flip
from oci_layouts import digest_of
from serial_log import Outcome
from test_service import DEADLINE, Served
from workload_guests import MEMORY, Booted, asking, running

from tinboot.formats.verity import BLOCK

if TYPE_CHECKING:
    from pathlib import Path

    from guest import Guest, Wrapped

    from tinboot.builder import image

BAD = """
networks:
  inside:
containers:
  - name: lost
    image: localhost/lost@sha256:{digest}
  - name: three
    image: {image}
    entrypoint: [/probe, exit, "3"]
  - name: again
    image: {image}
    entrypoint: [/probe, exit, "4"]
    restart: always
  - name: asks
    image: {image}
    networks: [inside]
    ports: ["2222:8080"]
  - name: ill
    image: {image}
    healthcheck:
      test: [CMD, /probe, check, /nothing]
      interval: 1s
      retries: 1
shim:
  upstream-port: 8080
  upstream-container: ill
  paths: ["/*"]
"""

REGISTRY = """
containers:
  - name: good
    image: {registry}/good@{digest}
  - name: bad
    image: {registry}/bad@{second}
shim:
  upstream-port: 8080
  upstream-container: good
  paths: ["/*"]
"""


@pytest.fixture
def bad(release: image.Image, probe: Wrapped, request: pytest.FixtureRequest) -> Iterator[Booted]:
    yield from running(release, (), probe, BAD, request)


def test_each_that_does_not_run_says_why(bad: Booted, probe: Wrapped) -> None:
    expected = {
        "lost": ("failed", f"localhost/lost@sha256:{'5' * 64} is not in the store"),
        "three": ("failed", "exit status 3"),
        "asks": ("refused", "containers.asks.ports: published only from a network"),
        "ill": ("failed", "its health check failed 1 times"),
        "again": ("exited", "exit status 4; to be started again"),
    }
    deadline = time.monotonic() + 2 * DEADLINE
    wrong = dict(expected)
    while wrong:
        assert time.monotonic() < deadline, (wrong, bad.containers())
        found = bad.containers()
        for name, (state, reason) in tuple(wrong.items()):
            if found[name][0] == state and found[name][1].startswith(reason):
                del wrong[name]
        time.sleep(0.3)
    assert bad.served.get("/.well-known/readyz").status == 503
    assert bad.served.get("/.well-known/livez").status == 200


def test_a_registry_is_believed_its_digests_alone(guest: Guest, disk_dir: Path) -> None:
    """Two images from a registry of the host's: one as it should be, one with another layer."""
    layout, digest = probe_image.layout()
    manifest = json.loads(layout.blobs[digest])
    layer = manifest["layers"][1]["digest"]
    claimed = f"sha256:{'5' * 64}"
    changed = json.dumps(manifest).replace(layer, claimed).encode()
    second = digest_of(changed)
    blobs = layout.blobs | {second: changed, claimed: layout.blobs[layer]}
    with registry.serving(blobs) as port:
        text = REGISTRY.format(registry=f"10.0.2.2:{port}", digest=digest, second=second)
        asked = guest.with_config(make_config(guest.volumes) + text.encode(), disk_dir)
        network = ["-nic", "user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:0-:443"]
        with asked.machine(extra=[*MEMORY, *network]) as machine:
            event = machine.wait(DEADLINE)
            assert event.outcome is Outcome.UP, event
            booted = Booted(Served(machine, forwarding.port(machine, 443)), 0)
            deadline = time.monotonic() + 2 * DEADLINE
            found = booted.containers()
            while "starting" in {state for state, _ in found.values()}:
                assert time.monotonic() < deadline, found
                time.sleep(0.5)
                found = booted.containers()
    assert found["good"] == ("running", "")
    assert found["bad"] == ("failed", f"10.0.2.2:{port}/bad@{second} is not in the store")


def test_an_altered_layer_never_runs(
    guest: Guest, probe: Wrapped, disk_dir: Path, copy: Callable[..., Path]
) -> None:
    """Podman compares nothing; the kernel stops the machine at the first altered block of the program."""
    program = compiled.probe().read_bytes()
    at = probe.path.read_bytes().index(program[BLOCK : 2 * BLOCK])
    altered = Disk(copy(probe.path, Flip(at + 100)), probe.disk.serial)
    text = "containers:\n  - name: app\n    image: {image}\n"
    changed = asking(guest, probe, text, disk_dir)
    disks: Sequence[Disk] = [altered if d == probe.disk else d for d in changed.disks]
    result = changed.boot(disks=disks, marker="no line says this", extra=MEMORY, deadline=DEADLINE)
    result.expect_panic("dm-verity device corrupted")
