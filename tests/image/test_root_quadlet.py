"""The root's own Quadlet on our files: what systemd would then run is what the config says, word for word."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit_files import command
from workload_configs import config

from tinboot.formats.config import Config
from tinboot.formats.config_container import Container, Variable
from tinboot.guest import workload_units

#: What the config lets through (config_readers.block), with what is of use to an attacker more often.
CHARACTERS = st.one_of(
    st.characters(
        blacklist_categories=["Cs"],
        blacklist_characters=[chr(c) for c in (*range(32), *range(127, 160)) if chr(c) not in "\n\t"],
    ),
    st.sampled_from("\\\"'%$; \n\t{}#=nx"),
)
TEXTS = st.text(CHARACTERS)
WORDS = TEXTS.filter(lambda text: text not in ("", ";"))


def started(root: Path, folder: Path, loaded: Config) -> list[str]:
    """What systemd would run for the container `app`: the arguments of `podman run`."""
    sources, units = folder / "quadlet", folder / "units"
    for each in (sources, units):
        each.mkdir(exist_ok=True)
    for name, data in workload_units.render(loaded, {}).files.items():
        if name.startswith("quadlet/"):
            (folder / name).write_bytes(data)
    done = subprocess.run(
        [root / "usr/libexec/podman/quadlet", "-no-kmsg-log", units],
        env={"QUADLET_UNIT_DIRS": str(sources)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    lines = (units / "tinboot-container-app.service").read_text("utf-8").split("\n")
    (line,) = [line.removeprefix("ExecStart=") for line in lines if line.startswith("ExecStart=")]
    return command(line.replace("--cidfile=%t/%N.cid", "--cidfile=cid"))


def with_container(**fields: object) -> Config:
    """As if a file said so."""
    loaded = config(app="")
    container: Container = loaded.containers[0]._replace(**fields)  # type: ignore[arg-type]  # of any fields
    return loaded._replace(containers=(container,))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quadlet")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(WORDS, max_size=4), TEXTS)
def test_command_and_variables_arrive(root: Path, folder: Path, words: list[str], value: str) -> None:
    found = started(root, folder, with_container(command=tuple(words), env=(Variable("NAME", value),)))
    at = found.index(config(app="").containers[0].image)
    assert found[at + 1 :] == words
    assert found[found.index("--env") + 1] == f"NAME={value}"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXTS, min_size=1, max_size=4), st.text(CHARACTERS).filter(lambda t: "\n" not in t))
def test_entrypoint_and_paths_arrive(root: Path, folder: Path, words: list[str], path: str) -> None:
    changed = with_container(entrypoint=("/a", *words), working_dir=f"/{path}", tmpfs=((f"/{path}", "ro"),))
    found = started(root, folder, changed)
    expected = dict(zip(("entrypoint", "workdir", "tmpfs"), workload_arguments(changed), strict=True))
    for flag, text in expected.items():
        assert f"--{flag}={text}" in found
    assert found[-1] == changed.containers[0].image


def workload_arguments(loaded: Config) -> tuple[str, str, str]:
    """Entrypoint as JSON, working directory, tmpfs: what Podman is to be told."""
    container = loaded.containers[0]
    words = json.dumps([*container.entrypoint, *container.command])
    return words, str(container.working_dir), f"{container.tmpfs[0][0]}:ro"


def test_every_argument_is_one_that_was_meant(root: Path, folder: Path) -> None:
    """The whole command of a container that asks for nothing."""
    loaded = config(app="")
    found = started(root, folder, loaded)
    assert found[:2] == ["/usr/bin/podman", "run"]
    assert found[-1] == loaded.containers[0].image
    flags = [word for word in found[2:-1] if word.startswith("-")]
    assert sorted(flags) == sorted(
        [
            *("--name", "--cidfile=cid", "--replace", "--rm", "--log-driver", "--cgroups=split", "--pull"),
            *("--network", "--sdnotify=conmon", "-d", "--security-opt=no-new-privileges", "--cap-drop"),
            *("--read-only=false", "--uidmap", "--gidmap", "--systemd=false", "--image-volume=ignore"),
            *("--no-healthcheck", "--read-only-tmpfs=false", "--ipc=private", "--dns=none"),
        ]
    )
