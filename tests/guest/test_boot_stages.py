"""Stages of a boot: durations from what was sealed, and an end only with the workload."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from tinboot.formats import bootstages
from tinboot.formats.bootstages import Stage
from tinboot.formats.workloadstatus import Container, WorkloadStatus
from tinboot.guest.boot_stages import Moments, stages

SEALED = json.dumps(
    {"cmdline": "", "hooks": [{"hook": "10-config", "ms": 40, "found": {}}], "ms": 900}
).encode()
BOOTED = datetime(2026, 11, 25, 14, tzinfo=UTC)
MOMENTS = Moments(BOOTED.timestamp(), sealed=2900, started=5000, serving=5600)


def container(state: str, since_ms: int = 7000) -> Container:
    return Container("embed", state, "", since_ms)


def test_until_it_serves() -> None:
    found = stages(SEALED, MOMENTS, None, True)
    assert found.stages == (
        Stage("kernel", "ok", 2000 * 1_000_000),
        Stage("10-config", "ok", 40 * 1_000_000),
        Stage("units", "ok", 2100 * 1_000_000),
        Stage("identity", "ok", 600 * 1_000_000),
        Stage("workload", "pending", 0),
    )
    assert found.started == BOOTED
    assert found.completed is None
    assert bootstages.parse(bootstages.render(found)) == found


@pytest.mark.parametrize(
    ("status", "expected", "last", "completed"),
    [
        (None, False, Stage("workload", "skipped", 0, "the config has no containers"), 5.6),
        (WorkloadStatus(False, (container("starting"),)), True, Stage("workload", "pending", 0), None),
        (WorkloadStatus(False, (container("running"),)), True, Stage("workload", "pending", 0), None),
        (WorkloadStatus(True, (container("running"),)), True, Stage("workload", "ok", 1_400_000_000), 7),
        (WorkloadStatus(True, (container("running", 5000),)), True, Stage("workload", "ok", 0), 5.6),
        (
            WorkloadStatus(False, (container("exited"),)),
            True,
            Stage("workload", "failed", 0, "embed is exited"),
            None,
        ),
        (
            WorkloadStatus(False, (container("refused"),)),
            True,
            Stage("workload", "failed", 0, "embed is refused"),
            None,
        ),
    ],
)
def test_the_workload(
    status: WorkloadStatus | None, expected: bool, last: Stage, completed: float | None
) -> None:
    found = stages(SEALED, MOMENTS, status, expected)
    assert found.stages[-1] == last
    assert found.completed == (None if completed is None else BOOTED + timedelta(seconds=completed))


def test_a_clock_that_was_set_back_makes_no_negative_durations() -> None:
    found = stages(SEALED, MOMENTS._replace(sealed=100, started=50), None, True)
    assert all(stage.duration_ns >= 0 for stage in found.stages)
