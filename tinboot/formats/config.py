"""`tinboot.yml`: bytes to a `Config`, or a `Refusal`.

    bytes -> yamlstrict (one plain YAML document) -> config_schema (keys and types) -> the rules here

The same code runs in `tinboot build` and in the initrd, where the bytes have been hashed before, so
that no config can mean one thing to the builder and another to the guest.
"""

from __future__ import annotations

from collections.abc import Iterable

from tinboot.formats import yamlstrict
from tinboot.formats.config_container import Container
from tinboot.formats.config_readers import invalid
from tinboot.formats.config_schema import CONFIG, MAX_MODELS, RESERVED_KEYS, Config, Image, Model
from tinboot.formats.yamlstrict import Mapping, Node, Place, Sequence

__all__ = ["Config", "Image", "Model", "load"]

#: Ports of the machine that are the proxy's: TLS, and ACME's HTTP challenge (RFC 8555, 8.3).
_PROXY_PORTS = (443, 80)

_Path = tuple[str | int, ...]


def load(data: bytes) -> Config:
    """Raises `Refusal` with config-too-large, config-not-utf8, config-malformed, config-too-complex,
    config-unknown-key or config-invalid; its detail names line (from 1) and path."""
    root = yamlstrict.parse(data)
    config = CONFIG(root)
    rules = _Rules(root)
    _check_models(config, rules)
    _check_images(config, rules)
    _check_machine(config, rules)
    _check_shim(config, rules)
    _check_keys(config, rules)
    rules.distinct(("containers",), "name", [container.name for container in config.containers])
    for at, container in enumerate(config.containers):
        _check_container(config, container, ("containers", at), rules)
    _check_ports(config, rules)
    return config


class _Rules:
    """Refusals that know the line of what they refuse."""

    def __init__(self, root: Node) -> None:
        self._root = root

    def given(self, key: str) -> bool:
        """Whether the file itself has the top-level `key`."""
        return isinstance(self._root, Mapping) and key in self._root.entries

    def require(self, holds: bool, path: _Path, message: str) -> None:
        if not holds:
            raise invalid(self._place(path), message)

    def distinct(self, path: _Path, key: str, values: Iterable[object]) -> None:
        """Of the list at `path`, no two entries have the same value of `key`."""
        seen: dict[object, int] = {}
        for at, value in enumerate(values):
            first = seen.setdefault(value, at)
            self.require(first == at, (*path, at, key), f"the same as in {path[-1]}[{first}]")

    def declared(self, path: _Path, names: Iterable[str], where: str, known: Iterable[str]) -> None:
        """Every name of the list at `path` is among `known`, the names of the section `where`."""
        known = tuple(known)
        for at, name in enumerate(names):
            self.require(name in known, (*path, at), f"{name} is not declared in {where}")

    def _place(self, path: _Path) -> Place:
        """As far along `path` as the file goes: a key may be an alias, or be left out."""
        node = self._root
        for step in path:
            if isinstance(node, Mapping) and step in node.entries:
                node = node.entries[str(step)]
            elif isinstance(node, Sequence) and isinstance(step, int):
                node = node.items[step]
        return node.place


def _check_models(config: Config, rules: _Rules) -> None:
    rules.distinct(("models",), "name", [model.name for model in config.models])
    rules.distinct(("models",), "mpk", [model.volume.root_hash for model in config.models])
    rules.distinct(("volumes",), "name", [volume.name for volume in config.volumes])
    for at, volume in enumerate(config.volumes):
        path: _Path = ("volumes", at, "overlays")
        rules.require(volume.exec or not volume.overlays, path, "overlays need exec: true")
        rules.distinct(path, "target", [overlay.target for overlay in volume.overlays])
        for index, overlay in enumerate(volume.overlays):
            known = any(model.name == overlay.model for model in config.models)
            rules.require(known, (*path, index, "model"), f"{overlay.model} is not declared in models")


def _check_images(config: Config, rules: _Rules) -> None:
    path: _Path = ("images",)
    count = len(config.models) + len(config.images)
    rules.require(count <= MAX_MODELS, path, f"{count} with the models, expected at most {MAX_MODELS}")
    rules.distinct(path, "image", [image.image for image in config.images])
    rules.distinct(path, "mpk", [image.volume.root_hash for image in config.images])
    models = [model.volume.root_hash for model in config.models]
    wanted = [container.image for container in config.containers]
    for at, image in enumerate(config.images):
        rules.require(image.volume.root_hash not in models, (*path, at, "mpk"), "the volume of a model")
        rules.require(image.image in wanted, (*path, at, "image"), "no container has this image")


