"""A PCI function that QEMU shows its guest and that lives here: the server's side of vfio-user.

    server = Server(device, path)
    ...                             # QEMU with `vfio-user-pci` and that socket
    server.end()

One client at a time, which is not trusted: frames are bounded, and no descriptor that comes with one is ever
taken. A device here has registers only: no interrupt, no DMA, nothing to map. Names and layouts are those of
QEMU's docs/interop/vfio-user.rst ("the page").
"""

from __future__ import annotations

import contextlib
import enum
import errno
import json
import socket
import struct
import threading
from typing import Protocol

import port


class Command(enum.IntEnum):
    """The page, "Commands"."""

    VERSION = 1
    DMA_MAP = 2
    DMA_UNMAP = 3
    DEVICE_GET_INFO = 4
    DEVICE_GET_REGION_INFO = 5
    DEVICE_GET_IRQ_INFO = 7
    DEVICE_SET_IRQS = 8
    REGION_READ = 9
    REGION_WRITE = 10
    DEVICE_RESET = 13


# The page, "Header"; all numbers are of the host's byte order, x86's.
HEADER = struct.Struct("<HHIII")  # message id, command, size with this header, flags, errno
TYPE, REPLY, NO_REPLY, ERROR = 0xF, 1, 1 << 4, 1 << 5

# The page, by command; where a reply has the form of its request it is written once.
_VERSION = struct.Struct("<HH")  # major, minor; JSON and a NUL may follow
_MAP = struct.Struct("<IIQQQ")  # argsz, flags, offset, address, size
_UNMAP = struct.Struct("<IIQQ")  # argsz, flags, address, size
_INFO = struct.Struct("<IIII")  # argsz, flags, regions, interrupts
_REGION = struct.Struct("<IIIIQQ")  # argsz, flags, index, cap_offset, size, offset
_IRQ = struct.Struct("<IIII")  # argsz, flags, index, count
_SET = struct.Struct("<IIIII")  # argsz, flags, index, start, count
_ACCESS = struct.Struct("<QII")  # offset, region, count; data may follow

# linux/vfio.h: VFIO_DEVICE_FLAGS_*, VFIO_REGION_INFO_FLAG_*, VFIO_DMA_UNMAP_FLAG_ALL, VFIO_IRQ_SET_DATA_*;
# how many regions and interrupts a PCI device has, and the index of its config space among the former.
_RESETS, _PCI = 1, 2
_READABLE, _WRITABLE = 1, 2
_UNMAP_ALL = 2
_DATA, _DATA_NONE = 7, 1
REGIONS, IRQS, CONFIG = 9, 5, 7

#: What is taken and given at once, as `VERSION` says: the whole config space.
TRANSFER = 4096
FRAME_LIMIT = HEADER.size + _ACCESS.size + TRANSFER
MAPS = 1024

_ADDRESSES = 1 << 64
_PATIENCE = 0.2  # seconds that a client may leave a reply unread, and that a server's end may take

_Words = tuple[int, ...]


class Device(Protocol):
    """What is asked of a device: `size` is 0 for a region that it has not got."""

    def size(self, region: int) -> int: ...
    def read(self, region: int, offset: int, count: int) -> bytes: ...
    def write(self, region: int, offset: int, data: bytes) -> None: ...
    def reset(self) -> None: ...


class Refused(Exception):
    """A command that fails; `code` is the errno of its reply."""

    def __init__(self, code: int) -> None:
        super().__init__(errno.errorcode[code])
        self.code = code


