"""Whether the workload answers, from what tinboot-workload says of it; asked anew with each request."""

from __future__ import annotations

from pathlib import Path

from tinboot.formats import workloadstatus
from tinboot.formats.errors import Malformed
from tinboot.formats.workloadstatus import WorkloadStatus

PATH = Path(workloadstatus.PATH)


def read(path: Path = PATH) -> WorkloadStatus | None:
    """None where nothing is said, or nothing that can be read."""
    try:
        with path.open("rb") as file:
            return workloadstatus.parse(file.read(workloadstatus.MAX_SIZE + 1))
    except (OSError, Malformed):
        return None


def lack(status: WorkloadStatus | None, expected: bool) -> str:
    """Why the workload is not ready; empty where it is. `expected`: whether the config has containers."""
    if not expected:
        return "the config has no containers"
    if status is None:
        return "the workload has not been started"
    if status.ready:
        return ""
    waited = [f"{item.name} is {item.state}" for item in status.containers if item.state != "running"]
    return ", ".join(waited)[:400] or "the workload is not healthy"
