"""The config's containers as Podman Quadlet files (podman-systemd.unit(5)): each key of the config, no other.

What has a closed alphabet is a key of Quadlet's; everything else is one quoted word of `PodmanArgs=`,
`Exec=` or `Environment=`, the three that Quadlet splits and quotes again (quadlet_words.py). Nothing gets in
that is not written here, and no key is written that only newer Quadlets know: Ubuntu 24.04 has podman 4.9.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from tinboot.formats import bootlog, config_workload
from tinboot.formats.config import Config
from tinboot.formats.config_container import Container
from tinboot.formats.errors import Refused
from tinboot.guest import workload_firewall, workload_plan
from tinboot.guest.quadlet_words import word, words
from tinboot.guest.workload_plan import Address, Net, addresses, upstream

__all__ = ["Rendered", "render", "upstream"]

#: Where tinboot-prepare lays what `render` gives, for the root alone.
FOLDER = "/run/tinboot-prepared/workload"
QUADLET_FOLDER = "quadlet"
SECRETS_FOLDER = "secrets"
STORAGE_FILE = "storage.conf"
REGISTRIES_FILE = "registries.conf"
REFUSED_FILE = "refused.json"
FIREWALL_FILE = "firewall.nft"

#: Where a container sees its models, and where the machine keeps its volumes.
MODELS = "/models"
VOLUMES = "/run/tinboot-volumes"

#: User ids of the machine that are a container's: from its own 0 on, and no other container's.
_FIRST_ID, _IDS = 1 << 20, 1 << 16

#: Seconds: to start where the image is on a volume, to pull one; what stopping may take beyond the config's.
_START, _PULL, _STOP = 300, 1800, 10
_DEFAULT_STOP = 10  # podman-run(1), --stop-timeout

#: capabilities(7) that nothing needs to make a container, and that Podman, conmon and the runtime do not get.
_NEVER = (
    *("CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_BOOT", "CAP_SYS_TIME", "CAP_SYSLOG", "CAP_SYS_PACCT"),
    *("CAP_MAC_ADMIN", "CAP_MAC_OVERRIDE", "CAP_LINUX_IMMUTABLE", "CAP_WAKE_ALARM", "CAP_SYS_TTY_CONFIG"),
)

_RESTART = {"no": "no", "always": "always", "on-failure": "on-failure", "unless-stopped": "always"}


class Rendered(NamedTuple):
    """`files`: path below `FOLDER` -> content. `refused`: container -> why it will not run."""

    files: dict[str, bytes]
    refused: dict[str, str]


def render(config: Config, given: Mapping[str, str]) -> Rendered:
    """`given`: the operator's values, by the names that containers declare; all of those must be there.

    A container that asks for what is not to be had is left out, and named in `refused`.
    """
    files = {STORAGE_FILE: _storage(config).encode(), REGISTRIES_FILE: _registries(config).encode()}
    refused: dict[str, str] = {}
    for container in config.containers:
        try:
            text = _container(config, container)
        except Refused as error:
            refused[container.name] = error.message
            continue
        unit = workload_plan.unit(container).removesuffix(".service")
        files[f"{QUADLET_FOLDER}/{unit}.container"] = text.encode()
        for name in config_workload.operator_names(container):
            files[f"{SECRETS_FOLDER}/{name}"] = given[name].encode()
    for net in workload_plan.nets(config):
        files[f"{QUADLET_FOLDER}/{net.unit}"] = _network(net).encode()
    files[FIREWALL_FILE] = workload_firewall.render(config).encode()
    files[REFUSED_FILE] = json.dumps(refused, sort_keys=True).encode()
    return Rendered(files, refused)


def identity(config: Config, container: Container) -> int:
    """The user id of the machine that is the container's 0; the same for containers that share a volume."""
    together, mounted = [container], {name for name, _ in container.volumes}
    for _ in config.containers:  # each round adds at least one, or there is none left
        together = [c for c in config.containers if c == container or mounted & {n for n, _ in c.volumes}]
        mounted |= {name for c in together for name, _ in c.volumes}
    return _FIRST_ID + config.containers.index(together[0]) * _IDS


def _storage(config: Config) -> str:
    """containers-storage.conf(5): layers of registries in memory, those of volumes where they are."""
    stores = dict.fromkeys(filter(None, (workload_plan.store(config, c) for c in config.containers)))
    listed = ", ".join(f'"{store}"' for store in stores)
    return (
        '[storage]\ndriver = "overlay"\ngraphroot = "/var/lib/containers/storage"\n'
        'runroot = "/run/containers/storage"\n'
        f"[storage.options]\nadditionalimagestores = [{listed}]\n"
        '[storage.options.overlay]\nmountopt = "nodev"\n'
    )


def _registries(config: Config) -> str:
    """containers-registries.conf(5). Nobody vouches for a registry: the digest does, for what it sends."""
    pulled = [c.image for c in config.containers if workload_plan.store(config, c) is None]
    hosts = sorted({image.partition("/")[0] for image in pulled})
    listed = "".join(f'[[registry]]\nlocation = "{host}"\ninsecure = true\n' for host in hosts)
    return 'unqualified-search-registries = []\nshort-name-mode = "enforcing"\n' + listed


def _unit(description: str) -> str:
    # no limit to restarts: the config's policy says when a container comes back
    return (
        f"[Unit]\nDescription={description}\nDefaultDependencies=no\nConflicts=shutdown.target\n"
        "Before=shutdown.target\nStartLimitIntervalSec=0\n\n[Quadlet]\nDefaultDependencies=false\n"
    )


