"""QEMU's monitor over an inherited socket: commands with a deadline, and the events that came by.

Source: QEMU docs/interop/qmp-spec.rst. One JSON object a line; `{"QMP": …}` greets, `{"event": …}` comes
at any time, `{"return": …}` or `{"error": …}` answers the command with the same id.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping

from tinboot.formats.errors import Malformed, Unavailable

_LIMIT = 16 << 20  # bytes without a newline: far above any answer QEMU gives


class Qmp:
    """The host's end of one monitor. Leaves negotiation mode at once: QEMU sends no event before that."""

    def __init__(self, ours: socket.socket) -> None:
        self._socket = ours
        self._buffer = b""
        self._next_id = 0
        self.events: list[dict[str, object]] = []
        self._send({"execute": "qmp_capabilities", "id": "capabilities"})

    def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, *, seconds: float = 10
    ) -> object:
        """The value QEMU returns. Raises Unavailable if it refuses, or has not answered in `seconds`."""
        self._next_id += 1
        request: dict[str, object] = {"execute": command, "id": self._next_id}
        if arguments:
            request["arguments"] = dict(arguments)
        self._send(request)
        deadline = time.monotonic() + seconds
        while True:
            message = self._receive(deadline)
            if message is None:
                raise Unavailable(f"QMP {command}: no answer within {seconds:g} s, or QEMU has ended")
            if message.get("id") != self._next_id:
                continue
            if "return" not in message:
                raise Unavailable(f"QMP {command}: {json.dumps(message.get('error'))}")
            return message["return"]

    def drain(self) -> None:
        """Keeps in `events` what is left in the socket of a QEMU that has ended."""
        deadline = time.monotonic() + 1
        while self._receive(deadline) is not None:
            pass

    def shutdown_reason(self) -> str | None:
        """QEMU's word for its end (qapi/run-state.json ShutdownCause): `guest-shutdown`, `guest-reset`, …"""
        for event in self.events:
            data = event.get("data")
            if event.get("event") == "SHUTDOWN" and isinstance(data, dict):
                return str(data.get("reason"))
        return None

    def close(self) -> None:
        self._socket.close()

    def _send(self, message: Mapping[str, object]) -> None:
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise Unavailable(f"QMP: cannot send {message['execute']}: {error}") from error

    def _receive(self, deadline: float) -> dict[str, object] | None:
        """The next message, None at the deadline or the end; an event is also kept."""
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or len(self._buffer) > _LIMIT:
                return None
            self._socket.settimeout(left)
            try:
                chunk = self._socket.recv(1 << 16)
            except (TimeoutError, ConnectionResetError):
                return None
            if not chunk:
                return None
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            message = json.loads(line)
        except ValueError as error:
            raise Malformed(f"QMP: {line[:200]!r} is not JSON: {error}") from error
        if not isinstance(message, dict):
            raise Malformed(f"QMP: {line[:200]!r} is not an object")
        if "event" in message:
            self.events.append(message)
        return message
