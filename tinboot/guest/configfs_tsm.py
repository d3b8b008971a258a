"""Reports through configfs, the kernel's interface for every kind of confidential guest.

Linux 6.12, Documentation/ABI/testing/configfs-tsm and drivers/virt/coco/tsm.c. One makes an entry, writes
what is to be reported, and reads. Each write raises `generation`: a writer beside us would be seen by it, and
then all is read again.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from tinboot.formats import certtable, snpreport
from tinboot.formats.sevguest import USER_DATA_BYTES
from tinboot.guest.evidence import BadAnswer, DeviceError, Evidence, NoDevice, Patience

ENTRIES = Path("/sys/kernel/config/tsm/report")
PROVIDER = "sev_guest"

_ABSENT = (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EOPNOTSUPP)
_LATER = (errno.EBUSY, errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT)

_TEXT_LIMIT = 64


def collect(report_data: bytes, patience: Patience, entries: Path = ENTRIES) -> Evidence:
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
        while True:
            try:
                evidence = _read(entry, report_data)
            except OSError as error:
                if error.errno not in _LATER:
                    raise DeviceError(f"{error.filename or entry}: {error.strerror}") from error
                patience.wait(f"{error.filename or entry}: {error.strerror}")
                continue
            if evidence is not None:
                return evidence
            patience.wait(f"{entry}: another writer changes it")
    finally:
        with contextlib.suppress(OSError):  # it is of no use to anybody, and does no harm
            entry.rmdir()


def _read(entry: Path, report_data: bytes) -> Evidence | None:
    """One attempt; None if someone wrote to the entry meanwhile."""
    provider = _text(entry / "provider")
    if provider != PROVIDER:
        raise BadAnswer(f"{entry}: the provider is {provider[:40]!r}, not {PROVIDER}")
    _write(entry / "privlevel", b"0")
    _write(entry / "inblob", report_data)
    generation = _text(entry / "generation")
    report = _blob(entry / "outblob", snpreport.SIZE)
    certificates = _blob(entry / "auxblob", certtable.MAX_SIZE)
    if _text(entry / "generation") != generation:
        return None
    if len(report) != snpreport.SIZE:
        raise BadAnswer(f"{entry}/outblob: {len(report)} bytes, expected {snpreport.SIZE}")
    return Evidence("configfs-tsm", report, certificates)


def _write(path: Path, data: bytes) -> None:
    """In one write(2): each is a request of its own to the kernel."""
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        if os.write(file, data) != len(data):
            raise BadAnswer(f"{path}: took a part of {len(data)} bytes")
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(file)


def _blob(path: Path, limit: int) -> bytes:
    """The whole file; the kernel wants one read(2) after another from the start."""
    try:
        with path.open("rb", buffering=0) as file:
            data = b""
            while len(data) <= limit and (part := file.read(limit + 1 - len(data))):
                data += part
    except OSError as error:
        error.filename = str(path)
        raise
    if len(data) > limit:
        raise BadAnswer(f"{path}: more than {limit} bytes")
    return data


def _text(path: Path) -> str:
    return _blob(path, _TEXT_LIMIT).decode("ascii", "replace").strip()
