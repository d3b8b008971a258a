"""Device-mapper by ioctl: one device with one target, made and read back.

Layouts from include/uapi/linux/dm-ioctl.h (struct dm_ioctl, struct dm_target_spec).
"""

from __future__ import annotations

import struct
from typing import NamedTuple, Protocol

# version[3] data_size data_start | target_count open_count flags event_nr padding | dev name uuid data[7]
HEADER = struct.Struct("=3I2IIiIIIQ128s129s7x")
# sector_start length status next target_type[16]
TARGET = struct.Struct("=QQiI16s")

CREATE = 3  # DM_DEV_CREATE_CMD
SUSPEND = 6  # DM_DEV_SUSPEND_CMD: resumes unless DM_SUSPEND_FLAG is set
LOAD = 9  # DM_TABLE_LOAD_CMD
STATUS = 12  # DM_TABLE_STATUS_CMD

READ_ONLY = 1 << 0
ACTIVE = 1 << 5  # DM_ACTIVE_PRESENT_FLAG
INACTIVE = 1 << 6  # DM_INACTIVE_PRESENT_FLAG
_STATUS_TABLE = 1 << 4  # the parameters instead of the state
_BUFFER_FULL = 1 << 8

_VERSION = (4, 0, 0)  # the interface's major version has been 4 since Linux 2.6
_ROOM = 4096  # for the reply of STATUS; a verity table has about 250 bytes
_NAME_BYTES = 128


class Ioctl(Protocol):
    """`Kernel.ioctl`."""

    def __call__(self, path: str, request: int, buffer: bytearray) -> None: ...


class Target(NamedTuple):
    """A device's only target: 512-byte sectors from `start`, its type, and its text as asked for.

    `flags`: those of READ_ONLY, ACTIVE and INACTIVE that are set.
    """

    flags: int
    start: int
    sectors: int
    kind: str
    text: str


class Mapper:
    """`control` is the path of the control node. Methods raise OSError where the kernel says no."""

    def __init__(self, ioctl: Ioctl, control: str) -> None:
        self._ioctl = ioctl
        self._control = control

    def create(self, name: str) -> int:
        """A device without a table; returns its number (dev_t)."""
        device: int = HEADER.unpack_from(self._call(CREATE, name))[10]
        return device

    def load(self, name: str, sectors: int, kind: str, text: str) -> None:
        """Loads a read-only table of one target into the inactive slot."""
        parameters = text.encode("ascii") + b"\0"
        parameters += bytes(-len(parameters) % 8)
        target = TARGET.pack(0, sectors, 0, TARGET.size + len(parameters), kind.encode("ascii"))
        self._call(LOAD, name, READ_ONLY, target + parameters, 1)

    def resume(self, name: str) -> None:
        """Makes the loaded table the active one."""
        self._call(SUSPEND, name)

    def state(self, name: str) -> Target:
        """The active target with its state; ValueError unless there is exactly one."""
        return self._target(name, 0)

    def table(self, name: str) -> Target:
        """The active target with its parameters; ValueError unless there is exactly one."""
        return self._target(name, _STATUS_TABLE)

    def _target(self, name: str, flags: int) -> Target:
        reply = self._call(STATUS, name, flags)
        fields = HEADER.unpack_from(reply)
        start, count, answered = fields[4], fields[5], fields[7]
        if count != 1 or answered & _BUFFER_FULL:
            raise ValueError(f"{name} has {count} targets, flags {answered:#x}; expected one that fits")
        first, sectors, _, _, kind = TARGET.unpack_from(reply, start)
        text = bytes(reply[start + TARGET.size :]).partition(b"\0")[0].decode("ascii", "backslashreplace")
        flags = answered & (READ_ONLY | ACTIVE | INACTIVE)
        return Target(flags, first, sectors, kind.rstrip(b"\0").decode("ascii", "backslashreplace"), text)

    def _call(self, number: int, name: str, flags: int = 0, data: bytes = b"", targets: int = 0) -> bytearray:
        label = name.encode("ascii")
        if len(label) >= _NAME_BYTES:
            raise ValueError(f"the device-mapper name {name} has {len(label)} bytes, the limit is 127")
        size = HEADER.size + max(len(data), _ROOM)
        buffer = bytearray(size)
        HEADER.pack_into(buffer, 0, *_VERSION, size, HEADER.size, targets, 0, flags, 0, 0, 0, label, b"")
        buffer[HEADER.size : HEADER.size + len(data)] = data
        request = 3 << 30 | HEADER.size << 16 | 0xFD << 8 | number  # _IOWR(DM_IOCTL, number, struct dm_ioctl)
        self._ioctl(self._control, request, buffer)
        return buffer
