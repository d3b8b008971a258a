"""Preparation: which files there are for which config, who may read them; a refusal ends the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinboot.formats import config, operatorinput, servicesettings
from tinboot.formats.config import Config
from tinboot.formats.halt import Halt, Refusal
from tinboot.formats.operatorinput import DEFAULT_NETWORK, NOTHING, Network, OperatorInput
from tinboot.formats.servicesettings import Settings
from tinboot.guest import network, operator_input, prepare

BASE = "cvm-version: 0.1.0\ncpus: 1\nmemory: 1024\n"
SHIM = "shim:\n  upstream-port: 8080\n  paths: [/*]\n"
APP = "localhost/app@sha256:" + "0" * 64
STORED = f"images:\n  - {{image: '{APP}', mpk: {'a' * 64}_4096_0f98fbd8-f18a-5628-948d-11a952f8b391}}\n"
CONTAINER = f"containers:\n  - name: app\n    image: {APP}\n"


def load(text: str) -> Config:
    return config.load((BASE + text).encode())


def test_a_shim_alone() -> None:
    made = prepare.files(load(SHIM), NOTHING)
    assert sorted(made) == ["proxy.cfg", "service.json", "upstream"]
    assert made["upstream"] == b"127.0.0.1:8080\n"
    assert b"backend readiness" not in made["proxy.cfg"]
    assert servicesettings.parse(made["service.json"]) == Settings(0, "hopper", True, False, "0.1.0")


def test_a_shim_and_its_container() -> None:
    made = prepare.files(load(SHIM + CONTAINER), NOTHING)
    assert made["upstream"] == b"10.89.0.2:8080\n"
    assert b"server server 10.89.0.2:8080 track readiness/server" in made["proxy.cfg"]
    assert b"uri /.well-known/readyz" in made["proxy.cfg"]
    assert servicesettings.parse(made["service.json"]).workload
    assert "workload/quadlet/tinboot-container-app.container" in made


def test_containers_alone_have_no_proxy() -> None:
    made = prepare.files(load(CONTAINER), NOTHING)
    assert not {"proxy.cfg", "upstream"} & set(made)
    assert "workload/storage.conf" in made


def test_nothing_published() -> None:
    made = prepare.files(load(SHIM + "  publish-attestation: false\n"), NOTHING)
    assert not servicesettings.parse(made["service.json"]).publish_attestation


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        (SHIM, True),
        (CONTAINER, True),  # its image is a registry's
        (STORED + CONTAINER, False),
        (STORED + "networks: {out: {egress: open}}\n" + CONTAINER + "    networks: [out]\n", True),
        (STORED + "networks: {in: {}}\n" + CONTAINER + "    networks: [in]\n    ports: ['1:1']\n", True),
        (STORED + "networks: {in: {}}\n" + CONTAINER + "    networks: [in]\n", False),
    ],
)
def test_the_device_is_for_who_needs_it(text: str, needed: bool) -> None:
    given = Network("192.0.2.7", 24, "192.0.2.1", ())
    assert prepare.outside(load(text), NOTHING) == (DEFAULT_NETWORK if needed else None)
    assert prepare.outside(load(text), OperatorInput({}, {}, given)) == (given if needed else None)


def test_what_containers_get_is_for_the_root_alone(tmp_path: Path) -> None:
    prepare.write({"proxy.cfg": b"a", "workload/secrets/KEY": b"b"}, tmp_path)
    modes = {p.relative_to(tmp_path).as_posix(): p.stat().st_mode & 0o777 for p in tmp_path.rglob("*")}
    assert modes["proxy.cfg"] == 0o644
    assert modes["workload/secrets/KEY"] == 0o600
    assert modes["workload"] == modes["workload/secrets"] == 0o700


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What is done to the machine, in order."""
    done: list[object] = []

    def given(_: Config) -> OperatorInput:
        done.append("operator")
        return NOTHING

    monkeypatch.setattr(operator_input, "load", given)
    monkeypatch.setattr(network, "configure", done.append)
    return done


def test_the_network_comes_last(tmp_path: Path, order: list[object]) -> None:
    (tmp_path / "config.yml").write_text(BASE + SHIM)
    (tmp_path / "made").mkdir()
    prepare.prepare(tmp_path / "config.yml", tmp_path / "made")
    assert order == ["operator", DEFAULT_NETWORK]
    assert (tmp_path / "made/proxy.cfg").exists()


def test_what_is_not_supported_is_refused_before_anything_is_done(
    tmp_path: Path, order: list[object]
) -> None:
    (tmp_path / "config.yml").write_text(BASE + SHIM + "  tls-mode: acme\n")
    with pytest.raises(Refusal, match=r"config-unsupported: shim\.tls-mode"):
        prepare.prepare(tmp_path / "config.yml", tmp_path)
    assert order == []
    assert [path.name for path in tmp_path.iterdir()] == ["config.yml"]


@pytest.mark.parametrize(
    ("error", "halt"),
    [
        (Refusal("network-failed", "why"), Halt("prepare", "network-failed", "why")),
        (OSError(5, "why"), Halt("prepare", "prepare-failed", "OSError: [Errno 5] why")),
        (MemoryError(), Halt("prepare", "prepare-failed", "MemoryError: ")),
    ],
)
def test_every_error_ends_the_machine(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, halt: Halt
) -> None:
    ended: list[Halt] = []

    def fail() -> None:
        raise error

    monkeypatch.setattr(prepare, "prepare", fail)
    monkeypatch.setattr(prepare, "halt", ended.append)
    prepare.main()
    assert ended == [halt]


def test_operators_values_reach_the_containers_that_ask() -> None:
    given = OperatorInput({"DOMAIN": "a.example"}, {"KEY": "hush"}, None)
    asking = load(CONTAINER + "    env: [DOMAIN]\n    secrets: [KEY]\n")
    operatorinput.check(given, asking)
    made = prepare.files(asking, given)
    assert made["workload/secrets/KEY"] == b"hush"
    assert made["workload/secrets/DOMAIN"] == b"a.example"
    assert not any(b"hush" in content for name, content in made.items() if "secrets" not in name)
