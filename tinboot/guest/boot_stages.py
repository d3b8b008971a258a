"""The stages of this boot with their durations, from what the initrd sealed to the workload.

    kernel          until the runner's hooks begin
    10-config …     each hook, as it was sealed
    units           from the hand-over until the evidence server starts
    identity        keys, and the first report of them
    workload        from then on until all of it is ready

Durations are the guest's own clock's. Nothing here is attested; what was verified is in the sealed file.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import NamedTuple

from tinboot.formats.bootstages import BootStages, Stage
from tinboot.formats.workloadstatus import WorkloadStatus

_MS = 1_000_000  # nanoseconds


class Moments(NamedTuple):
    """`booted`: seconds since 1970. The others: milliseconds since then, of the sealing, of the start of the
    evidence server, and of the moment in which it served.
    """

    booted: float
    sealed: int
    started: int
    serving: int


def stages(sealed: bytes, moments: Moments, workload: WorkloadStatus | None, expected: bool) -> BootStages:
    """`sealed`: bootlog.REPORT_FILE. `workload`: None where it has said nothing; `expected`: whether there is
    one in the config. Raises ValueError for another file.
    """
    boot = json.loads(sealed)
    passed = [Stage(hook["hook"], "ok", hook["ms"] * _MS) for hook in boot["hooks"]]
    last, end = _workload(moments, workload, expected)
    listed = (
        Stage("kernel", "ok", max(0, moments.sealed - boot["ms"]) * _MS),
        *passed,
        Stage("units", "ok", max(0, moments.started - moments.sealed) * _MS),
        Stage("identity", "ok", (moments.serving - moments.started) * _MS),
        last,
    )
    begun = datetime.fromtimestamp(moments.booted, UTC)
    completed = None if end is None else datetime.fromtimestamp(moments.booted + end / 1000, UTC)
    return BootStages(listed, begun, completed)


def _workload(moments: Moments, workload: WorkloadStatus | None, expected: bool) -> tuple[Stage, int | None]:
    """The stage, and when the boot was complete."""
    if not expected:
        return Stage("workload", "skipped", 0, "the config has no containers"), moments.serving
    if workload is None:
        return Stage("workload", "pending", 0), None
    if workload.ready:
        end = max((item.since_ms for item in workload.containers), default=moments.serving)
        return Stage("workload", "ok", max(0, end - moments.serving) * _MS), max(end, moments.serving)
    broken = [item for item in workload.containers if item.state not in {"starting", "running"}]
    if broken:
        return Stage("workload", "failed", 0, f"{broken[0].name} is {broken[0].state}"), None
    return Stage("workload", "pending", 0), None
