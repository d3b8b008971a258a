"""TEST ONLY, never in a production image: configfs-tsm as a file system in user space, over the real one.

Speaks the kernel's FUSE protocol (Linux 6.12, include/uapi/linux/fuse.h) and behaves as the kernel's
drivers/virt/coco/tsm.c with the provider sev_guest, with one entry at a time.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from typing import TYPE_CHECKING

from stubs.psp_port import Port

if TYPE_CHECKING:
    from stage.kernel import Kernel

_IN = struct.Struct("<IIQQIIII")  # fuse_in_header
_OUT = struct.Struct("<IiQ")  # fuse_out_header
_ATTRIBUTES = struct.Struct("<6Q10I")  # fuse_attr
_LOOKUP, _FORGET, _GETATTR, _SETATTR, _MKDIR, _RMDIR = 1, 2, 3, 4, 9, 11
_OPEN, _READ, _WRITE, _STATFS, _RELEASE, _FLUSH, _INIT = 14, 15, 16, 17, 18, 25, 26
_OPENDIR, _READDIR, _RELEASEDIR, _INTERRUPT, _BATCH_FORGET = 27, 28, 29, 36, 42
_DIRECT_IO = 1  # FOPEN_DIRECT_IO: each read asks us, whatever size the attributes say
_MAX = 0x20000

_TOP, _ENTRY = 1, 2  # nodes; files follow
_FILES = ("inblob", "privlevel", "outblob", "auxblob", "provider", "generation", "privlevel_floor")
_WRITABLE = ("inblob", "privlevel")
_ROOM = 16 << 10  # SEV_FW_BLOB_MAX_SIZE: what the kernel offers for certificates
_USER_DATA = 64


class FileSystem:
    """After `__init__` it is mounted, and `serve` answers."""

    def __init__(self, kernel: Kernel, at: str) -> None:
        self._port = Port()
        self._file = os.open("/dev/fuse", os.O_RDWR)
        # for every group of the root user's, as configfs is
        options = f"fd={self._file},rootmode=40000,user_id=0,group_id=0,allow_other"
        kernel.mount("stub-tsm", at, "fuse", 0, options)
        self._name = b""
        self._reset()

    def _reset(self) -> None:
        self._generation, self._level, self._data = 0, 0, b""
        self._blobs: tuple[int, bytes, bytes] | None = None  # generation, report, certificates

    def serve(self) -> None:
        while True:
            try:
                data = os.read(self._file, _MAX + 4096)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINTR):
                    continue
                return  # unmounted
            length, kind, unique, node = _IN.unpack_from(data)[:4]
            if kind in (_FORGET, _BATCH_FORGET, _INTERRUPT):
                continue
            try:
                answer, error_number = self._answer(kind, node, data[_IN.size : length]), 0
            except OSError as error:
                answer, error_number = b"", error.errno or errno.EIO
            os.write(self._file, _OUT.pack(_OUT.size + len(answer), -error_number, unique) + answer)

    def _answer(self, kind: int, node: int, body: bytes) -> bytes:
        name = body.partition(b"\0")[0]
        if kind == _INIT:
            ahead = struct.unpack_from("<I", body, 8)[0]
            return struct.pack("<IIIIHHIIHHI28x", 7, 31, ahead, 0, 12, 8, _MAX, 1, 0, 0, 0)
        if kind == _LOOKUP:
            return self._lookup(node, name)
        if kind in (_GETATTR, _SETATTR):
            return bytes(16) + self._attributes(node)
        if kind == _MKDIR:
            name = body[8:].partition(b"\0")[0]
            if node != _TOP or self._name:
                raise OSError(errno.EEXIST, "")
            self._name = name
            self._reset()
            return self._lookup(node, name)
        if kind == _RMDIR:
            if node != _TOP or name != self._name:
                raise OSError(errno.ENOENT, "")
            self._name = b""
            return b""
        if kind in (_OPEN, _OPENDIR):
            return struct.pack("<QII", node, _DIRECT_IO, 0)
        if kind == _READ:
            offset, size = struct.unpack_from("<8xQI", body)
            return self._content(node)[offset : offset + size]
        if kind == _WRITE:
            return self._write(node, body)
        if kind == _STATFS:
            return bytes(80)
        if kind in (_READDIR, _RELEASE, _RELEASEDIR, _FLUSH):
            return b""
        raise OSError(errno.ENOSYS, "")

    def _lookup(self, node: int, name: bytes) -> bytes:
        if node == _TOP and self._name and name == self._name:
            found = _ENTRY
        elif node == _ENTRY and self._name and name.decode() in _FILES:
            found = _ENTRY + 1 + _FILES.index(name.decode())
        else:
            raise OSError(errno.ENOENT, "")
        return struct.pack("<5Q", found, 0, 0, 0, 0) + self._attributes(found)

    def _attributes(self, node: int) -> bytes:
        mode, size = stat.S_IFDIR | 0o755, 0
        if node > _ENTRY:
            writable = _FILES[node - _ENTRY - 1] in _WRITABLE
            mode, size = stat.S_IFREG | (0o200 if writable else 0o400), 4096
        return _ATTRIBUTES.pack(node, size, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def _content(self, node: int) -> bytes:
        name = _FILES[node - _ENTRY - 1]
        if name == "provider":
            return b"sev_guest\n"
        if name == "generation":
            return b"%d\n" % self._generation
        if name == "privlevel_floor":
            return b"0\n"
        if name not in ("outblob", "auxblob"):
            raise OSError(errno.EACCES, "")
        if not self._data:
            raise OSError(errno.EINVAL, "")
        if self._blobs is None or self._blobs[0] != self._generation:
            self._blobs = (self._generation, *self._ask())
        _, report, certificates = self._blobs
        return report if name == "outblob" else certificates

    def _ask(self) -> tuple[bytes, bytes]:
        """As sev_report_new() in drivers/virt/coco/sev-guest/sev-guest.c."""
        answer = self._port.ask(self._data, self._level, _ROOM)
        if answer.errno:
            busy = (
                answer.exit_info >> 32 == 2
            )  # SNP_GUEST_VMM_ERR_BUSY, which the kernel gives up after a while
            raise OSError(errno.ETIMEDOUT if busy else answer.errno, "")
        status, size = struct.unpack_from("<II", answer.response)
        if status:
            raise OSError(errno.ENXIO, "")
        return answer.response[32 : 32 + size], answer.certificates

    def _write(self, node: int, body: bytes) -> bytes:
        size = struct.unpack_from("<16xI", body)[0]
        data = body[40 : 40 + size]
        name = _FILES[node - _ENTRY - 1]
        if name == "inblob" and len(data) == _USER_DATA:
            self._data = data
        elif name == "privlevel" and data.strip() in (b"0", b"1", b"2", b"3"):
            self._level = int(data)
        else:
            raise OSError(errno.EINVAL, "")
        self._generation += 1
        return struct.pack("<II", size, 0)
