"""Bytes on their way into a socket that takes only some at a time, not joined to larger ones for that."""

from __future__ import annotations

import socket
from collections import deque

_VECTORS = 64  # buffers of one write, far below IOV_MAX


class Outgoing:
    """`size`: bytes that wait; `begun`: whether any byte went."""

    def __init__(self) -> None:
        self._parts: deque[memoryview] = deque()
        self.size = 0
        self.begun = False

    def add(self, *parts: bytes | memoryview) -> None:
        for part in parts:
            if part:
                self._parts.append(memoryview(part))
                self.size += len(part)

    def send(self, to: socket.socket) -> None:
        """What `to`, which does not block, takes now, which may be nothing. Raises OSError else."""
        parts = self._parts
        try:
            sent = to.sendmsg(parts if len(parts) <= _VECTORS else [parts[at] for at in range(_VECTORS)])
        except BlockingIOError:
            return
        self.size -= sent
        self.begun = True
        while sent:
            if sent < len(parts[0]):
                parts[0] = parts[0][sent:]
                return
            sent -= len(parts.popleft())
