"""How the workload is doing, as tinboot-workload writes it and the status endpoint serves it.

{"ready":false,"containers":[{"name":"embed","state":"failed","reason":"status 3","since_ms":41200}]}
"""

from __future__ import annotations

import json
from typing import NamedTuple

from tinboot.formats.errors import Malformed
from tinboot.formats.jsonfields import Fields, parse_object

#: Where it lies in the guest; written beside and renamed, so that nobody reads half of one.
PATH = "/run/tinboot-workload/status.json"

#: refused: what it asks for is not allowed, or its image is not the config's; it never ran.
STATES = ("starting", "running", "exited", "failed", "refused")

MAX_SIZE = 64 << 10  # bytes
MAX_CONTAINERS = 64  # as many as a config may have
MAX_REASON = 512  # characters
_LONGEST = 1 << 53  # milliseconds


class Container(NamedTuple):
    """`state`: one of `STATES`, since so many milliseconds after the boot. `reason`: one line, or nothing."""

    name: str
    state: str
    reason: str
    since_ms: int


class WorkloadStatus(NamedTuple):
    """`ready`: every container runs, and is healthy where it has a check of that."""

    ready: bool
    containers: tuple[Container, ...]


def render(status: WorkloadStatus) -> bytes:
    members = {"ready": status.ready, "containers": [item._asdict() for item in status.containers]}
    return json.dumps(members, separators=(",", ":")).encode() + b"\n"


def parse(data: bytes) -> WorkloadStatus:
    """The inverse; raises `Malformed` with the member's path, and for a ready one of which a part is not."""
    fields = parse_object("workload status", data, MAX_SIZE)
    ready, entries = fields.boolean("ready"), fields.records("containers")
    fields.end()
    if len(entries) > MAX_CONTAINERS:
        raise Malformed(f"the status of {len(entries)} containers, expected at most {MAX_CONTAINERS}")
    containers = tuple(_container(entry) for entry in entries)
    if len({item.name for item in containers}) != len(containers):
        raise Malformed("workload status.containers has a name twice")
    if ready and any(item.state != "running" for item in containers):
        raise Malformed("workload status is ready, and a container is not running")
    return WorkloadStatus(ready, containers)


def _container(entry: Fields) -> Container:
    found = Container(
        entry.text("name", 128),
        entry.one_of("state", STATES),
        entry.text("reason", MAX_REASON, 0),
        entry.integer("since_ms", 0, _LONGEST),
    )
    entry.end()
    return found
