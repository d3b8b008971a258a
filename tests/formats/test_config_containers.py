"""Each refusal in the config's containers, and of what they must agree on with the rest."""

from __future__ import annotations

import re

import pytest

from tinboot.formats.config import load
from tinboot.formats.halt import Refusal

IMAGE = f"example.com/app@sha256:{'5' * 64}"


def refusal(text: str) -> str:
    with pytest.raises(Refusal) as refused:
        load(text.encode())
    return str(refused.value)


def machine(rest: str = "") -> str:
    """A config whose `rest` begins on line 3."""
    return f"cpus: 2\nmemory: 1024\n{rest}"


def container(rest: str = "", before: str = "") -> str:
    """One container, app, whose further keys stand at indentation 4 from line 6 (after those of `before`)."""
    return machine(f"{before}containers:\n  - name: app\n    image: {IMAGE}\n{rest}")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("args: [--privileged]", ".args: gives flags to the container engine"),
        ("privileged: true", ".privileged: would own the machine"),
        ("cvm_admin: true", ".cvm_admin: would own the machine and every secret"),
        ("devices: [/dev/sev-guest]", ".devices: gives raw devices, /dev/sev-guest among them"),
        ("pid: host", ".pid: would show the processes of the machine"),
        ("cap_drop: [ALL]", ".cap_drop: every capability is dropped already"),
        ("security_opt: [a]", ".security_opt: would weaken"),
        ("cap_add: [SYS_ADMIN]",
         ".cap_add[0]: 'SYS_ADMIN', expected IPC_LOCK or NET_BIND_SERVICE or SYS_NICE"),
        ("cap_add: [CAP_SYS_NICE]", ".cap_add[0]: 'CAP_SYS_NICE', expected"),
        ("runtime: runsc", ".runtime: 'runsc', expected nvidia"),
        ("ipc: host", ".ipc: 'host', expected private or none"),
        ("restart: no", ".restart: no reads as a boolean, expected a string; quote it: 'no'"),
        ("restart: never", ".restart: 'never', expected no or always"),
        ("command: [1]", ".command[0]: 1 reads as a number, expected a string; quote it: '1'"),
        ("command: [a, ]", None),
        ("command: [[a]]", ".command[0]: a list, expected a string"),
        ("user: app", None),
        ("command: sh", ".command: 'sh', expected a list"),
        ('command: ["\\e"]',
         ".command[0]: '\\x1b', expected at most 131071 characters, no control characters"),
        ("working_dir: srv", ".working_dir: 'srv', expected an absolute path"),
        ("working_dir: /a/../b", ".working_dir: '/a/../b', expected an absolute path"),
        ("user: a:b:c", ".user: 'a:b:c', expected a user"),
        ("user: 1000", ".user: 1000 reads as a number"),
        ("env: [A=b]",
         ".env[0]: 'A=b', expected a name of A-Z, a-z, 0-9 and '_'; a value goes behind a colon"),
        ("env: [A: 1]", ".env[0].A: 1 reads as a number"),
        ("env: [A: ]", ".env[0].A: no value, expected a string; leave the key out, or write ''"),
        ("env: [1A: b]", ".env[0].1A: '1A', expected a name"),
        ("env: [{A: b, C: d}]", ".env[0]: 2 variables in one entry, expected one"),
        ("env: [{}]", ".env[0]: 0 variables in one entry, expected one"),
        ("env: [A, A: b]", ".env[1]: the same as in env[0]"),
        ("env: {A: b}", ".env: a mapping, expected a list"),
        ("secrets: [a-b]", ".secrets[0]: 'a-b', expected a name"),
        ("secrets: [A, A]", ".secrets[1]: stands twice, first at [0]"),
        ("models: [minilm]", ".models[0]: minilm is not declared in models"),
        ("networks: [a]", ".networks[0]: a is not declared in networks"),
        ("keys: [a]", ".keys[0]: a is not declared in attested-keys"),
        ("volumes: ['a:/b']", ".volumes[0]: a is not declared in volumes"),
        ("volumes: ['/:/host']", ".volumes[0]: '/:/host', expected 1 to 64 of a-z"),
        ("volumes: [a]", ".volumes[0]: 'a', expected an absolute path"),
        ("volumes: ['a:/']", ".volumes[0]: 'a:/', expected volume:/target"),
        ("volumes: ['a:/b:rw']", ".volumes[0]: 'a:/b:rw', expected volume:/target"),
        ("gpus: 1", ": gpus and runtime: nvidia need each other"),
        ("runtime: nvidia", ": gpus and runtime: nvidia need each other"),
        ("gpus: '1,0'", ".gpus: '1,0', expected a count, 'all', or ascending indices"),
        ("gpus: '0,0'", ".gpus: '0,0', expected a count"),
        ("gpus: 0", ".gpus: '0', expected a whole number from 1 to 8"),
        ("ports: ['8080:80']", ".ports: ports need a network"),
        ("ports: ['8080']", ".ports[0]: '8080', expected two ports"),
        ("ports: ['0:80']", ".ports[0]: '0:80', expected two ports"),
        ("ports: ['127.0.0.1:8080:80']", ".ports[0]: '127.0.0.1:8080:80', expected two ports"),
        ("ports: [22:22]", ".ports[0]: 22:22 reads as a number, expected a string; quote it: '22:22'"),
        ("shm_size: '64'", ".shm_size: '64', expected a size with its unit"),
        ("shm_size: 0g", ".shm_size: '0g', expected a size with its unit"),
        ("memory: 1.5g", ".memory: '1.5g', expected a size with its unit"),
        ("cpus: 256", ".cpus: '256', expected a decimal number up to 255"),
        ("tmpfs: [/tmp]", ".tmpfs: a list, expected a mapping"),
        ("tmpfs: {tmp: rw}", ".tmpfs.tmp: 'tmp', expected an absolute path"),
        ("tmpfs: {/tmp: suid}", "./tmp: 'suid', expected size="),
        ("tmpfs: {/tmp: dev}", "./tmp: 'dev', expected size="),
        ("tmpfs: {/tmp: 'rw,rw'}", "./tmp: 'rw,rw', expected each option once"),
        ("tmpfs: {/tmp: size=1}", "./tmp: 'size=1', expected a size"),
        ("tmpfs: {/tmp: mode=9999}", "./tmp: 'mode=9999', expected size="),
        ("tmpfs: {/tmp: uid=-1}", "./tmp: 'uid=-1', expected size="),
        ("tmpfs: {/tmp: rw=1}", "./tmp: 'rw=1', expected size="),
        ("pids_limit: -1", ".pids_limit: '-1', expected a whole number from 1"),
        ("stop_signal: KILL", ".stop_signal: 'KILL', expected a signal like SIGTERM"),
        ("stop_timeout: 10s", ".stop_timeout: '10s', expected a whole number"),
        ("healthcheck: {interval: 1s}", ".healthcheck: the key test is missing"),
        ("healthcheck: {test: [a], interval: 30}", ".healthcheck.interval: 30 reads as a number"),
        ("healthcheck: {test: [a], interval: 1s1m}", ".healthcheck.interval: '1s1m', expected a duration"),
        ("healthcheck: {test: [a], interval: 0s}", ".healthcheck.interval: '0s', expected a duration"),
        ("healthcheck: {test: [a], interval: 100ms}", ".healthcheck.interval: '100ms', expected a duration"),
        ("attestation: 1", ".attestation: '1', expected true or false"),
    ],
)  # fmt: skip
def test_containers(line: str, expected: str | None) -> None:
    text = container(f"    {line}\n")
    if expected is None:
        load(text.encode())
    else:
        expected = expected.replace("./tmp", ".tmpfs./tmp")
        told = refusal(text)
        assert told.startswith("config-invalid: line ")
        assert re.sub(r"^.*?containers\[0\]", "", told).startswith(expected)
        line_told = int(told.split("line ")[1].split(",")[0])
        assert line_told == (4 if expected.startswith(": gpus") else 6)


