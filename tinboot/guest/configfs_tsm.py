"""Reports through configfs, the kernel's interface for every kind of confidential guest.

Linux 6.12, Documentation/ABI/testing/configfs-tsm. One makes an entry, writes the 64 bytes to be reported,
and reads. Each write raises `generation`; another writer would be seen by it, and then all is read again.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from tinboot.formats import certtable, snpreport
from tinboot.formats.sevguest import USER_DATA_BYTES
from tinboot.guest.evidence import BadAnswer, Busy, DeviceError, Evidence, NoDevice

ENTRIES = Path("/sys/kernel/config/tsm/report")
PROVIDER = "sev_guest"

#: Attempts to read an answer that nobody else wrote to meanwhile: the entry's name is ours alone.
_ATTEMPTS = 3

_ABSENT = (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EOPNOTSUPP)
_LATER = (errno.EBUSY, errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT)


def collect(report_data: bytes, entries: Path = ENTRIES) -> Evidence:
    """A report of VMPL 0 with `report_data`, 64 bytes; raises EvidenceError.

    The entry is removed however this ends.
    """
    if len(report_data) != USER_DATA_BYTES:
        raise ValueError(f"REPORT_DATA has {USER_DATA_BYTES} bytes, not {len(report_data)}")
    entry = entries / f"tinboot-{os.getpid()}"
    try:
        entry.mkdir()
    except OSError as error:
        if error.errno in _ABSENT:
            raise NoDevice(f"{entries}: {error.strerror}") from error
        raise DeviceError(f"{entry}: {error.strerror}") from error
    try:
        for _ in range(_ATTEMPTS):
            evidence = _read(entry, report_data)
            if evidence is not None:
                return evidence
        raise BadAnswer(f"{entry}: another writer changed it {_ATTEMPTS} times")
    except OSError as error:
        if error.errno in _LATER:
            raise Busy(f"{entry}: {error.strerror}") from error
        raise DeviceError(f"{entry}: {error.strerror}") from error
    finally:
        entry.rmdir()


def _read(entry: Path, report_data: bytes) -> Evidence | None:
    """One attempt; None if someone wrote to the entry meanwhile."""
    _write(entry / "inblob", report_data)
    generation = _text(entry / "generation")
    provider = _text(entry / "provider")
    report = _blob(entry / "outblob", snpreport.SIZE)
    certificates = _blob(entry / "auxblob", certtable.MAX_SIZE)
    if _text(entry / "generation") != generation:
        return None
    if provider != PROVIDER:
        raise BadAnswer(f"{entry}: the provider is {provider[:40]!r}, not {PROVIDER}")
    return Evidence("configfs-tsm", report, certificates)


def _write(path: Path, data: bytes) -> None:
    """In one write(2): each is a request of its own to the kernel."""
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        if os.write(file, data) != len(data):
            raise BadAnswer(f"{path}: took a part of {len(data)} bytes")
    finally:
        os.close(file)


def _blob(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise BadAnswer(f"{path}: more than {limit} bytes")
    return data


def _text(path: Path) -> str:
    return _blob(path, 64).decode("ascii", "replace").strip()
