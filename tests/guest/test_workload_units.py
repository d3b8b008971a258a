"""Each key of a container in its Quadlet file, and nothing beside it."""

from __future__ import annotations

import json

import pytest
from unit_files import command
from workload_configs import IMAGE, config

from tinboot.formats.config import Config
from tinboot.formats.config_container import CONTAINER
from tinboot.guest import workload_units


def volume(byte: str) -> str:
    """A volume's line in the config; `byte` is each of its root hash."""
    return f"{byte * 32}_4096_00000000-0000-0000-0000-000000000000"


STORED = f"images:\n  - image: {IMAGE}\n    mpk: {volume('ab')}\n"


def sections(text: str) -> dict[str, list[tuple[str, str]]]:
    """Section to its keys and values, in order."""
    found: dict[str, list[tuple[str, str]]] = {}
    for line in text.splitlines():
        if line.startswith("["):
            found[line.strip("[]")] = keys = []
        elif line:
            key, _, value = line.partition("=")
            keys.append((key, value))
    return found


def container(loaded: Config, name: str = "app", given: dict[str, str] | None = None) -> dict[str, list[str]]:
    """The keys of [Container], each with its values."""
    rendered = workload_units.render(loaded, given or {})
    assert not rendered.refused
    text = rendered.files[f"quadlet/tinboot-container-{name}.container"].decode()
    found: dict[str, list[str]] = {}
    for key, value in sections(text)["Container"]:
        found.setdefault(key, []).append(value)
    return found


def arguments(loaded: Config) -> list[str]:
    """Of `podman run`, that have no key."""
    (line,) = container(loaded)["PodmanArgs"]
    return command(line)


def test_the_least_is_closed() -> None:
    """What a container gets that asks for nothing: this list, whole."""
    assert container(config(app="")) == {
        "ContainerName": ["app"],
        "Image": [IMAGE],
        "Pull": ["missing"],
        "LogDriver": ["passthrough"],
        "NoNewPrivileges": ["true"],
        "DropCapability": ["all"],
        "ReadOnly": ["false"],
        "UIDMap": ["0:1048576:65536"],
        "GIDMap": ["0:1048576:65536"],
        "Network": ["tinboot-net0-default.network:ip=10.89.0.2"],
        "PodmanArgs": [
            " ".join(
                f'"--{flag}"'
                for flag in (
                    *("systemd=false", "image-volume=ignore", "no-healthcheck", "read-only-tmpfs=false"),
                    *("ipc=private", "dns=none"),
                )
            )
        ],
    }


@pytest.mark.parametrize(
    ("keys", "argument"),
    [
        ("ipc: none", "--ipc=none"),
        ("pids_limit: 12", "--pids-limit=12"),
        ("stop_timeout: 0", "--stop-timeout=0"),
        ("memory: 1m", "--memory=1048576b"),
        ("shm_size: 2k", "--shm-size=2048b"),
        ("cpus: 7.05", "--cpus=7.050"),
        ('user: "1000:a_b"', "--user=1000:a_b"),
        ('working_dir: "/a$b"', "--workdir=/a$b"),
        ("stop_signal: SIGINT", "--stop-signal=SIGINT"),
        ("tmpfs: {/tmp: 'size=1m,noexec'}", "--tmpfs=/tmp:size=1m,noexec"),
    ],
)
def test_a_key_is_one_argument(keys: str, argument: str) -> None:
    plain, asked = arguments(config(app="")), arguments(config(app=keys))
    assert argument in asked
    assert len(asked) - len(plain) == (0 if keys.startswith("ipc") else 1)


@pytest.mark.parametrize(
    ("keys", "key", "values"),
    [
        ("cap_add: [NET_BIND_SERVICE, IPC_LOCK]", "AddCapability", ["NET_BIND_SERVICE", "IPC_LOCK"]),
        ("read_only: true", "ReadOnly", ["true"]),
        ('command: ["a b", "$x"]', "Exec", ['"a b" "$$x"']),
        ("env: [A: 'x % y']", "Environment", ['"A=x %% y"']),
    ],
)
def test_a_key_is_one_of_quadlet_s(keys: str, key: str, values: list[str]) -> None:
    assert container(config(app=keys))[key] == values


