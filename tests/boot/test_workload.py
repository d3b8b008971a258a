"""Containers in the booted guest: what one gets, what it cannot do, and what the status says when it ends."""

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
import compiled
import forwarding
import probe_image
import pytest
import registry
from arguments import Disk
from guest import make_config, make_guest
from hostile_disks import Flip, from_bytes
from oci_layouts import digest_of
from serial_log import Outcome
from test_service import DEADLINE, Served

from tinboot.formats import bootlog, operatorinput
from tinboot.formats.verity import BLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from guest import Guest, Wrapped

    from tinboot.builder import image

#: Containers need more memory than a guest without.
MEMORY = ["-m", "1536M"]

GOOD = """
networks:
  inside:
  out:
    egress: open
volumes:
  - name: work
    owner: 1000
containers:
  - name: app
    image: {image}
    entrypoint: [/probe]
    command: ["serve", "a $X %n", ""]
    user: "1000:1000"
    env:
      - LITERAL: "x $HOME %n \\"y\\""
      - DOMAIN
    secrets: [API_KEY]
    models: [alpha]
    volumes: ["work:/srv/work"]
    tmpfs:
      /tmp: size=1m,mode=1777,noexec
    cap_add: [NET_BIND_SERVICE]
    networks: [inside]
    memory: 100m
    pids_limit: 50
    read_only: true
    restart: always
    healthcheck:
      test: [CMD, /probe, check, /models/alpha/config.json]
      interval: 5s
  - name: gateway
    image: {image}
    networks: [inside, out]
    ports: ["2222:8080"]
cvm-network:
  inbound-ports: [443, 2222]
shim:
  upstream-port: 8080
  upstream-container: app
  paths: ["/*"]
"""

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

OPERATOR = {"env": {"DOMAIN": "a.example"}, "secrets": {"API_KEY": "two\nlines $ %n"}}


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


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Wrapped:
    return probe_image.make(tmp_path_factory.mktemp("probe"))


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
    logs = boot_logs.empty(f"{__file__}::{request.fixturename}", boot_logs.ROOT)
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


@pytest.fixture(scope="module")
def good(
    release: image.Image, wrapped: tuple[Wrapped, Wrapped], stored: Wrapped, request: pytest.FixtureRequest
) -> Iterator[Booted]:
    operator = operatorinput.pad(json.dumps(OPERATOR).encode())
    for booted in running(release, wrapped[:1], stored, GOOD, request, operator):
        booted.until(200)
        yield booted


@pytest.fixture(scope="module")
def bad(release: image.Image, stored: Wrapped, request: pytest.FixtureRequest) -> Iterator[Booted]:
    yield from running(release, (), stored, BAD, request)


def test_every_container_runs(good: Booted) -> None:
    assert good.containers() == {"app": ("running", ""), "gateway": ("running", "")}
    assert good.app("/") == good.gateway("/") == "probe"


def test_arguments_and_variables_are_the_configs(good: Booted) -> None:
    assert good.app("/words").split("\0") == ["/probe", "serve", "a $X %n", "", ""]
    found = dict(line.partition("=")[::2] for line in good.app("/read/proc/self/environ").split("\0") if line)
    assert found.pop("HOSTNAME")
    assert found == {
        "LITERAL": 'x $HOME %n "y"',
        "DOMAIN": "a.example",
        "API_KEY": "two\nlines $ %n",
        "PATH": "/",
        "HOME": "/",
        "container": "podman",
    }


