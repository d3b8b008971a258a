"""Readiness: only what tinboot-workload says, as a whole, and now."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinboot.formats import workloadstatus
from tinboot.formats.workloadstatus import MAX_SIZE, Container, WorkloadStatus
from tinboot.guest import readiness

RUNS = Container("embed", "running", "", 1)
FAILED = Container("chat", "failed", "status 3", 2)


def test_reads_what_was_written(tmp_path: Path) -> None:
    status = WorkloadStatus(False, (RUNS, FAILED))
    (tmp_path / "status").write_bytes(workloadstatus.render(status))
    assert readiness.read(tmp_path / "status") == status


@pytest.mark.parametrize("data", [b"", b"{}", b'{"ready":true}', b" " * (MAX_SIZE + 1), b"\xff"])
def test_what_cannot_be_read_says_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "status").write_bytes(data)
    assert readiness.read(tmp_path / "status") is None


def test_nothing_there(tmp_path: Path) -> None:
    assert readiness.read(tmp_path / "status") is None


@pytest.mark.parametrize(
    ("status", "expected", "lack"),
    [
        (WorkloadStatus(True, (RUNS,)), True, ""),
        (WorkloadStatus(True, (RUNS,)), False, "the config has no containers"),
        (None, True, "the workload has not been started"),
        (WorkloadStatus(False, (RUNS, FAILED)), True, "chat is failed"),
        (WorkloadStatus(False, (RUNS,)), True, "the workload is not healthy"),
        (WorkloadStatus(False, ()), True, "the workload is not healthy"),
    ],
)
def test_what_is_lacking(status: WorkloadStatus | None, expected: bool, lack: str) -> None:
    assert readiness.lack(status, expected) == lack


def test_a_reason_has_an_end() -> None:
    many = tuple(FAILED._replace(name=f"container-{number}") for number in range(64))
    assert len(readiness.lack(WorkloadStatus(False, many), True)) == 400