def _check_machine(config: Config, rules: _Rules) -> None:
    rules.require(
        config.gpus > 0 or not rules.given("gpu-policy"), ("gpu-policy",), "there are no GPUs: gpus is 0"
    )
    rules.require(
        "native" in config.gpu_policy.verifiers, ("gpu-policy", "verifiers"), "native is always one of them"
    )


def _check_shim(config: Config, rules: _Rules) -> None:
    shim = config.shim
    if shim is None:
        return
    name = shim.upstream_container
    known = name is None or any(container.name == name for container in config.containers)
    rules.require(known, ("shim", "upstream-container"), f"{name} is not declared in containers")
    rules.require(
        shim.expected_gpus in (None, config.gpus), ("shim", "expected-gpus"), f"gpus is {config.gpus}"
    )
    rules.require(
        not shim.dummy_attestation,
        ("shim", "dummy-attestation"),
        "evidence that proves nothing is never published: leave the key out",
    )
    rules.require(
        not shim.tls_wildcard or shim.tls_challenge == "dns",
        ("shim", "tls-wildcard"),
        "needs tls-challenge: dns",
    )


def _check_keys(config: Config, rules: _Rules) -> None:
    rules.distinct(("attested-keys",), "id", [key.id for key in config.attested_keys])
    for at, key in enumerate(config.attested_keys):
        path: _Path = ("attested-keys", at, "id")
        rules.require(key.id not in RESERVED_KEYS, path, f"{key.id} is a key that every machine has")
        holders = sum(key.id in container.keys for container in config.containers)
        rules.require(holders == 1, path, f"{holders} containers have it in keys, expected one")


def _check_container(config: Config, container: Container, path: _Path, rules: _Rules) -> None:
    rules.declared((*path, "models"), container.models, "models", (m.name for m in config.models))
    rules.declared((*path, "networks"), container.networks, "networks", (name for name, _ in config.networks))
    rules.declared((*path, "keys"), container.keys, "attested-keys", (key.id for key in config.attested_keys))
    mounted = [name for name, _ in container.volumes]
    rules.declared((*path, "volumes"), mounted, "volumes", (volume.name for volume in config.volumes))

    variables = [variable.name for variable in container.env]
    rules.distinct((*path, "env"), "", variables)
    for at, secret in enumerate(container.secrets):
        rules.require(secret not in variables, (*path, "secrets", at), f"{secret} is in env too")
    targets = [target for _, target in container.volumes] + [target for target, _ in container.tmpfs]
    rules.require(len(set(targets)) == len(targets), path, "two volumes or tmpfs have the same target")

    egress = [name for name, network in config.networks if network.egress != "closed"]
    leading_out = sum(name in egress for name in container.networks)
    rules.require(leading_out < 2, (*path, "networks"), "more than one of them leads out of the machine")

    selection = container.gpus
    wanted = selection is not None
    rules.require(wanted == (container.runtime == "nvidia"), path, "gpus and runtime: nvidia need each other")
    rules.require(not wanted or config.gpus > 0, (*path, "gpus"), "the machine has none: gpus is 0")
    if isinstance(selection, int):
        rules.require(selection <= config.gpus, (*path, "gpus"), f"the machine has {config.gpus}")
    elif selection not in (None, "all"):
        last = int(selection[-1])
        rules.require(
            last < config.gpus, (*path, "gpus"), f"there is no GPU {last}: the machine has {config.gpus}"
        )


def _check_ports(config: Config, rules: _Rules) -> None:
    taken: dict[int, str] = {}
    for at, container in enumerate(config.containers):
        path: _Path = ("containers", at, "ports")
        rules.require(not container.ports or bool(container.networks), path, "ports need a network")
        for index, (outside, _) in enumerate(container.ports):
            free = outside not in _PROXY_PORTS and outside not in taken
            rules.require(free, (*path, index), f"port {outside} is {taken.get(outside, 'the proxy')}'s")
            taken[outside] = container.name
