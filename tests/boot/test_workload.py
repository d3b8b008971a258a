"""Containers in the booted guest: what one gets, and what it cannot do."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from test_service import DEADLINE
from workload_guests import Booted, running

from tinboot.formats import operatorinput

if TYPE_CHECKING:
    from guest import Wrapped

    from tinboot.builder import image

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

OPERATOR = {"env": {"DOMAIN": "a.example"}, "secrets": {"API_KEY": "two\nlines $ %n"}}


@pytest.fixture(scope="module")
def good(
    release: image.Image, wrapped: tuple[Wrapped, Wrapped], probe: Wrapped, request: pytest.FixtureRequest
) -> Iterator[Booted]:
    operator = operatorinput.pad(json.dumps(OPERATOR).encode())
    for booted in running(release, wrapped[:1], probe, GOOD, request, operator):
        booted.until(200)
        yield booted


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
    """The last but one: afterwards `gateway` is gone."""
    assert good.served.get("/exit/3").status >= 500
    good.until(503)
    good.until(200)
    assert good.app("/") == "probe"
    with pytest.raises((OSError, http.client.HTTPException)):
        good.gateway("/exit/5")
    good.until(503)
    assert good.containers()["gateway"] == ("failed", "exit status 5")
    assert good.containers()["app"] == ("running", "")


def test_powers_off_in_order_with_containers_running(good: Booted) -> None:
    """The last of them."""
    good.served.machine.execute("system_powerdown")
    ended = good.served.machine.end(seconds=DEADLINE)
    assert ended.by_itself
    assert ended.status == 0
    assert "tinboot-power-off" in good.served.machine.log.read_text(errors="replace")
