"""The host's end of a stub's port: reads whole frames, and gives up with whoever serves it."""

from __future__ import annotations

import socket
import threading


def read(connection: socket.socket, size: int, ended: threading.Event) -> bytes | None:
    """Exactly `size` bytes; None once the other side is gone, or `ended` is set. The socket has a timeout."""
    data = b""
    while len(data) < size:
        try:
            part = connection.recv(size - len(data))
        except TimeoutError:
            if ended.is_set():
                return None
            continue
        except OSError:
            return None
        if not part:
            return None
        data += part
    return data
