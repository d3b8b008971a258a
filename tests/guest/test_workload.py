"""The supervisor, with a systemd and a Podman that tests speak for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from workload_configs import IMAGE, config

from tinboot.formats import workloadstatus
from tinboot.guest import podman, workload, workload_watch
from tinboot.guest.podman import Done
from tinboot.guest.workload import Supervisor
from tinboot.guest.workload_health import Health


class Systemd:
    """Answers for units by the fields that a test has set; notes what it was told."""

    def __init__(self) -> None:
        self.units: dict[str, dict[str, str]] = {}
        self.told: list[list[str]] = []
        self.silent = False
        self.stored = True

    def set(self, name: str, active: str, status: int = 0, sub: str = "") -> None:
        """The container `name`."""
        unit = f"tinboot-container-{name}.service"
        self.units[unit] = {
            "Id": unit,
            "LoadState": "loaded",
            "ActiveState": active,
            "SubState": sub,
            "Result": "x",
            "ExecMainCode": "1",
            "ExecMainStatus": str(status),
            "InactiveExitTimestampMonotonic": "9",
        }

    def run(self, words: Sequence[str], _: float) -> Done:
        self.told.append(list(words))
        if words[:3] == [podman.PODMAN, "image", "exists"]:
            return Done(0 if self.stored else 1, "")
        if words[1] != "show":
            return Done(0, "")
        if self.silent:
            return Done(podman.TIMED_OUT, "it did not end")
        blocks = [[f"{key}={value}" for key, value in self.units[unit].items()] for unit in words[3:]]
        return Done(0, "\n\n".join("\n".join(lines) for lines in blocks))

    def shows(self) -> int:
        return sum(words[1] == "show" for words in self.told)


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> Systemd:
    made = Systemd()
    monkeypatch.setattr(podman, "run", made.run)
    return made


@pytest.fixture
def changes(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Has every unit's control group be another than before."""
    count = [0]
    monkeypatch.setattr(workload_watch, "signature", lambda _: (count[0], b""))

    def change() -> None:
        count[0] += 1

    return change


def read(tmp_path: Path) -> dict[str, tuple[str, str]]:
    """State and reason of each container; `ready` is that of the status."""
    status = workloadstatus.parse((tmp_path / "status.json").read_bytes())
    found = {item.name: (item.state, item.reason) for item in status.containers}
    return found | {"ready": ("yes" if status.ready else "no", "")}


def test_from_start_to_exit(systemd: Systemd, changes: Callable[[], None], tmp_path: Path) -> None:
    supervisor = Supervisor(config(app=""), {}, tmp_path / "status.json")
    systemd.set("app", "activating")
    supervisor.start()
    assert read(tmp_path) == {"app": ("starting", ""), "ready": ("no", "")}
    assert [words[1:] for words in systemd.told] == [
        ["daemon-reload"],
        ["--no-block", "start", "tinboot-container-app.service"],
    ]
    supervisor.look()
    assert read(tmp_path)["app"] == ("starting", "")
    systemd.set("app", "active")
    changes()
    supervisor.look()
    assert read(tmp_path) == {"app": ("running", ""), "ready": ("yes", "")}
    systemd.set("app", "failed", 3)
    changes()
    supervisor.look()
    assert read(tmp_path) == {"app": ("failed", "exit status 3"), "ready": ("no", "")}
    systemd.set("app", "active")
    changes()
    supervisor.look()
    assert read(tmp_path)["ready"] == ("yes", "")


def test_systemd_is_asked_only_after_a_change(
    systemd: Systemd, changes: Callable[[], None], tmp_path: Path
) -> None:
    supervisor = Supervisor(config(app=""), {}, tmp_path / "status.json")
    systemd.set("app", "active")
    changes()
    for _ in range(10):
        supervisor.look()
    assert systemd.shows() == 1
    changes()
    supervisor.look()
    assert systemd.shows() == 2


def test_one_of_two_is_not_enough(systemd: Systemd, changes: Callable[[], None], tmp_path: Path) -> None:
    supervisor = Supervisor(config(a="", b=""), {}, tmp_path / "status.json")
    systemd.set("a", "active")
    systemd.set("b", "inactive", 0)
    changes()
    supervisor.look()
    assert read(tmp_path) == {"a": ("running", ""), "b": ("exited", "exit status 0"), "ready": ("no", "")}