def test_entrypoint_and_command_go_together_as_json() -> None:
    loaded = config(app='entrypoint: [/a, ""]\ncommand: [";", "b\\"c"]')
    assert f"--entrypoint={json.dumps(['/a', '', ';', 'b' + chr(34) + 'c'])}" in arguments(loaded)
    assert "Exec" not in container(loaded)


def test_models_are_read_only_and_volumes_as_they_say() -> None:
    before = (
        f"models:\n  - name: m\n    repo: a/b@1\n    mpk: {volume('cd')}\n"
        "volumes:\n  - name: w\n  - name: x\n    exec: true\n"
    )
    found = arguments(config(before, app='models: [m]\nvolumes: ["w:/w", "x:/x"]'))
    assert [a for a in found if a.startswith("--volume")] == [
        "--volume=/run/tinboot/volumes/m:/models/m:ro,nodev,nosuid,noexec",
        "--volume=/run/tinboot-volumes/w:/w:rw,nodev,nosuid,noexec",
        "--volume=/run/tinboot-volumes/x:/x:rw,nodev,nosuid,exec",
    ]


def test_an_image_on_a_volume_is_never_pulled() -> None:
    loaded = config(STORED, app="")
    assert container(loaded)["Pull"] == ["never"]
    storage = workload_units.render(loaded, {}).files["storage.conf"].decode()
    assert f'additionalimagestores = ["/run/tinboot/images/{"ab" * 10}"]' in storage
    assert (
        "additionalimagestores = []"
        in workload_units.render(config(app=""), {}).files["storage.conf"].decode()
    )


def test_only_registries_of_pulled_images_are_known() -> None:
    pulled = workload_units.render(config(app=""), {}).files["registries.conf"].decode()
    assert pulled.count("[[registry]]") == 1
    assert 'location = "example.com"\ninsecure = true' in pulled
    stored = workload_units.render(config(STORED, app=""), {}).files["registries.conf"].decode()
    assert "[[registry]]" not in stored
    assert "unqualified-search-registries = []" in stored


def test_networks_with_their_neighbours() -> None:
    loaded = config(
        "networks:\n  a:\n  b:\n    egress: open\ncvm-network:\n  inbound-ports: [2222]\n",
        one='networks: [a, b]\nports: ["2222:22"]',
        two="networks: [a]",
        three="",
    )
    files = workload_units.render(loaded, {}).files
    nets = {
        name: dict(sections(files[f"quadlet/{name}.network"].decode())["Network"])
        for name in ("tinboot-net0-default", "tinboot-net1-a", "tinboot-net2-b")
    }
    assert [net.get("Internal") for net in nets.values()] == ["true", "true", None]
    assert {net["DisableDNS"] for net in nets.values()} == {"true"}
    found = container(loaded, "one")
    assert found["Network"] == ["tinboot-net1-a.network:ip=10.89.1.2", "tinboot-net2-b.network:ip=10.89.2.2"]
    assert found["PublishPort"] == ["2222:22/tcp"]
    assert "--add-host=two:10.89.1.3" in command(found["PodmanArgs"][0])
    assert not any("three" in word or word == "--dns=none" for word in command(found["PodmanArgs"][0]))


@pytest.mark.parametrize(
    ("wanted", "indices"), [("1", ["0"]), ("all", ["0", "1"]), ('"1"', ["1"]), ('"0,1"', ["0", "1"])]
)
def test_gpus_by_index(wanted: str, indices: list[str]) -> None:
    found = container(config("gpus: 2", app=f"runtime: nvidia\ngpus: {wanted}"))
    assert found["AddDevice"] == [f"nvidia.com/gpu={index}" for index in indices]


@pytest.mark.parametrize(
    ("policy", "restart"),
    [('"no"', "no"), ("always", "always"), ("on-failure", "on-failure"), ("unless-stopped", "always")],
)
def test_restart_policy_is_systemd_s(policy: str, restart: str) -> None:
    files = workload_units.render(config(app=f"restart: {policy}\nstop_timeout: 30"), {}).files
    found = dict(sections(files["quadlet/tinboot-container-app.container"].decode())["Service"])
    assert found["Restart"] == restart
    assert found["TimeoutStopSec"] == "40"
    assert found["StandardOutput"] == found["StandardError"] == "null"


