"""A client of vfio-user, as QEMU is one: from its docs/interop/vfio-user.rst, numbers and all."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple

from vfio_user import Server

VERSION, MAP, UNMAP, INFO, REGION_INFO, IO_FDS, IRQ_INFO, SET_IRQS, READ, WRITE = range(1, 11)
DMA_READ, RESET, WRITE_MULTI, FEATURE = 11, 13, 15, 16
CONFIG, BAR0, ROM = 7, 0, 6
PROPOSED = {"max_msg_fds": 8, "max_data_xfer_size": 1 << 20, "max_dma_maps": 65535, "pgsizes": 4096}


class Reply(NamedTuple):
    flags: int
    code: int
    payload: bytes


class Client:
    """One connection."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(server.path)
        self.sent = 0

    def close(self) -> None:
        self.socket.close()

    def frame(self, command: int, payload: bytes = b"", *, flags: int = 0) -> bytes:
        self.sent += 1
        return struct.pack("<HHIII", self.sent, command, 16 + len(payload), flags, 0) + payload

    def send(self, command: int, payload: bytes = b"", *, flags: int = 0, fds: tuple[int, ...] = ()) -> None:
        socket.send_fds(self.socket, [self.frame(command, payload, flags=flags)], list(fds))

    def ask(self, command: int, payload: bytes = b"", fds: tuple[int, ...] = ()) -> Reply:
        self.send(command, payload, fds=fds)
        return self.reply(command)

    def reply(self, command: int) -> Reply:
        message, answered, size, flags, code = struct.unpack("<HHIII", self.read(16))
        assert (message, answered) == (self.sent, command)
        return Reply(flags, code, self.read(size - 16))

    def good(self, command: int, payload: bytes = b"", fds: tuple[int, ...] = ()) -> bytes:
        reply = self.ask(command, payload, fds)
        assert reply[:2] == (1, 0)
        return reply.payload

    def refused(self, command: int, payload: bytes = b"") -> int:
        """The errno; a failed reply has no payload."""
        reply = self.ask(command, payload)
        assert (reply.flags, reply.payload) == (0x21, b"")
        return reply.code

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            assert part
            data += part
        return data

    def disconnected(self) -> bool:
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def agree(self) -> bytes:
        return self.good(VERSION, version())

    def registers(self, offset: int, count: int, region: int = CONFIG) -> bytes:
        head = struct.pack("<QII", offset, region, count)
        payload = self.good(READ, head)
        assert payload[:16] == head
        return payload[16:]

    def write(self, offset: int, data: bytes, region: int = CONFIG) -> None:
        head = struct.pack("<QII", offset, region, len(data))
        assert self.good(WRITE, head + data) == head


def version(major: int = 0, minor: int = 0, text: bytes | None = None) -> bytes:
    proposed = json.dumps({"capabilities": PROPOSED}).encode() + b"\0"
    return struct.pack("<HH", major, minor) + (proposed if text is None else text)


@contextmanager
def connected(server: Server) -> Iterator[Client]:
    with closing(Client(server)) as client:
        client.agree()
        yield client
