"""Where each container of a config is: names of units, of networks and bridges, and addresses.

All of it follows from the config's order alone, so that the proxy's settings can be written before anything
runs: network N is 10.89.N.0/24, container C has 10.89.N.<C + 2> in it. Number 0 is the network of every
container that names none; the config's own count from 1.
"""

from __future__ import annotations

from typing import NamedTuple

from tinboot.formats import bootlog
from tinboot.formats.config import Config
from tinboot.formats.config_container import Container
from tinboot.formats.errors import Refused
from tinboot.formats.verity import serial_for

#: The network of a container that names none: closed, and with nobody else's name.
DEFAULT_NETWORK = "default"


class Net(NamedTuple):
    """`unit`: Quadlet's file. `name`: Podman's name of it. `bridge`: the machine's interface."""

    unit: str
    name: str
    bridge: str
    subnet: str
    gateway: str
    internal: bool


class Address(NamedTuple):
    """A container's place in one network."""

    net: Net
    ip: str


def nets(config: Config) -> tuple[Net, ...]:
    """The networks that some container is in; those that nobody uses are not made."""
    used = {address.net.bridge: address.net for c in config.containers for address in addresses(config, c)}
    return tuple(used[bridge] for bridge in sorted(used))


def addresses(config: Config, container: Container) -> tuple[Address, ...]:
    """One for each of its networks, in the order in which it names them."""
    numbers = {name: number for number, (name, _) in enumerate(config.networks, 1)}
    host = config.containers.index(container) + 2
    if not container.networks:
        return (Address(_net(0, DEFAULT_NETWORK, internal=True), f"10.89.0.{host}"),)
    egress = {name: network.egress for name, network in config.networks}
    return tuple(
        Address(_net(numbers[name], name, internal=egress[name] == "closed"), f"10.89.{numbers[name]}.{host}")
        for name in container.networks
    )


def _net(number: int, name: str, *, internal: bool) -> Net:
    # numbers in the names: the config's may be anybody's, such as a real interface's
    return Net(
        f"tinboot-net{number}-{name}.network",
        f"net{number}-{name}",
        f"tbnet{number}",
        f"10.89.{number}.0/24",
        f"10.89.{number}.1",
        internal,
    )


def upstream(config: Config) -> tuple[str, int]:
    """Address and port of the container that `shim` leads to. Raises `Refused` where none can be told."""
    shim, named = config.shim, config.shim.upstream_container if config.shim else None
    if shim is None:
        raise Refused("there is no shim in the config, so nothing has an upstream")
    chosen = [c for c in config.containers if named in (None, c.name)]
    if len(chosen) != 1:
        raise Refused(
            f"{len(chosen)} containers could be shim's upstream, expected one",
            "name it in shim.upstream-container",
        )
    return addresses(config, chosen[0])[0].ip, shim.upstream_port


def unit(container: Container) -> str:
    """systemd's unit. The prefix keeps a container's name from being that of a unit of ours."""
    return f"tinboot-container-{container.name}.service"


def store(config: Config, container: Container) -> str | None:
    """The folder of the container's image among the sealed volumes; None where it is a registry's."""
    for image in config.images:
        if image.image == container.image:
            return f"{bootlog.SEALED}/{bootlog.IMAGES_FOLDER}/{serial_for(image.volume.root_hash)}"
    return None
