"""Starts the config's containers, watches them, and says how they are (formats/workloadstatus.py).

What is to run lies ready (workload_units.py, tinboot-prepare). A container that cannot run does not end the
machine: the machine is not ready, the status says why, and the evidence is there for whoever looks.
"""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

from tinboot.formats import bootlog, config, workloadstatus
from tinboot.formats.config import Config
from tinboot.guest import cdi, podman, workload_plan, workload_units, workload_volumes, workload_watch
from tinboot.guest.workload_health import Health
from tinboot.guest.workload_watch import Board, Unit

UNITS = Path("/run/systemd/system")  # systemd.unit(5): runtime units
#: Of Podman, which does not make it; crun passes through it as the container's root.
SCRATCH = Path("/var/tmp")  # noqa: S108 - only root writes there

#: Seconds between looks at the control groups, and after which units are asked after without a change.
_TICK, _LONGEST = 0.5, 30.0
_ALIVE = 30.0  # seconds between words to PID 1, which waits for six times that (WatchdogSec= of the unit)
_SHOW = 30.0  # seconds for systemctl; systemd itself may be busy


class Supervisor:
    """The containers of one config, but those that are `refused`: name to reason. Writes `status`."""

    def __init__(self, config: Config, refused: dict[str, str], status: Path) -> None:
        self._path = status
        self._board = Board()
        self._units = {c.name: workload_plan.unit(c) for c in config.containers if c.name not in refused}
        self._images = {c.name: c.image for c in config.containers}
        self._health = {
            c.name: Health(c.name, c.healthcheck)
            for c in config.containers
            if c.healthcheck is not None and c.name in self._units
        }
        self._known: dict[str, Unit] = {}
        self._stored: dict[str, bool] = {}
        self._signatures: dict[str, tuple[int, bytes]] = {}
        self._shown = 0.0
        self._written = b""
        for container in config.containers:
            if container.name in refused:
                self._board.put(container.name, "refused", refused[container.name], now_ms())
            else:
                self._board.put(container.name, "starting", "", now_ms())

    def start(self) -> None:
        """Has systemd start the units; how that goes is seen by `look`. Raises RuntimeError."""
        self.write()
        podman.expect([podman.SYSTEMCTL, "daemon-reload"], 120)
        if self._units:
            podman.expect([podman.SYSTEMCTL, "--no-block", "start", *self._units.values()], 60)

    def look(self) -> None:
        """Once every tick."""
        signatures = {unit: workload_watch.signature(unit) for unit in self._units.values()}
        moving = any(unit.state == "starting" for unit in self._known.values()) or not self._known
        late = time.monotonic() - self._shown > (1.0 if moving else _LONGEST)
        if self._units and (late or signatures != self._signatures):
            self._signatures = signatures
            self._show()
        for name in self._units:
            self._judge(name)
        self.write()

    def _show(self) -> None:
        units = list(self._units.values())
        properties = f"--property={','.join(workload_watch.PROPERTIES)}"
        done = podman.run([podman.SYSTEMCTL, "show", properties, *units], _SHOW)
        self._shown = time.monotonic()
        if done.status:
            found = dict.fromkeys(units, Unit("failed", f"systemd does not answer: {done.output}"))
        else:
            found = workload_watch.parse(done.output, units)
        for name, unit in self._units.items():
            before, after = self._known.get(name), found[unit]
            if after.engine:
                after = after._replace(reason=self._engine(name, after.reason))
            if after != before and name in self._health:
                self._health[name].restarted(now_ms())
            self._known[name] = after

    def _engine(self, name: str, reason: str) -> str:
        """Why Podman may have failed; asked once, however often it is started again."""
        if name not in self._stored:
            self._stored[name] = podman.image_is_there(self._images[name])
        return reason if self._stored[name] else f"{self._images[name]} is not in the store"

    def _judge(self, name: str) -> None:
        known = self._known.get(name)
        if known is None:
            return
        state, reason = known.state, known.reason
        if state == "running" and name in self._health:
            state, reason = self._health[name].look(now_ms())
        self._board.put(name, state, reason, now_ms())

    def write(self) -> None:
        """Beside it, then renamed: nobody reads half of one. Only where it is another than before."""
        data = workloadstatus.render(self._board.status())
        if data != self._written:
            beside = self._path.with_suffix(".new")
            beside.write_bytes(data)
            beside.replace(self._path)
            self._written = data


def now_ms() -> int:
    """Since the boot."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def offer_gpus(config: Config, folder: Path = cdi.FOLDER, devices: Path = cdi.DEVICES) -> dict[str, str]:
    """To the containers that ask for some; where they cannot be had, those and why."""
    asking = [container.name for container in config.containers if container.gpus is not None]
    if not asking:
        return {}
    try:
        cdi.write(config.gpus, folder, devices)
    except OSError as error:
        return dict.fromkeys(asking, f"its GPUs: {error}")
    return {}


def make_units(prepared: Path) -> None:
    """The operator's values into Podman's keeping, then Quadlet's units. Raises RuntimeError, OSError."""
    secrets = prepared / workload_units.SECRETS_FOLDER
    for path in sorted(secrets.iterdir()) if secrets.is_dir() else ():
        podman.expect([podman.PODMAN, "secret", "create", "--replace", path.name, str(path)], 120)
        path.unlink()
    UNITS.mkdir(exist_ok=True)
    podman.expect([podman.QUADLET, "-no-kmsg-log", str(UNITS)], 60)


def notify(words: str) -> None:
    """sd_notify(3)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.connect(os.environ["NOTIFY_SOCKET"])
        sender.sendall(words.encode())


def main() -> None:
    """Called by tinboot-workload.service. Does not return."""
    prepared = Path(workload_units.FOLDER)
    loaded = config.load(Path(bootlog.SEALED, "config.yml").read_bytes())
    refused: dict[str, str] = json.loads((prepared / workload_units.REFUSED_FILE).read_bytes())
    refused |= offer_gpus(loaded)
    supervisor = Supervisor(loaded, refused, Path(workloadstatus.PATH))
    workload_volumes.mount(loaded)
    podman.expect([podman.NFT, "-f", str(prepared / workload_units.FIREWALL_FILE)], 60)
    SCRATCH.mkdir(mode=0o711, exist_ok=True)
    make_units(prepared)
    supervisor.start()
    notify("READY=1")
    told = time.monotonic()
    while True:
        supervisor.look()
        if time.monotonic() - told > _ALIVE:
            notify("WATCHDOG=1")
            told = time.monotonic()
        time.sleep(_TICK)


if __name__ == "__main__":
    main()
