"""The config's `containers`: what one may ask for. Everything is closed unless a key here opens it."""

from __future__ import annotations

from typing import NamedTuple

from tinboot.formats import config_values as kind
from tinboot.formats.config_readers import (
    Section,
    block,
    flag,
    invalid,
    is_count,
    keyed,
    listed,
    one_of,
    text_of,
    thousandths,
    whole,
)
from tinboot.formats.yamlstrict import Mapping, Node, Scalar

#: A machine of the launcher has no more (APIC ids of 8 bits; Tinfoil's published schema).
MAX_CPUS, MAX_GPUS = 255, 8

#: Tinfoil's published list: none of the three reaches beyond the container.
CAPABILITIES = ("IPC_LOCK", "NET_BIND_SERVICE", "SYS_NICE")

#: An argument or the value of a variable; Linux passes at most 128 KiB in one (MAX_ARG_STRLEN).
_TEXT = 131071

_ENTRIES = 256
_PIDS = 4194304  # Linux PID_MAX_LIMIT on 64 bit


class Variable(NamedTuple):
    """One environment variable; without a value it comes from the operator, unmeasured."""

    name: str
    value: str | None


class Healthcheck(NamedTuple):
    """`test` as container engines take it; times in milliseconds."""

    test: tuple[str, ...]
    interval: int | None = None
    timeout: int | None = None
    retries: int | None = None
    start_period: int | None = None


class Container(NamedTuple):
    """Sizes in bytes, `cpus` in thousandths, `stop_timeout` in seconds; None where the engine decides.

    `gpus` is a count, "all", or indices like "0,1". `volumes` are volume and target, `ports` the machine's
    port and the container's.
    """

    name: str
    image: str
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    working_dir: str | None = None
    user: str | None = None
    env: tuple[Variable, ...] = ()
    secrets: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    volumes: tuple[tuple[str, str], ...] = ()
    cap_add: tuple[str, ...] = ()
    runtime: str | None = None
    gpus: int | str | None = None
    networks: tuple[str, ...] = ()
    ports: tuple[tuple[int, int], ...] = ()
    ipc: str = "private"
    shm_size: int | None = None
    memory: int | None = None
    cpus: int | None = None
    tmpfs: tuple[tuple[str, str], ...] = ()
    read_only: bool = False
    pids_limit: int | None = None
    restart: str = "no"
    stop_signal: str | None = None
    stop_timeout: int | None = None
    healthcheck: Healthcheck | None = None
    keys: tuple[str, ...] = ()
    attestation: bool = False


def _variable(node: Node) -> Variable:
    """`NAME`, or a mapping with the one key NAME."""
    if not isinstance(node, Mapping):
        return Variable(text_of(kind.variable)(node), None)
    pairs = keyed(kind.variable, block(_TEXT), _ENTRIES)(node)
    if len(pairs) != 1:
        raise invalid(node.place, f"{len(pairs)} variables in one entry, expected one: begin each with '- '")
    return Variable(*pairs[0])


def _gpus(node: Node) -> int | str:
    if isinstance(node, Scalar) and node.plain and is_count(node.text):
        return whole(1, MAX_GPUS)(node)
    return text_of(kind.gpu_indices)(node)


_arguments = listed(block(_TEXT), _ENTRIES)
_names = listed(text_of(kind.safe_name), _ENTRIES, distinct=True)
_milliseconds = text_of(kind.duration)
_bytes = text_of(kind.size)

HEALTHCHECK = Section(
    Healthcheck,
    {
        "test": listed(block(_TEXT), 64),
        "interval": _milliseconds,
        "timeout": _milliseconds,
        "retries": whole(1, 1000),
        "start_period": _milliseconds,
    },
)

CONTAINER = Section(
    Container,
    {
        "name": text_of(kind.safe_name),
        "image": text_of(kind.image),
        "command": _arguments,
        "entrypoint": _arguments,
        "working_dir": text_of(kind.directory),
        "user": text_of(kind.user),
        "env": listed(_variable, _ENTRIES),
        "secrets": listed(text_of(kind.variable), _ENTRIES, distinct=True),
        "models": _names,
        "volumes": listed(text_of(kind.mount), _ENTRIES, distinct=True),
        "cap_add": listed(one_of(*CAPABILITIES), len(CAPABILITIES), distinct=True),
        "runtime": one_of("nvidia"),
        "gpus": _gpus,
        "networks": listed(text_of(kind.network_name), _ENTRIES, distinct=True),
        "ports": listed(text_of(kind.ports), _ENTRIES, distinct=True),
        "ipc": one_of("private", "none"),
        "shm_size": _bytes,
        "memory": _bytes,
        "cpus": thousandths(MAX_CPUS),
        "tmpfs": keyed(kind.directory, text_of(kind.tmpfs_options), 64),
        "read_only": flag,
        "pids_limit": whole(1, _PIDS),
        "restart": one_of("no", "always", "on-failure", "unless-stopped"),
        "stop_signal": text_of(kind.signal),
        "stop_timeout": whole(0, 3600),
        "healthcheck": HEALTHCHECK,
        "keys": listed(text_of(kind.key_id), 32, distinct=True),
        "attestation": flag,
    },
    refused={
        "args": "gives flags to the container engine: use command, or the key of what the flag does",
        "cap_drop": "every capability is dropped already, but those in cap_add",
        "cvm_admin": "would own the machine and every secret in it: no container may",
        "devices": "gives raw devices, /dev/sev-guest among them, which signs any identity: use gpus",
        "pid": "would show the processes of the machine",
        "privileged": "would own the machine: name what is needed in cap_add",
        "security_opt": "would weaken the container's confinement",
    },
)