@pytest.mark.parametrize(
    ("image", "good"),
    [
        (IMAGE, True),
        (f"app@sha256:{'a' * 64}", True),
        (f"localhost:5000/a/b:v1.2_x@sha256:{'a' * 64}", True),
        ("app", False),
        ("app:latest", False),
        (f"app@sha256:{'a' * 63}", False),
        (f"app@sha256:{'A' * 64}", False),
        (f"app@sha512:{'a' * 64}", False),
        (f"app@{'a' * 64}", False),
        (f"@sha256:{'a' * 64}", False),
        (f"a//b@sha256:{'a' * 64}", False),
        (f"a/../b@sha256:{'a' * 64}", False),
        (f"-v/b@sha256:{'a' * 64}", False),
        (f"a@b@sha256:{'a' * 64}", False),
        (f"a b@sha256:{'a' * 64}", False),
    ],
)
def test_images_are_named_by_digest(image: str, good: bool) -> None:
    text = machine(f"containers:\n  - name: app\n    image: '{image}'\n")
    if good:
        assert load(text.encode()).containers[0].image == image
    else:
        assert refusal(text).startswith("config-invalid: line 5, containers[0].image: ")


GPUS = "gpus: 2\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (container("    runtime: nvidia\n    gpus: 1\n"),
         "line 7, containers[0].gpus: the machine has none: gpus is 0"),
        (container("    runtime: nvidia\n    gpus: 3\n", GPUS),
         "line 8, containers[0].gpus: the machine has 2"),
        (container("    runtime: nvidia\n    gpus: '0,2'\n", GPUS),
         "line 8, containers[0].gpus: there is no GPU 2: the machine has 2"),
        (container("    secrets: [A]\n    env: [B, A]\n"),
         "line 6, containers[0].secrets[0]: A is in env too"),
        (container(f"  - name: app\n    image: {IMAGE}\n"),
         "line 6, containers[1].name: the same as in containers[0]"),
        (container("    volumes: ['v:/t']\n    tmpfs: {/t: rw}\n", "volumes: [{name: v}]\n"),
         "line 5, containers[0]: two volumes or tmpfs have the same target"),
        (container("    networks: [a, b]\n", "networks: {a: {egress: open}, b: {egress: open}}\n"),
         "line 7, containers[0].networks: more than one of them leads out"),
        (container("    networks: [a]\n    ports: ['443:1']\n", "networks: {a: }\n"),
         "line 8, containers[0].ports[0]: port 443 is the proxy's"),
        (container("    networks: [a]\n    ports: ['81:1', '81:2']\n", "networks: {a: }\n"),
         "line 8, containers[0].ports[1]: port 81 is app's"),
        (container(f"    keys: [k]\n  - {{name: b, image: '{IMAGE}', keys: [k]}}\n",
                   "attested-keys: [{id: k, key: x25519}]\n"),
         "line 3, attested-keys[0].id: 2 containers have it in keys"),
    ],
)  # fmt: skip
def test_containers_and_the_rest_agree(text: str, expected: str) -> None:
    assert refusal(text).startswith(f"config-invalid: {expected}")


@pytest.mark.parametrize("gpus", ["1", "2", "all", "'0'", "'1'", "'0,1'"])
def test_containers_with_gpus(gpus: str) -> None:
    load(container(f"    runtime: nvidia\n    gpus: {gpus}\n", GPUS).encode())