def test_refused_ones_are_never_started(
    systemd: Systemd, changes: Callable[[], None], tmp_path: Path
) -> None:
    supervisor = Supervisor(config(a="", b=""), {"a": "asks too much"}, tmp_path / "status.json")
    systemd.set("b", "active")
    supervisor.start()
    changes()
    supervisor.look()
    assert read(tmp_path) == {"a": ("refused", "asks too much"), "b": ("running", ""), "ready": ("no", "")}
    assert not any("tinboot-container-a.service" in words for words in systemd.told)


def test_all_refused_start_nothing(systemd: Systemd, tmp_path: Path) -> None:
    supervisor = Supervisor(config(a=""), {"a": "asks too much"}, tmp_path / "status.json")
    supervisor.start()
    supervisor.look()
    assert read(tmp_path)["ready"] == ("no", "")
    assert [words[1] for words in systemd.told] == ["daemon-reload"]


@pytest.mark.parametrize("stored", [True, False])
def test_says_when_the_image_is_not_there(
    systemd: Systemd, changes: Callable[[], None], tmp_path: Path, stored: bool
) -> None:
    systemd.stored = stored
    supervisor = Supervisor(config(app=""), {}, tmp_path / "status.json")
    systemd.set("app", "failed", 125)
    for _ in range(3):
        changes()
        supervisor.look()
        state, reason = read(tmp_path)["app"]
        assert state == "failed"
        assert reason == (
            "Podman could not start it (status 125)" if stored else f"{IMAGE} is not in the store"
        )
    asked = sum(words[1] == "image" for words in systemd.told)
    assert asked == 1


def test_a_systemd_that_does_not_answer_is_not_ready(
    systemd: Systemd, changes: Callable[[], None], tmp_path: Path
) -> None:
    supervisor = Supervisor(config(app=""), {}, tmp_path / "status.json")
    systemd.set("app", "active")
    changes()
    supervisor.look()
    systemd.silent = True
    changes()
    supervisor.look()
    assert read(tmp_path)["app"][0] == "failed"
    assert "systemd does not answer" in read(tmp_path)["app"][1]


def test_a_health_check_has_its_say(
    systemd: Systemd, changes: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [("starting", "its health check has not passed yet")]
    monkeypatch.setattr(Health, "look", lambda *_: said[0])
    supervisor = Supervisor(config(app="healthcheck: {test: [CMD, /check]}"), {}, tmp_path / "status.json")
    systemd.set("app", "active")
    changes()
    supervisor.look()
    assert read(tmp_path)["app"] == said[0]
    said[0] = ("running", "")
    supervisor.look()
    assert read(tmp_path)["ready"] == ("yes", "")


def test_values_go_to_podman_and_not_on(
    systemd: Systemd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workload, "UNITS", tmp_path / "units")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for name in ("B", "A"):
        (secrets / name).write_text("the-value")
    workload.make_units(tmp_path)
    assert not list(secrets.iterdir())
    assert [words[:5] for words in systemd.told[:2]] == [
        [podman.PODMAN, "secret", "create", "--replace", name] for name in ("A", "B")
    ]
    assert systemd.told[2] == [podman.QUADLET, "-no-kmsg-log", str(tmp_path / "units")]
    assert not any("the-value" in word for words in systemd.told for word in words)


def test_what_podman_refuses_ends_the_supervisor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(podman, "run", lambda *_: Done(1, "no such thing"))
    monkeypatch.setattr(workload, "UNITS", tmp_path / "units")
    with pytest.raises(RuntimeError, match="ended with 1: no such thing"):
        workload.make_units(tmp_path)


GPUS = "gpus: 2"
ASKING = "gpus: 1\nruntime: nvidia"


def test_gpus_are_offered_to_who_asks(tmp_path: Path) -> None:
    assert workload.offer_gpus(config(GPUS, app=""), tmp_path / "cdi", tmp_path) == {}
    assert not (tmp_path / "cdi").exists()
    refused = workload.offer_gpus(config(GPUS, app="", asks=ASKING), tmp_path / "cdi", tmp_path)
    assert list(refused) == ["asks"]
    assert refused["asks"].startswith("its GPUs: [Errno 2]")