def _service(*lines: str) -> str:
    # nothing that a container or Podman says leaves the machine
    listed = (
        f"Environment=CONTAINERS_STORAGE_CONF={FOLDER}/{STORAGE_FILE}",
        f"Environment=CONTAINERS_REGISTRIES_CONF={FOLDER}/{REGISTRIES_FILE}",
        "StandardInput=null",
        "StandardOutput=null",
        "StandardError=null",
        f"CapabilityBoundingSet=~{' '.join(_NEVER)}",
        *lines,
    )
    return "\n[Service]\n" + "\n".join(listed) + "\n"


def _network(net: Net) -> str:
    # netavark 1.14: isolate keeps one bridge's packets from another; names are resolved in /etc/hosts alone
    return (
        _unit(f"Network {net.name}")
        + f"\n[Network]\nNetworkName={net.name}\nDriver=bridge\nDisableDNS=true\nSubnet={net.subnet}\n"
        + f"Gateway={net.gateway}\nOptions=isolate=true\n"
        + ("Internal=true\n" if net.internal else "")
        + f"PodmanArgs={word('--interface-name=' + net.bridge)}\n"
        + _service(f"TimeoutStartSec={_START}")
    )


def _container(config: Config, container: Container) -> str:
    """Raises `Refused` for what is not supported, or not to be passed on."""
    config_workload.check(config, container)
    stored = workload_plan.store(config, container) is not None
    stop = _DEFAULT_STOP if container.stop_timeout is None else container.stop_timeout
    keys = [
        f"ContainerName={container.name}",
        f"Image={container.image}",
        f"Pull={'never' if stored else 'missing'}",
        "LogDriver=passthrough",
        "NoNewPrivileges=true",
        "DropCapability=all",
        *(f"AddCapability={name}" for name in container.cap_add),
        f"ReadOnly={'true' if container.read_only else 'false'}",
        *(f"UIDMap=0:{identity(config, container)}:{_IDS}", f"GIDMap=0:{identity(config, container)}:{_IDS}"),
        *(f"Network={a.net.unit}:ip={a.ip}" for a in addresses(config, container)),
        *(f"PublishPort={outside}:{inside}/tcp" for outside, inside in container.ports),
        *(f"Environment={word(f'{v.name}={v.value}')}" for v in container.env if v.value is not None),
        *(f"Secret={name},type=env,target={name}" for name in config_workload.operator_names(container)),
        *(f"AddDevice=nvidia.com/gpu={index}" for index in gpu_indices(config, container)),
        f"PodmanArgs={words(_arguments(config, container))}",
    ]
    if container.command and not container.entrypoint:
        keys.append(f"Exec={words(container.command)}")
    service = [
        f"Restart={_RESTART[container.restart]}",
        "RestartSec=1",
        f"TimeoutStartSec={_START if stored else _PULL}",
        f"TimeoutStopSec={stop + _STOP}",
    ]
    return (
        _unit(f"Container {container.name}") + "\n[Container]\n" + "\n".join(keys) + "\n" + _service(*service)
    )


def _arguments(config: Config, container: Container) -> list[str]:
    """podman-run(1): what has no key in Quadlet, or a key that does not take every text."""
    own = addresses(config, container)
    arguments = [
        "--systemd=false",
        "--image-volume=ignore",
        # the image's own; the config's is run by workload_health.py, because Podman's timers need D-Bus
        "--no-healthcheck",
        "--read-only-tmpfs=false",
        f"--ipc={container.ipc}",
        *(f"--add-host={name}:{ip}" for name, ip in _neighbours(config, container, own)),
    ]
    if all(address.net.internal for address in own):
        arguments.append("--dns=none")
    for flag, number in (("pids-limit", container.pids_limit), ("stop-timeout", container.stop_timeout)):
        if number is not None:
            arguments.append(f"--{flag}={number}")
    for flag, size in (("memory", container.memory), ("shm-size", container.shm_size)):
        if size is not None:
            arguments.append(f"--{flag}={size}b")
    if container.cpus is not None:
        arguments.append(f"--cpus={container.cpus // 1000}.{container.cpus % 1000:03d}")
    for flag, text in (
        ("user", container.user),
        ("workdir", container.working_dir),
        ("stop-signal", container.stop_signal),
    ):
        if text is not None:
            arguments.append(f"--{flag}={text}")
    if container.entrypoint:
        arguments.append(f"--entrypoint={json.dumps([*container.entrypoint, *container.command])}")
    sealed = f"{bootlog.SEALED}/{bootlog.VOLUMES_FOLDER}"
    arguments += [f"--volume={sealed}/{n}:{MODELS}/{n}:ro,nodev,nosuid,noexec" for n in container.models]
    flags = {volume.name: "exec" if volume.exec else "noexec" for volume in config.volumes}
    arguments += [
        f"--volume={VOLUMES}/{name}:{target}:rw,nodev,nosuid,{flags[name]}"
        for name, target in container.volumes
    ]
    arguments += [f"--tmpfs={target}:{options}" for target, options in container.tmpfs]
    return arguments


def _neighbours(config: Config, container: Container, own: tuple[Address, ...]) -> list[tuple[str, str]]:
    """Names and addresses of the other containers that share a network with this one."""
    shared = {address.net.bridge for address in own}
    return [
        (other.name, address.ip)
        for other in config.containers
        if other != container
        for address in addresses(config, other)
        if address.net.bridge in shared
    ]


def gpu_indices(config: Config, container: Container) -> tuple[int, ...]:
    """Those that it may use, of the machine's that the gate verified."""
    wanted = container.gpus
    if wanted is None:
        return ()
    if isinstance(wanted, int):
        return tuple(range(wanted))
    return tuple(range(config.gpus)) if wanted == "all" else tuple(map(int, wanted.split(",")))
