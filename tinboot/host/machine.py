"""What the checks look at: a tree of files, and the two answers that no file gives.

Everything is read from below `root`, so that a test can hand over a made-up tree; `observe()` is
the only place that runs a program or talks to a device.
"""

from __future__ import annotations

import ctypes
import enum
import fcntl
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from tinboot.host import qemu
from tinboot.host.launch import QEMU

_LIMIT = 1 << 20


class Status(enum.Enum):
    """The answer of one check. `UNKNOWN` is never taken for either of the others."""

    OK = "ok"
    MISSING = "missing"
    UNKNOWN = "cannot tell"


@dataclass(frozen=True, slots=True)
class Finding:
    """One named check: the answer, what was found, and what to do unless it is `OK`."""

    name: str
    status: Status
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class SnpStatus:
    """SNP_PLATFORM_STATUS of the secure processor: API version, build, and whether the RMP is set up."""

    api: tuple[int, int]
    build: int
    rmp: bool


@dataclass(frozen=True, slots=True)
class Machine:
    """`memory`: MiB of the guest to plan for. `firmware`: the one to judge, else the usual places."""

    root: Path
    qemu: str | None
    snp: SnpStatus | None
    memory: int
    firmware: Path | None = None

    def text(self, path: str) -> str | None:
        """The first MiB of a file below the root; None where it cannot be read."""
        try:
            with (self.root / path).open("rb") as file:
                return file.read(_LIMIT).decode(errors="replace")
        except OSError:
            return None

    def names(self, path: str) -> list[str]:
        """The sorted entries of a directory below the root; none where there is no such directory."""
        try:
            return sorted(entry.name for entry in (self.root / path).iterdir())
        except OSError:
            return []

    def exists(self, path: str) -> bool:
        return (self.root / path).exists()


def observe(memory: int, firmware: Path | None, program: str = QEMU, root: Path = Path("/")) -> Machine:
    """This machine. Starts `program --version` and asks /dev/sev; changes nothing."""
    return Machine(root, qemu.version_text(program), _snp_status(root / "dev/sev"), memory, firmware)


#: linux/psp-sev.h: SEV_ISSUE_CMD is _IOWR('S', 0, struct sev_issue_cmd): u32 cmd, u64 data, u32 error.
_SEV_ISSUE_CMD = 0xC0105300
_SNP_PLATFORM_STATUS = 9


def _snp_status(device: Path) -> SnpStatus | None:
    data = ctypes.create_string_buffer(32)  # struct sev_user_data_snp_status
    command = bytearray(struct.pack("<IQI", _SNP_PLATFORM_STATUS, ctypes.addressof(data), 0))
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, _SEV_ISSUE_CMD, command)
        finally:
            os.close(descriptor)
    except OSError:
        return None
    return parse_snp_status(data.raw)


def parse_snp_status(data: bytes) -> SnpStatus:
    """linux/psp-sev.h, struct sev_user_data_snp_status: u8 major, minor, state, flags; u32 build; …"""
    major, minor, _state, flags, build = struct.unpack_from("<BBBBI", data)
    return SnpStatus((major, minor), build, bool(flags & 1))