def test_no_privilege_that_the_config_does_not_name(good: Booted) -> None:
    status = dict(line.partition(":\t")[::2] for line in good.app("/read/proc/self/status").splitlines())
    assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {f"{1 << 10:016x}"}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert status["Uid"].split() == ["1000"] * 4
    assert good.app("/read/proc/self/uid_map").split() == ["0", str(1 << 20), "65536"]
    other = dict(line.partition(":\t")[::2] for line in good.gateway("/read/proc/self/status").splitlines())
    assert {other[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert good.gateway("/read/proc/self/uid_map").split() == ["0", str((1 << 20) + (1 << 16)), "65536"]


def test_limits_are_the_configs(good: Booted) -> None:
    assert good.app("/read/sys/fs/cgroup/memory.max").strip() == str(100 << 20)
    assert good.app("/read/sys/fs/cgroup/pids.max").strip() == "50"


def test_writes_only_where_the_config_says(good: Booted) -> None:
    for path in ("/x", "/models/alpha/x", "/models/alpha/config.json", "/run/x", "/var/tmp/x"):
        assert good.app(f"/write{path}") in ("Read-only file system", "No such file or directory")
    for path in ("/srv/work/x", "/tmp/.x"):
        assert good.app(f"/write{path}") == "written"
    mounts = {
        line.split()[4]: line.split()[5].split(",")
        for line in good.app("/read/proc/self/mountinfo").splitlines()
    }
    assert "ro" in mounts["/"]
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(mounts["/models/alpha"])
    assert {"rw", "nosuid", "nodev", "noexec"} <= set(mounts["/srv/work"])
    assert {"rw", "nosuid", "nodev", "noexec"} <= set(mounts["/tmp"])


def test_devices_are_none_of_the_machines(good: Booted) -> None:
    for path in ("/dev/sev-guest", "/dev/vda", "/dev/mapper/root", "/dev/console", "/dev/kmsg", "/dev/mem"):
        assert good.app(f"/read{path}") in ("No such file or directory", "Permission denied")
    assert json.loads(good.app("/read/models/alpha/config.json")) == {"model_type": "alpha"}


def test_a_closed_network_leads_nowhere(good: Booted) -> None:
    assert good.app("/connect/10.0.2.2/80") == "Network is unreachable"
    assert good.app("/connect/10.89.2.3/8080") == "Network is unreachable"
    assert good.app("/connect/10.89.1.3/8080") == "connected"
    assert good.app("/connect/10.89.1.1/443") == "no answer"


def test_an_open_network_leads_out_and_ports_lead_in(good: Booted) -> None:
    assert good.gateway("/connect/10.0.2.2/80") != "Network is unreachable"
    assert "10.89.1.2\tapp" in good.gateway("/read/etc/hosts").replace(" ", "\t")
    assert good.gateway("/via/10.89.1.2/8080/").endswith("probe")


def test_an_exit_takes_readiness_down_and_the_policy_brings_it_back(good: Booted) -> None:
    """The last of the good ones: afterwards `gateway` is gone."""
    assert good.served.get("/exit/3").status >= 500
    good.until(503)
    good.until(200)
    assert good.app("/") == "probe"
    with pytest.raises((OSError, http.client.HTTPException)):
        good.gateway("/exit/5")
    good.until(503)
    assert good.containers()["gateway"] == ("failed", "exit status 5")
    assert good.containers()["app"] == ("running", "")


def test_each_that_does_not_run_says_why(bad: Booted, stored: Wrapped) -> None:
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
    guest: Guest, stored: Wrapped, disk_dir: Path, copy: Callable[..., Path]
) -> None:
    """Podman compares nothing; the kernel stops the machine at the first altered block of the program."""
    program = compiled.probe().read_bytes()
    at = stored.path.read_bytes().index(program[BLOCK : 2 * BLOCK])
    altered = Disk(copy(stored.path, Flip(at + 100)), stored.disk.serial)
    text = "containers:\n  - name: app\n    image: {image}\n"
    changed = asking(guest, stored, text, disk_dir)
    disks: Sequence[Disk] = [altered if d == stored.disk else d for d in changed.disks]
    result = changed.boot(disks=disks, marker="no line says this", extra=MEMORY, deadline=DEADLINE)
    result.expect_panic("dm-verity device corrupted")
