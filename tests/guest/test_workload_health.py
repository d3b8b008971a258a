"""Health checks: how often, how long, and what they make of a container that runs."""

from __future__ import annotations

import subprocess

import pytest

from tinboot.formats.config_container import Healthcheck
from tinboot.guest import podman
from tinboot.guest.workload_health import Health, command

SECOND = 1000


class Check:
    """A process that a test lets end."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.killed = False

    def poll(self) -> int | None:
        return self.status

    def kill(self) -> None:
        self.killed = True

    def wait(self) -> int:
        return -9


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Check]:
    """Every check that was started."""
    checks: list[Check] = []

    def start(words: object, **_: object) -> Check:
        checks.append(Check())
        return checks[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    return checks


def health() -> Health:
    made = Health("app", Healthcheck(("CMD", "/check"), 10 * SECOND, 5 * SECOND, 2, 20 * SECOND))
    made.restarted(0)
    return made


def test_commands_as_engines_take_them() -> None:
    def inside(*test: str) -> list[str]:
        return list(command("app", Healthcheck(test)))

    assert inside("CMD", "curl", "-f", "a b") == [podman.PODMAN, "exec", "app", "curl", "-f", "a b"]
    assert inside("CMD-SHELL", "a || b") == [podman.PODMAN, "exec", "app", "/bin/sh", "-c", "a || b"]
    assert inside("NONE") == []


def test_none_is_healthy_at_once() -> None:
    assert Health("app", Healthcheck(("NONE",))).look(0) == ("running", "")


def test_starts_with_the_first_that_passes(started: list[Check]) -> None:
    check = health()
    assert check.look(0)[0] == "starting"
    assert check.look(1)[0] == "starting"
    assert len(started) == 1
    started[0].status = 0
    assert check.look(2) == ("running", "")
    check.look(9 * SECOND)
    assert len(started) == 1
    check.look(11 * SECOND)
    assert len(started) == 2


def test_failures_of_the_start_period_do_not_count(started: list[Check]) -> None:
    check, now = health(), 0
    while now < 19 * SECOND:
        state, _ = check.look(now)
        assert state == "starting"
        started[-1].status = 1
        now += SECOND
    while check.look(now)[0] == "starting":
        started[-1].status = 1
        now += SECOND
    assert check.look(now) == ("failed", "its health check failed 2 times")
    assert 20 * SECOND <= now < 30 * SECOND


def test_fails_after_so_many_and_comes_back(started: list[Check]) -> None:
    check = health()
    check.look(0)
    started[-1].status = 0
    check.look(1)
    for n, expected in enumerate(["running", "failed"], 1):
        check.look(n * 11 * SECOND)
        started[-1].status = 1
        assert check.look(n * 11 * SECOND + 1)[0] == expected
    check.look(50 * SECOND)
    started[-1].status = 0
    assert check.look(51 * SECOND) == ("running", "")


def test_one_that_hangs_is_killed_and_has_failed(started: list[Check]) -> None:
    check = health()
    check.look(0)
    started[-1].status = 0
    check.look(1)
    check.look(11 * SECOND)
    assert check.look(15 * SECOND) == ("running", "")
    assert not started[-1].killed
    check.look(17 * SECOND)
    assert started[-1].killed


def test_a_new_start_is_judged_anew(started: list[Check]) -> None:
    check = health()
    check.look(0)
    started[-1].status = 0
    assert check.look(1)[0] == "running"
    check.look(11 * SECOND)
    check.restarted(12 * SECOND)
    assert started[-1].killed
    assert check.look(12 * SECOND)[0] == "starting"
