"""What the containers' networks let through, as nft(8) reads it, beside netavark's own rules.

netavark translates addresses and leaves the rest open: once it has the kernel forward, whoever is on the
machine's network could send packets to a container by its address, past the proxy. Here nothing is forwarded
but

    out      from networks whose egress is open
    in       to ports that a container publishes and cvm-network.inbound-ports opens
    answers  to either

and nothing of the machine itself is to be reached from a container. A packet within one network is not
forwarded: its bridge passes it on.
"""

from __future__ import annotations

from tinboot.formats.config import Config
from tinboot.guest import workload_plan

#: The machine's own device (tinboot-prepare), the containers' bridges, and what is theirs of all addresses.
_OUTSIDE, _BRIDGES, _ADDRESSES = "eth0", "tbnet*", "10.89.0.0/16"


def render(config: Config) -> str:
    """Replaces the table as a whole where it is there already."""
    leads_out = [net.bridge for net in workload_plan.nets(config) if not net.internal]
    published = [outside for container in config.containers for outside, _ in container.ports]
    opened = [port for port in published if port in config.cvm_network.inbound_ports]
    forward = [
        "ct state established,related accept",
        *(f'iifname "{bridge}" oifname "{_OUTSIDE}" accept' for bridge in leads_out),
        *(f'iifname "{_OUTSIDE}" ct status dnat ct original proto-dst {port} accept' for port in opened),
    ]
    arriving = [
        f'iifname "{_OUTSIDE}" ip saddr {_ADDRESSES} drop',
        f'iifname "{_OUTSIDE}" ip daddr {_ADDRESSES} drop',
        f'iifname "{_BRIDGES}" ct state established,related accept',
        f'iifname "{_BRIDGES}" drop',
    ]
    return (
        "table inet tinboot\ndelete table inet tinboot\ntable inet tinboot {\n"
        + _chain("forward", "drop", forward)
        + _chain("input", "accept", arriving)
        + "}\n"
    )


def _chain(hook: str, policy: str, rules: list[str]) -> str:
    # before netavark's, whose priority is filter: what is dropped here stays dropped
    begin = f"type filter hook {hook} priority filter - 10; policy {policy};"
    return "".join([f" chain {hook} {{\n", *(f"  {line}\n" for line in (begin, *rules)), " }\n"])
