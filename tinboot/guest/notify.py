"""What a service of Type=notify says to systemd (sd_notify(3))."""

from __future__ import annotations

import os
import socket


def ready() -> None:
    """That it serves from now on: units ordered after it start."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
        notify.connect(os.environ["NOTIFY_SOCKET"])
        notify.sendall(b"READY=1")
