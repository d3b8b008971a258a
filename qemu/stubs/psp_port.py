"""TEST ONLY, never in a production image: the way from the guest's stubs to the stub PSP (qemu/psp.py).

Runs in the initrd's interpreter, beside the hooks, and outlives the hand-over: all it needs it opens before.
"""

from __future__ import annotations

import os
import struct
import time
from typing import NamedTuple

NAME = "org.tinboot.psp"

_REQUEST = struct.Struct("<I64sI")
_ANSWER = struct.Struct("<IQI")
_LENGTH = struct.Struct("<I")

_SECONDS = 20.0  # until the kernel has heard the ports' names; a moment


class Answer(NamedTuple):
    """`errno` is 0 for a good one. `length`: of certificates, also of those that did not fit."""

    errno: int
    exit_info: int
    length: int
    certificates: bytes
    response: bytes


class Port:
    """One opener at a time."""

    def __init__(self) -> None:
        self._file = os.open(_node(), os.O_RDWR)

    def ask(self, user_data: bytes, vmpl: int, room: int) -> Answer:
        """`room`: bytes for certificates."""
        request = _REQUEST.pack(room, user_data, vmpl)
        data = memoryview(_LENGTH.pack(len(request)) + request)
        while data:
            data = data[os.write(self._file, data) :]
        body = self._read(_LENGTH.unpack(self._read(_LENGTH.size))[0])
        errno, exit_info, length = _ANSWER.unpack_from(body)
        rest = body[_ANSWER.size :]
        if errno:
            return Answer(errno, exit_info, length, b"", b"")
        return Answer(0, exit_info, length, rest[:length], rest[length:])

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = os.read(self._file, size - len(data))
            if not part:  # nobody holds the other end any more
                time.sleep(1)
            data += part
        return data


def _node() -> str:
    folder, deadline = "/sys/class/virtio-ports", time.monotonic() + _SECONDS
    while True:
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            with open(f"{folder}/{name}/name", encoding="utf-8") as file:
                if file.read().strip() == NAME:
                    return f"/dev/{name}"
        if time.monotonic() > deadline:
            raise OSError(f"no virtio port is named {NAME}")
        time.sleep(0.05)
