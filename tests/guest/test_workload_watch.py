"""What systemd says of units, in the status' words."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats import workloadstatus
from tinboot.guest import workload_watch
from tinboot.guest.workload_watch import Board, Unit

#: A unit that runs, as `systemctl show` tells of it.
RUNNING = {
    "Id": "a.service",
    "LoadState": "loaded",
    "ActiveState": "active",
    "SubState": "running",
    "Result": "success",
    "ExecMainCode": "0",
    "ExecMainStatus": "0",
    "Job": "0",
    "InactiveExitTimestampMonotonic": "7",
}


def shown(**changed: str) -> str:
    return "\n".join(f"{key}={value}" for key, value in (RUNNING | changed).items())


@pytest.mark.parametrize(
    ("changed", "state", "reason"),
    [
        ({}, "running", ""),
        ({"ActiveState": "activating", "SubState": "start"}, "starting", ""),
        ({"ActiveState": "inactive", "InactiveExitTimestampMonotonic": "0", "Job": "12"}, "starting", ""),
        (
            {"ActiveState": "inactive", "InactiveExitTimestampMonotonic": "0"},
            "failed",
            "network could not be made",
        ),
        ({"ActiveState": "inactive"}, "exited", "exit status 0"),
        ({"ActiveState": "deactivating", "ExecMainStatus": "3"}, "exited", "exit status 3"),
        ({"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "3"}, "failed", "exit status 3"),
        (
            {"ActiveState": "activating", "SubState": "auto-restart", "ExecMainStatus": "3"},
            "exited",
            "exit status 3; to be started again",
        ),
        ({"ActiveState": "failed", "Result": "timeout"}, "failed", "did not start or stop in time"),
        (
            {"ActiveState": "failed", "ExecMainCode": "2", "ExecMainStatus": "11"},
            "failed",
            "killed by SIGSEGV",
        ),
        (
            {"ActiveState": "failed", "ExecMainCode": "3", "ExecMainStatus": "99"},
            "failed",
            "killed by signal 99",
        ),
        ({"ActiveState": "failed", "ExecMainStatus": "137"}, "failed", "killed by SIGKILL, as when"),
        ({"ActiveState": "failed", "ExecMainStatus": "127"}, "failed", "command cannot be run (status 127)"),
        ({"ActiveState": "failed", "ExecMainStatus": "125"}, "failed", "Podman could not start it"),
        ({"LoadState": "not-found"}, "refused", "Quadlet made no unit"),
        ({"LoadState": "bad-setting"}, "refused", "Quadlet made no unit"),
    ],
)
def test_a_unit(changed: dict[str, str], state: str, reason: str) -> None:
    found = workload_watch.parse(shown(**changed), ["a.service"])["a.service"]
    assert found.state == state
    assert found.reason.endswith(reason) if reason == "" else reason in found.reason
    assert found.engine == (changed.get("ExecMainStatus") == "125")


def test_several_units_and_one_that_is_not_told_of() -> None:
    text = shown() + "\n\n" + shown(Id="b.service", ActiveState="failed") + "\n"
    found = workload_watch.parse(text, ["a.service", "b.service", "c.service"])
    assert [found[unit].state for unit in ("a.service", "b.service", "c.service")] == [
        "running",
        "failed",
        "failed",
    ]


@pytest.mark.parametrize("text", ["", "\n\n", "Id=a.service", "no equals sign"])
def test_what_says_nothing_never_runs(text: str) -> None:
    assert workload_watch.parse(text, ["a.service"])["a.service"].state in ("failed", "refused")


@given(st.text(st.sampled_from("=\n aIdLoadStivectr.0123")))
def test_nothing_but_systemd_s_own_words_is_a_state(text: str) -> None:
    found = workload_watch.parse(text, ["a.service"])["a.service"]
    assert found.state in workloadstatus.STATES
    assert found.state != "running" or "ActiveState=active" in text


def test_signature_changes_with_the_processes(tmp_path: Path) -> None:
    nothing = workload_watch.signature("a.service", tmp_path)
    events = tmp_path / "a.service/cgroup.events"
    events.parent.mkdir()
    events.write_text("populated 1\nfrozen 0\n")
    running = workload_watch.signature("a.service", tmp_path)
    events.write_text("populated 0\nfrozen 0\n")
    assert len({nothing, running, workload_watch.signature("a.service", tmp_path)}) == 3


def test_board_keeps_the_time_of_a_state() -> None:
    board = Board()
    board.put("a", "running", "", 10)
    board.put("b", "starting", "", 10)
    board.put("a", "running", "", 20)
    assert board.status().containers[0].since_ms == 10
    assert not board.status().ready
    board.put("b", "running", "", 30)
    assert board.status().ready
    board.put("a", "exited", "two\nlines " + "x" * 1000, 40)
    status = board.status()
    assert not status.ready
    assert status.containers[0].since_ms == 40
    assert workloadstatus.parse(workloadstatus.render(status)) == status


def test_nothing_to_run_is_ready() -> None:
    assert Board().status() == workloadstatus.WorkloadStatus(True, ())


def test_unit_is_a_value() -> None:
    assert Unit("running", "") == workload_watch.judge(RUNNING)
