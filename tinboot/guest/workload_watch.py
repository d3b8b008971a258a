"""What systemd says of the containers' units, in the words of the workload's status.

Units are asked after only when a control group changed (cgroups(7), `cgroup.events`), or while one is on its
way: a look at a file costs microseconds, `systemctl` tens of milliseconds.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tinboot.formats import workloadstatus

CGROUPS = Path("/sys/fs/cgroup/system.slice")

#: Of `systemctl show` (org.freedesktop.systemd1(5)).
PROPERTIES = (
    *("Id", "LoadState", "ActiveState", "SubState", "Result", "ExecMainCode", "ExecMainStatus"),
    *("Job", "InactiveExitTimestampMonotonic"),
)

_KILLED, _DUMPED = "2", "3"  # CLD_KILLED, CLD_DUMPED of waitid(2)
_ENGINE_FAILED = "125"  # podman-run(1), "Exit Status": the error is with Podman itself
_NOT_EXECUTABLE, _NOT_FOUND = "126", "127"  # the same: the command cannot be invoked, cannot be found


class Unit(NamedTuple):
    """Where a unit stands. `engine`: Podman failed before anything of the container ran."""

    state: str
    reason: str
    engine: bool = False


def signature(unit: str, cgroups: Path = CGROUPS) -> tuple[int, bytes]:
    """Changes whenever the unit's processes begin or end; nothing where it has none."""
    folder = cgroups / unit
    try:
        return folder.stat().st_ino, (folder / "cgroup.events").read_bytes()
    except OSError:
        return 0, b""


def parse(text: str, units: Sequence[str]) -> dict[str, Unit]:
    """`text`: what `systemctl show` says of `units`. One that it does not tell of has failed."""
    found = {}
    for block in text.split("\n\n"):
        fields = dict(line.partition("=")[::2] for line in block.splitlines())
        found[fields.get("Id", "")] = judge(fields)
    return {unit: found.get(unit, Unit("failed", "systemd does not know the unit")) for unit in units}


def judge(fields: dict[str, str]) -> Unit:
    """One unit's properties. A unit that waits to be restarted has ended; one that starts has not begun."""
    active, sub = fields.get("ActiveState", ""), fields.get("SubState", "")
    if fields.get("LoadState") != "loaded":
        return Unit("refused", "Quadlet made no unit of it that systemd reads")
    if active == "active":
        return Unit("running", "")
    why, engine = ended(fields)
    if active == "failed":
        return Unit("failed", why, engine)
    if sub == "auto-restart":
        return Unit("exited", f"{why}; to be started again", engine)
    if active in ("activating", "reloading"):
        return Unit("starting", "")
    if fields.get("InactiveExitTimestampMonotonic") in (None, "", "0"):  # it never began
        waits = fields.get("Job", "") not in ("", "0")
        return Unit("starting", "") if waits else Unit("failed", "its network could not be made")
    return Unit("exited", why, engine)


def ended(fields: dict[str, str]) -> tuple[str, bool]:
    """Why, and whether it was Podman that failed."""
    result, code, status = (fields.get(name, "") for name in ("Result", "ExecMainCode", "ExecMainStatus"))
    if result == "timeout":
        return "it did not start or stop in time", False
    if code in (_KILLED, _DUMPED):
        return f"killed by {_signal(status)}", False
    if status == _ENGINE_FAILED:
        return "Podman could not start it (status 125)", True
    if status in (_NOT_EXECUTABLE, _NOT_FOUND):
        return f"its command cannot be run (status {status})", False
    if status == "137":  # 128 and SIGKILL
        return "killed by SIGKILL, as when it has no memory left", False
    return f"exit status {status}", False


def _signal(number: str) -> str:
    try:
        return signal.Signals(int(number)).name
    except ValueError:
        return f"signal {number}"


class Board:
    """The status, with the time at which each container came into its state."""

    def __init__(self) -> None:
        self._entries: dict[str, workloadstatus.Container] = {}

    def put(self, name: str, state: str, reason: str, now_ms: int) -> None:
        """`now_ms` counts only where state or reason are new."""
        reason = " ".join(reason.split())[: workloadstatus.MAX_REASON]
        old = self._entries.get(name)
        if old is None or (old.state, old.reason) != (state, reason):
            self._entries[name] = workloadstatus.Container(name, state, reason, now_ms)

    def status(self) -> workloadstatus.WorkloadStatus:
        containers = tuple(self._entries.values())
        return workloadstatus.WorkloadStatus(all(c.state == "running" for c in containers), containers)
