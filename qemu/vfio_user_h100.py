"""Functions on the guest's PCI bus that look like H100s, and nothing more: served to QEMU by vfio-user.

    with Functions((H100, H100)) as functions:
        with Machine([*listed, *functions.arguments], log=log): ...

Config space and its capabilities are there; BAR 0 reads as zeros and forgets what is written; there is no
interrupt and no DMA. What a guest's NVML says of them is qemu/gpu.py's. QEMU can show them from `MINIMUM` on.
"""

from __future__ import annotations

import json
import shutil
import struct
import tempfile
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple, Self

from machine import find_qemu
from vfio_user import CONFIG, Server

from tinboot.host.launch import option
from tinboot.host.qemu import parse_version, version_text

#: QEMU has `vfio-user-pci` from here on.
MINIMUM = (10, 1)
#: As many as functions of the one slot of their root ports.
MOST = 8

_SLOT = 28  # of pcie.0: where the launcher puts the root ports of GPUs

CONFIG_BYTES = 4096  # PCI Express Base Specification 5.0, 7.2.2
BAR_BYTES = 1 << 16


class Identity(NamedTuple):
    """`kind`: base class, sub-class and interface, in 24 bits."""

    vendor: int
    device: int
    kind: int
    subsystem: int = 0x1626
    revision: int = 0xA1


#: An H100 PCIe, and a display device that is not NVIDIA's.
H100, FOREIGN = Identity(0x10DE, 0x2331, 0x030200), Identity(0x1002, 0x1636, 0x030000)


def can_be_shown() -> bool:
    """Whether the harness's QEMU has `vfio-user-pci`. Raises `Unavailable` where there is no QEMU."""
    version = parse_version(version_text(find_qemu()) or "")
    return version is not None and version >= MINIMUM


class Registers:
    """A function's. What a guest may not write, it writes in vain."""

    def __init__(self, identity: Identity) -> None:
        self._initial, self._writable = _config(identity), _writable()
        self._config = bytearray(self._initial)

    def size(self, region: int) -> int:
        return {0: BAR_BYTES, CONFIG: CONFIG_BYTES}.get(region, 0)

    def read(self, region: int, offset: int, count: int) -> bytes:
        return bytes(self._config[offset : offset + count]) if region == CONFIG else bytes(count)

    def write(self, region: int, offset: int, data: bytes) -> None:
        if region != CONFIG:
            return
        for at, value in enumerate(data, offset):
            mask = self._writable[at]
            self._config[at] = self._config[at] & ~mask | value & mask

    def reset(self) -> None:
        self._config[:] = self._initial


#: Where the capabilities are. PCI Bus Power Management 1.2, 3.2; PCI Express Base 5.0, 7.5.3.
_POWER, _EXPRESS = 0x60, 0x78
_POWER_ID, _EXPRESS_ID = 0x01, 0x10


def _config(identity: Identity) -> bytes:
    """PCI Local Bus 3.0, 6.1: a header of type 0, without an interrupt pin."""
    data = bytearray(CONFIG_BYTES)
    has_capabilities = 0x10  # of the status register
    struct.pack_into("<HHHH", data, 0x00, identity.vendor, identity.device, 0, has_capabilities)
    struct.pack_into("<I", data, 0x08, identity.kind << 8 | identity.revision)
    struct.pack_into("<I", data, 0x10, 0xC)  # BAR 0: memory, 64 bits, prefetchable
    struct.pack_into("<HH", data, 0x2C, identity.vendor, identity.subsystem)
    data[0x34] = _POWER
    struct.pack_into("<BBH", data, _POWER, _POWER_ID, _EXPRESS, 3)  # of version 1.2
    role_based_errors = 1 << 15  # which every device since 1.1 has
    struct.pack_into("<BBHI", data, _EXPRESS, _EXPRESS_ID, 0, 2, role_based_errors)  # version 2, endpoint
    return bytes(data)


def _writable() -> bytes:
    """The bits that keep what is written: a BAR's tell its size."""
    mask = bytearray(CONFIG_BYTES)
    struct.pack_into("<H", mask, 0x04, 0x0547)  # command: I/O, memory, master, parity, SERR, no INTx
    mask[0x0C] = 0xFF  # cache line size
    struct.pack_into("<Q", mask, 0x10, (1 << 64) - BAR_BYTES)
    mask[0x3C] = 0xFF  # interrupt line
    mask[_POWER + 4] = 3  # power state
    struct.pack_into("<H", mask, _EXPRESS + 8, 0x7FFF)  # device control, but for a reset
    return bytes(mask)


class Functions:
    """Serves up to `MOST` functions, each behind a root port of its own; none is no argument to QEMU.

    A context manager; the machine they are for begins and ends within it.
    """

    def __init__(self, identities: Sequence[Identity]) -> None:
        if len(identities) > MOST:
            raise ValueError(f"{len(identities)} functions, expected at most {MOST}")
        self._folder = tempfile.mkdtemp(prefix="tinboot-pci-")
        self.served = [Server(Registers(one), f"{self._folder}/{at}") for at, one in enumerate(identities)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self.served:
            server.end()
        shutil.rmtree(self._folder)

    @property
    def arguments(self) -> list[str]:
        """QEMU's. A socket's address is no plain value, which is why the device is JSON."""
        listed: list[str] = []
        for at, server in enumerate(self.served):
            root_port = {"id": f"gpu{at}", "bus": "pcie.0", "addr": f"{_SLOT:#x}.{at}"}
            chassis = {"multifunction": "on", "chassis": str(at + 1)}
            address = {"type": "unix", "path": server.path}
            device = {"driver": "vfio-user-pci", "bus": f"gpu{at}", "rombar": 0, "socket": address}
            listed += ["-device", option("pcie-root-port", root_port | chassis)]
            listed += ["-device", json.dumps(device)]
        return listed
