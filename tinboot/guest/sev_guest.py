"""Reports through /dev/sev-guest, on kernels without configfs-tsm, or where that has no provider.

The extended request also gives the certificates that the host may have laid ready; it answers a buffer that
is too small with the length it needs.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import time

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
    ExitInfo,
    exit_info,
)
from tinboot.guest.evidence import BadAnswer, Busy, DeviceError, Evidence, NoDevice

#: The host may throttle requests; the kernel itself retries for a minute (SNP_REQ_MAX_RETRY_DURATION).
SECONDS = 60.0
_PAUSE = 0.2

_LENGTH_AT = EXTENDED_REQUEST.size - 8  # of certs_len in struct snp_ext_report_req


def collect(report_data: bytes, device: str = DEVICE, seconds: float = SECONDS) -> Evidence:
    """A report of VMPL 0 with `report_data`, 64 bytes, and the host's certificates; raises EvidenceError.

    A host that is busy is asked again for `seconds`.
    """
    if len(report_data) != USER_DATA_BYTES:
        raise ValueError(f"REPORT_DATA has {USER_DATA_BYTES} bytes, not {len(report_data)}")
    try:
        file = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
            raise NoDevice(f"{device}: {error.strerror}") from error
        raise DeviceError(f"{device}: {error.strerror}") from error
    try:
        return _collect(file, report_data, time.monotonic() + seconds)
    finally:
        os.close(file)


def _collect(file: int, report_data: bytes, deadline: float) -> Evidence:
    length = PAGE
    while True:
        try:
            report, certificates = _request(file, report_data, length)
        except _TooSmall as answer:
            if not length < answer.length <= CERTIFICATES_LIMIT or answer.length % PAGE:
                raise BadAnswer(
                    f"the host's certificates take {answer.length} bytes, {length} were offered, "
                    f"expected whole pages, at most {CERTIFICATES_LIMIT}"
                ) from answer
            length = answer.length
        except _Throttled as answer:
            if time.monotonic() + _PAUSE > deadline:
                raise Busy("the host is busy, and was so until the deadline") from answer
            time.sleep(_PAUSE)
        else:
            return Evidence("sev-guest", report, certificates)


class _TooSmall(Exception):
    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.length = length


class _Throttled(Exception):
    pass


def _request(file: int, report_data: bytes, length: int) -> tuple[bytes, bytes]:
    """One ioctl: the report, and the certificates in a buffer of `length` bytes, or nothing."""
    certificates = ctypes.create_string_buffer(length)
    asked = EXTENDED_REQUEST.pack(report_data, 0, ctypes.addressof(certificates), length)
    request = ctypes.create_string_buffer(asked, EXTENDED_REQUEST.size)
    response = ctypes.create_string_buffer(RESPONSE_BYTES)
    addresses = (ctypes.addressof(request), ctypes.addressof(response))
    call = bytearray(CALL.pack(MESSAGE_VERSION, *addresses, NOT_CALLED))
    try:
        fcntl.ioctl(file, GET_EXT_REPORT, call, True)
    except OSError as error:
        info = exit_info(CALL.unpack(call)[3])
        raise _failure(
            error, info, int.from_bytes(request.raw[_LENGTH_AT : _LENGTH_AT + 4], "little")
        ) from error
    return _report(response.raw), certificates.raw if any(certificates.raw) else b""


def _failure(error: OSError, info: ExitInfo, length: int) -> Exception:
    if error.errno == errno.EIO and info.vmm == VMM_INVALID_LENGTH:
        return _TooSmall(length)
    if info.vmm == VMM_BUSY or error.errno in (errno.EAGAIN, errno.EBUSY, errno.EINTR):
        return _Throttled()
    if error.errno in (errno.ENXIO, errno.ENODEV, errno.ENOTTY):
        return NoDevice(f"{DEVICE}: {error.strerror}")
    return DeviceError(f"{DEVICE}: {error.strerror}, {info}")


def _report(response: bytes) -> bytes:
    """The report in the PSP's answer."""
    status, size = RESPONSE.unpack_from(response)
    if status:
        raise DeviceError(f"the PSP answered with status {status:#x}")
    if size != snpreport.SIZE:
        raise BadAnswer(f"the PSP's report has {size} bytes, expected {snpreport.SIZE}")
    return response[RESPONSE.size : RESPONSE.size + size]
