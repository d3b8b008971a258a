"""A network device whose only traffic are TCP ports of this machine that lead into the guest.

As the launcher makes it (docs/launch.md), but that the kernel chooses the port: tests run side by side.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tinboot.formats.errors import Unavailable
from tinboot.host.launch import option

if TYPE_CHECKING:
    from machine import Machine

_SLOT = 1  # of pcie.0, as the launcher has it


def arguments(*ports: int) -> list[str]:
    """QEMU's, for these ports of the guest; of 127.0.0.1 here."""
    backend = option("user", {"id": "net0", "ipv6": "off", "restrict": "on"})
    backend += "".join(f",hostfwd=tcp:127.0.0.1:0-:{port}" for port in ports)
    properties = {
        "netdev": "net0",
        "bus": "pcie.0",
        "addr": f"{_SLOT:#x}",
        "disable-legacy": "on",
        "iommu_platform": "true",
        "romfile": "",
    }
    return ["-netdev", backend, "-device", option("virtio-net-pci", properties)]


def port(machine: Machine, guest_port: int) -> int:
    """The port of 127.0.0.1 that leads to `guest_port`, as QEMU's monitor tells it (net/slirp.c)."""
    table = str(machine.execute("human-monitor-command", {"command-line": "info usernet"}))
    row = rf"^\s*TCP\[HOST_FORWARD\]\s+\S+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+{guest_port}\s"
    match = re.search(row, table, re.MULTILINE)
    if match is None:
        raise Unavailable(f"no port leads to {guest_port}:\n{table}")
    return int(match[1])
