"""TEST ONLY, never in a production image: /dev/sev-guest as a character device in user space.

Speaks the kernel's CUSE protocol (Linux 6.12, include/uapi/linux/fuse.h; fs/fuse/cuse.c) and answers the
ioctl for an extended report as drivers/virt/coco/sev-guest/sev-guest.c does: the same structures, errno and
exitinfo2. Whoever calls it cannot tell, but by the report's signature.
"""

from __future__ import annotations

import errno
import os
import struct
import time

from stubs.psp_port import Port

from tinboot.formats.sevguest import CALL, EXTENDED_REQUEST, GET_EXT_REPORT, RESPONSE_BYTES

_IN = struct.Struct("<IIQQIIII")  # fuse_in_header
_OUT = struct.Struct("<IiQ")  # fuse_out_header
_IOCTL_IN = struct.Struct("<QIIQII")  # fh, flags, command, argument, in_size, out_size
_IOCTL_OUT = struct.Struct("<iIII")  # result, flags, in_iovs, out_iovs
_PART = struct.Struct("<QQ")  # fuse_ioctl_iovec
_OPEN, _RELEASE, _INTERRUPT, _IOCTL, _INIT = 14, 18, 36, 39, 4096
_UNRESTRICTED, _RETRY, _DIRECT_IO = 1, 4, 1  # CUSE_UNRESTRICTED_IOCTL, FUSE_IOCTL_RETRY, FOPEN_DIRECT_IO
_MAX = 0x20000  # bytes of a request

_LENGTH_AT = EXTENDED_REQUEST.size - 8  # of certs_len in struct snp_ext_report_req


class Device:
    """After `__init__` the node is there, and `serve` answers whoever opens it."""

    NODE = "/dev/sev-guest"

    def __init__(self) -> None:
        self._port = Port()
        self._file = os.open("/dev/cuse", os.O_RDWR)
        self._step()
        deadline = time.monotonic() + 10
        while not os.path.exists(self.NODE):
            if time.monotonic() > deadline:
                raise OSError(f"no {self.NODE} after the handshake")
            time.sleep(0.01)

    def serve(self) -> None:
        while True:
            self._step()

    def _step(self) -> None:
        try:
            data = os.read(self._file, _MAX + 4096)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):  # a request that was taken back
                return
            raise
        length, kind, unique = _IN.unpack_from(data)[:3]
        body = data[_IN.size : length]
        if kind == _INTERRUPT:
            return
        if kind == _INIT:
            _, minor = struct.unpack_from("<II", body)
            made = struct.pack("<8I40x", 7, min(minor, 38), 0, _UNRESTRICTED, _MAX, _MAX, 0, 0)
            self._reply(unique, made + b"DEVNAME=sev-guest\0")
        elif kind == _OPEN:
            self._reply(unique, struct.pack("<QII", 1, _DIRECT_IO, 0))
        elif kind == _RELEASE:
            self._reply(unique)
        elif kind == _IOCTL:
            self._ioctl(unique, body)
        else:
            self._reply(unique, error=errno.ENOSYS)

    def _reply(self, unique: int, data: bytes = b"", error: int = 0) -> None:
        os.write(self._file, _OUT.pack(_OUT.size + len(data), -error, unique) + data)

    def _ioctl(self, unique: int, body: bytes) -> None:
        """Three rounds: the caller's structures are fetched one by one, then all is written back."""
        _, _, command, address, got, room = _IOCTL_IN.unpack_from(body)
        data = body[_IOCTL_IN.size : _IOCTL_IN.size + got]
        if command != GET_EXT_REPORT:
            return self._reply(unique, error=errno.ENOTTY)
        call = (address, CALL.size)
        if got < CALL.size:
            return self._retry(unique, [call], [])
        version, request_at, response_at, _ = CALL.unpack_from(data)
        if version == 0:
            return self._finish(unique, errno.EINVAL, data)
        request = (request_at, EXTENDED_REQUEST.size)
        if got < CALL.size + EXTENDED_REQUEST.size:
            return self._retry(unique, [call, request], [call])
        asked = data[CALL.size :]
        user_data, vmpl, certificates_at, length = EXTENDED_REQUEST.unpack(asked)
        back = [call, request, (response_at, RESPONSE_BYTES)]
        if length and certificates_at:
            back.append((certificates_at, length))
        if room < sum(size for _, size in back):
            return self._retry(unique, [call, request], back)
        answer = self._port.ask(user_data, vmpl, length)
        told = CALL.pack(version, request_at, response_at, answer.exit_info)
        if answer.errno and answer.length:
            asked = asked[:_LENGTH_AT] + struct.pack("<I", answer.length) + asked[_LENGTH_AT + 4 :]
        told += asked + answer.response.ljust(RESPONSE_BYTES, b"\0")
        if len(back) == 4:
            told += answer.certificates.ljust(length, b"\0")
        return self._finish(unique, answer.errno, told)

    def _retry(self, unique: int, given: list[tuple[int, int]], back: list[tuple[int, int]]) -> None:
        parts = b"".join(_PART.pack(*part) for part in given + back)
        self._reply(unique, _IOCTL_OUT.pack(0, _RETRY, len(given), len(back)) + parts)

    def _finish(self, unique: int, error: int, data: bytes) -> None:
        self._reply(unique, _IOCTL_OUT.pack(-error, 0, 0, 0) + data)