def test_the_operator_s_values_are_podman_s_secrets() -> None:
    loaded = config(app="env: [DOMAIN]\nsecrets: [API_KEY]")
    given = {"DOMAIN": "a.example", "API_KEY": "k\n$%"}
    assert container(loaded, given=given)["Secret"] == [
        "DOMAIN,type=env,target=DOMAIN",
        "API_KEY,type=env,target=API_KEY",
    ]
    files = workload_units.render(loaded, given).files
    assert files["secrets/API_KEY"] == b"k\n$%"
    texts = [data for name, data in files.items() if not name.startswith("secrets/")]
    assert not any(b"a.example" in text or b"k\n$%" in text for text in texts)


def test_containers_share_user_ids_only_where_they_share_a_volume() -> None:
    volumes = "volumes:\n  - name: v\n  - name: w\n"
    loaded = config(
        volumes, a='volumes: ["v:/v"]', b="", c='volumes: ["w:/w"]', d='volumes: ["v:/v", "w:/w"]'
    )
    found = [workload_units.identity(loaded, c) for c in loaded.containers]
    assert found[0] == found[2] == found[3] == 1 << 20
    assert found[1] == (1 << 20) + (1 << 16)


@pytest.mark.parametrize(
    ("before", "keys", "expected"),
    [
        ("networks:\n  a:\n", 'networks: [a]\nports: ["2222:22"]', "ports: published only from a network"),
        (
            "networks:\n  a:\n    egress: open\ncvm-network:\n  inbound-ports: [1]\n",
            'networks: [a]\nports: ["2222:22"]',
            "ports: not all of them are in cvm-network.inbound-ports",
        ),
        (
            "networks:\n  a:\n    egress: allowlist\n    allow: [example.com]\n",
            "networks: [a]",
            "egress by allow-list",
        ),
        ("attested-keys:\n  - id: k\n    key: ed25519\n", "keys: [k]", "keys: attested keys"),
        ("", "attestation: true", "attestation: no container"),
        ("", "env: [LD_PRELOAD]", "LD_PRELOAD changes what runs"),
        ("", "secrets: [PATH]", "PATH changes what runs"),
        ("", "command: ['']", "an empty argument, or ';' alone"),
        ("", "command: ['a', ';']", "an empty argument, or ';' alone"),
        ("", "healthcheck: {test: [curl, x]}", "expected CMD and words"),
        ("", "healthcheck: {test: []}", "expected CMD and words"),
        ("", "healthcheck: {test: [NONE, x]}", "expected CMD and words"),
        ("", "healthcheck: {test: [CMD]}", "expected CMD and words"),
    ],
)
def test_refused_by_name_and_left_out(before: str, keys: str, expected: str) -> None:
    rendered = workload_units.render(config(before, app=keys, other=""), {"LD_PRELOAD": "x", "PATH": "x"})
    assert list(rendered.refused) == ["app"]
    assert expected in rendered.refused["app"]
    assert json.loads(rendered.files["refused.json"]) == rendered.refused
    units = [name for name in rendered.files if name.endswith(".container")]
    assert units == ["quadlet/tinboot-container-other.container"]
    assert not any(name.startswith("secrets/") for name in rendered.files)


def test_overlays_are_refused() -> None:
    before = (
        f"models:\n  - name: m\n    repo: a/b@1\n    mpk: {volume('cd')}\n"
        "volumes:\n  - name: w\n    exec: true\n    overlays: [{model: m, source: a, target: b}]\n"
    )
    refused = workload_units.render(config(before, app='volumes: ["w:/w"]'), {}).refused
    assert "overlays are not there yet" in refused["app"]


def test_every_key_of_the_schema_is_thought_of() -> None:
    """A key that the schema gains must come to be rendered, or refused, and into these tests."""
    assert set(CONTAINER.keys) == {
        *("name", "image", "command", "entrypoint", "working_dir", "user", "env", "secrets", "models"),
        *("volumes", "cap_add", "runtime", "gpus", "networks", "ports", "ipc", "shm_size", "memory", "cpus"),
        *("tmpfs", "read_only", "pids_limit", "restart", "stop_signal", "stop_timeout", "healthcheck"),
        *("keys", "attestation"),
    }
