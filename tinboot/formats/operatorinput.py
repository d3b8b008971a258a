"""What whoever runs the machine gives it, unmeasured: values for names in the config, and an address.

    {"env":{"DOMAIN":"a.example"},"secrets":{"API_KEY":"…"},"network":{"address":"10.0.2.15/24",
     "gateway":"10.0.2.2","dns":["10.0.2.3"]}}

On a disk of its own, NUL-padded to the sector, at most 64 KiB, each member optional. Nothing in it is
attested, so it can say no more than the attested config asks for by name: neither another name, nor one
by whose value something else would run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from tinboot.formats.config import Config
from tinboot.formats.configdisk import SECTOR
from tinboot.formats.errors import Malformed, Mismatch, Refused
from tinboot.formats.jsonfields import Fields, parse_object
from tinboot.formats.variablenames import changes_what_runs

MAX_SIZE = 64 << 10  # bytes, padding included
MAX_DNS = 3  # resolv.conf(5), MAXNS
_MAX_VALUE = 32 << 10  # characters
#: /16, by the plan of the workload's networks (tinboot/guest/workload_plan.py).
CONTAINERS = "10.89.0.0"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}\.{_OCTET}\.{_OCTET}\.{_OCTET}")


class Network(NamedTuple):
    """IPv4, as dotted quads; `prefix` in bits."""

    address: str
    prefix: int
    gateway: str
    dns: tuple[str, ...]

    @property
    def netmask(self) -> str:
        bits = 0xFFFFFFFF << (32 - self.prefix) & 0xFFFFFFFF
        return ".".join(str(byte) for byte in bits.to_bytes(4, "big"))


#: QEMU's user network (net/slirp.c), for a machine that is given no other.
DEFAULT_NETWORK = Network("10.0.2.15", 24, "10.0.2.2", ("10.0.2.3",))


class OperatorInput(NamedTuple):
    """`env` and `secrets`: name to value."""

    env: Mapping[str, str]
    secrets: Mapping[str, str]
    network: Network | None

    @property
    def values(self) -> dict[str, str]:
        """Of both; the config has no name in both."""
        return {**self.env, **self.secrets}


NOTHING = OperatorInput({}, {}, None)


def pad(data: bytes) -> bytes:
    """The disk for the JSON `data`; raises `Malformed` where `parse` would not take it."""
    disk = data + bytes(-len(data) % SECTOR)
    parse(disk)
    return disk


def parse(disk: bytes) -> OperatorInput:
    """A whole disk. Raises `Malformed`; nothing of a value is ever in the message."""
    if len(disk) > MAX_SIZE:
        raise Malformed(f"the operator's disk has {len(disk)} bytes, expected at most {MAX_SIZE}")
    data, _, rest = disk.partition(b"\0")
    if rest.strip(b"\0") or len(rest) >= SECTOR:
        raise Malformed("the operator's disk: more than the padding of a sector follows the JSON")
    fields = parse_object("operator", data, MAX_SIZE)
    given = OperatorInput(_values(fields, "env"), _values(fields, "secrets"), _network(fields))
    fields.end()
    return given


def check(given: OperatorInput, config: Config) -> None:
    """That `given` has each value that `config` asks for and no other.

    Raises `Refused` for one that nobody asked for, or that would change what runs; `Mismatch` for one that
    is missing.
    """
    wanted_env = {v.name for c in config.containers for v in c.env if v.value is None}
    wanted_secrets = {name for c in config.containers for name in c.secrets}
    for where, names, wanted in (("env", given.env, wanted_env), ("secrets", given.secrets, wanted_secrets)):
        for name in names:
            if name not in wanted:
                raise Refused(f"operator.{where}.{name}: no container of the config asks for it there")
            if changes_what_runs(name):
                raise Refused(f"operator.{where}.{name}: its value changes what runs: it has to be measured")
        if missing := sorted(wanted - set(names)):
            raise Mismatch(
                f"operator.{where}.{missing[0]}: missing, and a container of the config asks for it"
            )


def _values(fields: Fields, member: str) -> dict[str, str]:
    if not fields.has(member):
        return {}
    record = fields.record(member)
    values = {}
    for name in record.names:
        if not _NAME.fullmatch(name):
            raise Malformed(f"{record.where} has the name {name[:64]!r}, expected that of a variable")
        values[name] = record.lines(name, _MAX_VALUE)
    return values


def _network(fields: Fields) -> Network | None:
    if not fields.has("network"):
        return None
    record = fields.record("network")
    where = record.where
    address, slash, prefix = record.text("address").partition("/")
    if not slash or not re.fullmatch("[89]|[12][0-9]|30", prefix):
        raise Malformed(f"{where}.address has the prefix {prefix!r}, expected one of 8 to 30 behind a slash")
    network = Network(
        _host(f"{where}.address", address),
        int(prefix),
        _host(f"{where}.gateway", record.text("gateway")),
        tuple(_host(f"{where}.dns", server) for server in record.texts("dns")) if record.has("dns") else (),
    )
    record.end()
    if len(network.dns) > MAX_DNS:
        raise Malformed(f"{where}.dns has {len(network.dns)} addresses, expected at most {MAX_DNS}")
    _check_subnet(where, network)
    return network


def _check_subnet(where: str, network: Network) -> None:
    mask = _number(network.netmask)
    subnet = _number(network.address) & mask
    for name, host in (("address", network.address), ("gateway", network.gateway)):
        number = _number(host)
        if number & mask != subnet or number in (subnet, subnet | ~mask & 0xFFFFFFFF):
            raise Malformed(
                f"{where}.{name} is {host}, which is no host of {network.address}/{network.prefix}"
            )
    containers, wider = _number(CONTAINERS), mask & 0xFFFF0000
    if subnet & wider == containers & wider:
        raise Malformed(
            f"{where}.address is {network.address}/{network.prefix}: {CONTAINERS}/16 is the containers'"
        )
    if network.address == network.gateway:
        raise Malformed(f"{where}: address and gateway are both {network.address}")


def _host(where: str, text: str) -> str:
    """A host's address: not the machine's own, nobody's or a group's (RFC 6890, RFC 1112)."""
    match = _IPV4.fullmatch(text)
    if match is None or int(match[1]) in (0, 127, *range(224, 256)):
        raise Malformed(f"{where} is {text!r}, expected the IPv4 address of a host")
    return text


def _number(address: str) -> int:
    return int.from_bytes(bytes(int(octet) for octet in address.split(".")), "big")
