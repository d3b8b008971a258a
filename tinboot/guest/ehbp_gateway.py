"""The gateway's connections: as many threads as may be at work, in as many processes as there are processors.

Opening and sealing hold Python's lock, so one process comes to one processor. The listening socket is one; a
process at its limit takes no more from it, and what waits there waits in the kernel, where the proxy's own
limits hold.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tinboot.guest.ehbp_exchange import Busy, Exchange, Settings

#: Requests at a time, of all processes together.
REQUESTS = 512

#: Bytes that all requests may hold beyond what each may hold anyway: frames that arrive in large pieces.
MEMORY = 256 << 20

#: A thread's stack: nothing here goes deep, and 512 of the usual size are 4 GiB of addresses.
_STACK = 256 << 10

_BACKLOG = 1024

#: Bytes that are allocated and given back once: glibc then keeps twice as much of what is free (mallopt(3),
#: M_MMAP_THRESHOLD). Otherwise each buffer comes from the kernel anew, page by page.
_KEPT = 1 << 20

#: What accept(2) may say of one connection or of a moment, and the seconds to wait for a better one.
_PASSING = frozenset({errno.ECONNABORTED, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE = 0.05


class Shared:
    """What the requests of one process hold together."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._lock = threading.Lock()

    def hold(self, before: int, now: int) -> None:
        """See `Memory`: giving back never fails."""
        with self._lock:
            if now > before and self._held + now - before > self._limit:
                raise Busy(f"requests hold {self._held} bytes, and {now - before} more are wanted")
            self._held += now - before


def listen(path: Path) -> socket.socket:
    """The proxy's group may connect, nobody else: the folder and umask 0117 of the unit say so."""
    listening = socket.socket(socket.AF_UNIX)
    path.unlink(missing_ok=True)
    listening.bind(os.fspath(path))
    listening.listen(_BACKLOG)
    return listening


def serve(listening: socket.socket, settings: Settings, requests: int, memory: int) -> None:
    """Accepts for ever, `requests` at a time; ends when `listening` is shut down."""
    threading.stack_size(_STACK)
    bytes(_KEPT)
    free, shared = threading.BoundedSemaphore(requests), Shared(memory)

    def work(client: socket.socket) -> None:
        try:
            with client:
                Exchange(client, settings, shared).run()
        finally:
            free.release()

    while True:
        free.acquire()
        try:
            client, _ = listening.accept()
        except OSError as error:
            if error.errno not in _PASSING:
                return
            time.sleep(_PAUSE)
            free.release()
        else:
            threading.Thread(target=work, args=(client,), daemon=True).start()


def in_processes(count: int, work: Callable[[], None]) -> None:
    """`work` in each of `count` children; returns when one of them has ended, and ends the others."""
    children = [child for _ in range(count) if (child := _forked(work))]
    with contextlib.suppress(ChildProcessError):
        while os.wait()[0] not in children:
            pass  # somebody else's, which this process had before
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, 9)


def _forked(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    return child
