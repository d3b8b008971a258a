"""Reports through /dev/sev-guest, on kernels without configfs-tsm, or where that has no provider.

Linux 6.12, Documentation/virt/coco/sev-guest.rst. The extended request gives, beside the report, the
certificates that the host may have laid ready; a buffer that is too small it answers with the length needed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Callable

from tinboot.formats import snpreport
from tinboot.formats.sevguest import (
    CALL,
    CERTIFICATES_LIMIT,
    DEVICE,
    EXTENDED_REQUEST,
    GET_EXT_REPORT,
    MESSAGE_VERSION,
    NOT_CALLED,
    PAGE,
    RESPONSE,
    RESPONSE_BYTES,
    USER_DATA_BYTES,
    VMM_BUSY,
    VMM_INVALID_LENGTH,
    exit_info,
)
from tinboot.guest.evidence import BadAnswer, DeviceError, Evidence, NoDevice, Patience

#: As fcntl.ioctl with a buffer that the call changes.
Ioctl = Callable[[int, int, bytearray], object]

_ABSENT = (errno.ENOENT, errno.ENXIO, errno.ENODEV)
_LATER = (errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ETIMEDOUT)


class _Failed(Exception):
    """A call that came back with an error; `length` of certificates is what it wants, if it says so."""

    def __init__(self, number: int, exit_code: int, length: int) -> None:
        super().__init__(number)
        self.number, self.info, self.length = number, exit_info(exit_code), length

    def __str__(self) -> str:
        return f"{DEVICE}: {os.strerror(self.number)}, {self.info}"


def collect(
    report_data: bytes, patience: Patience, device: str = DEVICE, ioctl: Ioctl = fcntl.ioctl
) -> Evidence:
    """A report of VMPL 0 with `report_data`, 64 bytes, and the host's certificates; raises EvidenceError."""
    if len(report_data) != USER_DATA_BYTES:
        raise ValueError(f"REPORT_DATA has {USER_DATA_BYTES} bytes, not {len(report_data)}")
    try:
        file = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        kind = NoDevice if error.errno in _ABSENT else DeviceError
        raise kind(f"{device}: {error.strerror}") from error
    try:
        return _collect(file, report_data, patience, ioctl)
    finally:
        os.close(file)


def _collect(file: int, report_data: bytes, patience: Patience, ioctl: Ioctl) -> Evidence:
    length = PAGE
    while True:
        try:
            response, certificates = _request(file, report_data, length, ioctl)
        except _Failed as failed:
            if failed.number == errno.EIO and failed.info.vmm == VMM_INVALID_LENGTH:
                length = _larger(length, failed.length)
            elif failed.info.vmm == VMM_BUSY or failed.number in _LATER:
                patience.wait(str(failed))
            else:
                raise DeviceError(str(failed)) from failed
        else:
            return Evidence("sev-guest", _report(response), certificates if any(certificates) else b"")


def _larger(had: int, wanted: int) -> int:
    """Grows with each call, up to the kernel's own limit: no host makes this go on for ever."""
    if not had < wanted <= CERTIFICATES_LIMIT or wanted % PAGE:
        raise BadAnswer(
            f"the host's certificates take {wanted} bytes and do not fit in {had}; expected whole pages, "
            f"at most {CERTIFICATES_LIMIT}"
        )
    return wanted


def _request(file: int, report_data: bytes, length: int, ioctl: Ioctl) -> tuple[bytes, bytes]:
    """One call: the PSP's response and the buffer of `length` bytes for certificates; raises `_Failed`."""
    certificates = ctypes.create_string_buffer(length)
    asked = EXTENDED_REQUEST.pack(report_data, 0, ctypes.addressof(certificates), length)
    request = ctypes.create_string_buffer(asked, len(asked))
    response = ctypes.create_string_buffer(RESPONSE_BYTES)
    addresses = (ctypes.addressof(request), ctypes.addressof(response))
    call = bytearray(CALL.pack(MESSAGE_VERSION, *addresses, NOT_CALLED))
    try:
        ioctl(file, GET_EXT_REPORT, call)
    except OSError as error:
        wanted = EXTENDED_REQUEST.unpack(request.raw)[3]
        raise _Failed(error.errno or 0, CALL.unpack(call)[3], wanted) from error
    return response.raw, certificates.raw


def _report(response: bytes) -> bytes:
    """The report in the PSP's answer."""
    status, size = RESPONSE.unpack_from(response)
    if status:
        raise DeviceError(f"{DEVICE}: the PSP answered with status {status:#x}")
    if size != snpreport.SIZE:
        raise BadAnswer(f"{DEVICE}: the PSP's report has {size} bytes, expected {snpreport.SIZE}")
    return response[RESPONSE.size : RESPONSE.size + size]
