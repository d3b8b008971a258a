"""Bytes on their way: all of them, in order, however few the socket takes at a time."""

from __future__ import annotations

import socket

from tinboot.guest.outgoing import Outgoing


def test_bytes_in_parts() -> None:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        out = Outgoing()
        parts = [bytes([number % 251]) * number for number in range(900)]
        out.add(*parts, b"")
        assert not out.begun
        assert out.size == sum(map(len, parts))
        data = b""
        while out.size:
            before = out.size
            out.send(near)
            if out.size == before:
                data += far.recv(1 << 20)
        assert out.begun
        near.close()
        while part := far.recv(1 << 20):
            data += part
        assert data == b"".join(parts)