class Session:
    """One client's, from its connection to its end. The device stays as it was left; maps do not."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.agreed = False
        self.maps: dict[int, int] = {}  # of its memory, address to size, which nothing here touches

    def answer(self, command: int, given: bytes) -> bytes:
        """The reply's payload. Raises `Refused`."""
        if not self.agreed and command != Command.VERSION:
            raise Refused(errno.EINVAL)
        match command:
            case Command.VERSION:
                return self._version(given)
            case Command.DMA_MAP:
                return self._map(_whole(_MAP, given))
            case Command.DMA_UNMAP:
                return self._unmap(_whole(_UNMAP, given))
            case Command.DEVICE_GET_INFO:
                _sized(_INFO, given)
                return _INFO.pack(_INFO.size, _RESETS | _PCI, REGIONS, IRQS)
            case Command.DEVICE_GET_REGION_INFO:
                index = _below(_sized(_REGION, given)[2], REGIONS)
                size = self._device.size(index)
                flags = _READABLE | _WRITABLE if size else 0
                return _REGION.pack(_REGION.size, flags, index, 0, size, 0)
            case Command.DEVICE_GET_IRQ_INFO:
                index = _below(_sized(_IRQ, given)[2], IRQS)
                return _IRQ.pack(_IRQ.size, 0, index, 0)
            case Command.DEVICE_SET_IRQS:
                return self._set_interrupts(_whole(_SET, given))
            case Command.REGION_READ:
                offset, region, count = words = self._inside(_whole(_ACCESS, given))
                return _ACCESS.pack(*words) + self._device.read(region, offset, count)
            case Command.REGION_WRITE:
                return self._write(given)
            case Command.DEVICE_RESET:
                self._device.reset()
                return b""
        raise Refused(errno.EOPNOTSUPP)

    def _version(self, given: bytes) -> bytes:
        """The first command and no other; `agreed` then. The limits are named if the client named its own."""
        if self.agreed or len(given) < _VERSION.size:
            raise Refused(errno.EINVAL)
        major, _ = _VERSION.unpack_from(given)
        if major:
            raise Refused(errno.EPROTONOSUPPORT)
        proposed = _capabilities(given[_VERSION.size :])
        limits = {"max_data_xfer_size": TRANSFER, "max_dma_maps": MAPS}
        named = {name: limit for name, limit in limits.items() if name in proposed}
        self.agreed = True
        return _VERSION.pack(0, 0) + json.dumps({"capabilities": named}).encode() + b"\0"

    def _map(self, words: _Words) -> bytes:
        _, _, _, address, size = words
        if not size or address + size > _ADDRESSES:
            raise Refused(errno.EINVAL)
        if any(address < start + length and start < address + size for start, length in self.maps.items()):
            raise Refused(errno.EEXIST)
        if len(self.maps) == MAPS:
            raise Refused(errno.ENOSPC)
        self.maps[address] = size
        return b""

    def _unmap(self, words: _Words) -> bytes:
        _, flags, address, size = words
        if flags == _UNMAP_ALL and not address and not size:
            self.maps.clear()
        elif flags or self.maps.get(address) != size:
            raise Refused(errno.EINVAL)
        else:
            del self.maps[address]
        return _UNMAP.pack(*words)

    def _set_interrupts(self, words: _Words) -> bytes:
        """There are none: all that can be done is to switch off all of an index."""
        _, flags, index, start, count = words
        _below(index, IRQS)
        if flags & _DATA != _DATA_NONE or start or count:
            raise Refused(errno.EINVAL)
        return b""

    def _write(self, given: bytes) -> bytes:
        offset, region, count = words = self._inside(_whole(_ACCESS, given[: _ACCESS.size]))
        data = given[_ACCESS.size :]
        if len(data) != count:
            raise Refused(errno.EINVAL)
        self._device.write(region, offset, data)
        return _ACCESS.pack(*words)

    def _inside(self, words: _Words) -> _Words:
        offset, region, count = words
        if not 0 < count <= TRANSFER or offset + count > self._device.size(region):
            raise Refused(errno.EINVAL)
        return words


def _whole(form: struct.Struct, given: bytes) -> _Words:
    if len(given) != form.size:
        raise Refused(errno.EINVAL)
    words: _Words = form.unpack(given)
    return words


def _sized(form: struct.Struct, given: bytes) -> _Words:
    """The same, where the first number is the room that the client has for a reply of that form."""
    words = _whole(form, given)
    if words[0] < form.size:
        raise Refused(errno.EINVAL)
    return words


def _below(index: int, number: int) -> int:
    if index >= number:
        raise Refused(errno.EINVAL)
    return index


def _capabilities(data: bytes) -> frozenset[str]:
    """The names of what a client proposes; `data` may be absent."""
    if not data:
        return frozenset()
    try:
        found = json.loads(data.removesuffix(b"\0"))
    except (ValueError, RecursionError):
        raise Refused(errno.EINVAL) from None
    named = found.get("capabilities", {}) if isinstance(found, dict) else None
    if not isinstance(named, dict):
        raise Refused(errno.EINVAL)
    return frozenset(named)


class Server:
    """Serves `device` at the socket `path`, to one client after the other."""

    def __init__(self, device: Device, path: str) -> None:
        self.path = path
        self._device = device
        self.session: Session | None = None  # of the client that is connected
        self._ended = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(_PATIENCE)
                self.session = Session(self._device)
                self._serve(connection, self.session)
                self.session = None

    def _serve(self, connection: socket.socket, session: Session) -> None:
        """Ends with a client that does not keep to the frames, or not to the order.

        recv(2) gives no room for descriptors: the kernel closes those that a client sends (unix(7)).
        """
        while not self._ended.is_set():
            head = port.read(connection, HEADER.size, self._ended)
            if head is None:
                return
            message, command, size, flags, _ = HEADER.unpack(head)
            if flags & TYPE or not HEADER.size <= size <= FRAME_LIMIT:
                return
            given = port.read(connection, size - HEADER.size, self._ended)
            if given is None:
                return
            try:
                payload, failed, code = session.answer(command, given), 0, 0
            except Refused as refused:
                payload, failed, code = b"", ERROR, refused.code
            if not flags & NO_REPLY:
                reply = HEADER.pack(message, command, HEADER.size + len(payload), REPLY | failed, code)
                try:
                    connection.sendall(reply + payload)
                except OSError:
                    return
            if not session.agreed:
                return
