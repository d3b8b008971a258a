"""One QEMU process: started, listened to, and ended by its process id, whatever happens here.

QEMU's serial line is its standard output. A thread drains it into the log, so that a guest never waits for
its reader, and notes time and CPU at each decisive line. The monitor is a socket that QEMU inherits: no
path, no race. The kernel kills QEMU if the thread that started it dies (setpriv --pdeathsig).
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import shlex
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from qmp import Qmp
from serial_log import Event, Lines, Outcome, read_event

from tinboot.host.launch import QEMU, Form
from tinboot.host.qemu import find

#: Bytes of serial log. A quiet boot prints about 2 KB, a verbose kernel 60 KB.
LOG_LIMIT = 4 << 20

_PROMPT_SECONDS = 0.3  # that a marked line has to become whole before it counts as a prompt
_TERMINATE_SECONDS = 5  # from SIGTERM to SIGKILL; QEMU takes a few ms


@cache
def find_qemu() -> str:
    """`TINBOOT_QEMU`, else the one in PATH, as an absolute path; raises Unavailable if it is too old."""
    return str(Path(find(os.environ.get("TINBOOT_QEMU") or QEMU, Form.HARNESS)).resolve())


@dataclass(frozen=True, slots=True)
class Exit:
    """How QEMU ended. `status` as subprocess has it; `by_itself`: no signal of ours was needed.

    `reason` is QEMU's own (qmp.Qmp.shutdown_reason); `cpu_seconds` of the whole run, user and system.
    """

    status: int
    by_itself: bool
    reason: str | None
    cpu_seconds: float

    @property
    def powered_off(self) -> bool:
        """The guest switched the machine off: neither a reset nor a crash nor the harness ended it."""
        return self.by_itself and self.status == 0 and self.reason == "guest-shutdown"


class Machine:
    """A running QEMU, as a context manager.

    `arguments` are QEMU's without the binary, with `-serial stdio`; the monitor is added here.
    The log goes to `log`, QEMU's own messages and the command to `log` with `.qemu` in place of its suffix.
    `on_line` is called with each line, from a thread; `log_limit` in bytes.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        log: Path,
        log_limit: int = LOG_LIMIT,
        on_line: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.log = log
        self.qemu_log = log.with_suffix(".qemu")
        self.events: list[Event] = []
        self._log_limit = log_limit
        self._on_line = on_line
        self._lines: queue.SimpleQueue[tuple[str, bool, Event | None]] = queue.SimpleQueue()
        self._matched = 0
        self._said_something = False
        self._exit: Exit | None = None

        qemu = find_qemu()
        log.parent.mkdir(parents=True, exist_ok=True)
        ours, theirs = socket.socketpair()
        monitor = f"socket,id=qmp,fd={theirs.fileno()}"
        command = ["setpriv", "--pdeathsig", "KILL", "--", qemu, *arguments]
        command += ["-chardev", monitor, "-mon", "chardev=qmp,mode=control"]
        with contextlib.ExitStack() as on_error, theirs:
            on_error.callback(ours.close)
            self.qmp = Qmp(ours)  # before QEMU can end and close its side
            with self.qemu_log.open("wb", buffering=0) as messages:
                messages.write(f"{shlex.join(command)}\n".encode())
                self.started = time.monotonic()
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=messages,
                    pass_fds=[theirs.fileno()],
                    process_group=0,  # Ctrl-C reaches this program, which then ends QEMU in order
                )
            on_error.pop_all()
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._drain, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(seconds=0)

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self, seconds: float, *, marker: str | None = None) -> Event:
        """The next decisive line, or how the wait ended otherwise; never later than after `seconds`.

        With a `marker`, the first text that contains it (a prompt without a line end, too) ends the wait,
        and `tinboot-up` no longer does: it is only kept in `events`.
        """
        deadline = time.monotonic() + seconds
        prompt: str | None = None
        while True:
            try:
                text, whole, event = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                if prompt is not None:
                    self._matched = len(prompt)
                    return self.now(Outcome.MARKER, prompt)
                outcome = Outcome.TIMED_OUT if self._said_something else Outcome.SILENT
                return self.now(outcome, f"{seconds:g} s")
            self._said_something |= bool(text.strip())
            self._keep(event)
            unseen = text[self._matched :]
            if whole:
                self._matched = 0
            if marker is not None and marker in unseen:
                if whole:
                    return self.now(Outcome.MARKER, text)
                prompt = text
                deadline = min(deadline, time.monotonic() + _PROMPT_SECONDS)
            elif event is not None and not (event.outcome is Outcome.UP and marker is not None):
                return event

    def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, *, seconds: float = 10
    ) -> object:
        """One QMP command; see qmp.Qmp.execute."""
        return self.qmp.execute(command, arguments, seconds=seconds)

    def physical_memory(self, address: int, size: int) -> bytes:
        """What the guest has there, flash included. Before its first instruction with `-S`, then `cont`."""
        with tempfile.TemporaryDirectory(prefix="tinboot-memory-") as folder:
            file = Path(folder) / "memory"
            self.execute("pmemsave", {"val": address, "size": size, "filename": str(file)}, seconds=60)
            return file.read_bytes()

    def cpu_seconds(self) -> float:
        """User and system time of QEMU's threads so far (proc(5), stat fields 14 and 15), in 10 ms steps."""
        if self._exit is not None:
            return self._exit.cpu_seconds
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self, *, seconds: float) -> Exit:
        """Waits `seconds` for QEMU to end by itself, then terminates it, then kills it. Idempotent."""
        if self._exit is not None:
            return self._exit
        pidfd = os.pidfd_open(self.pid)
        try:
            by_itself = _exited(pidfd, seconds)
            if not by_itself:
                signal.pidfd_send_signal(pidfd, signal.SIGTERM)
                if not _exited(pidfd, _TERMINATE_SECONDS):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except BaseException:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            raise
        finally:
            os.close(pidfd)
            self._reader.join()  # ends with QEMU, and reads the CPU time that wait4 takes away
            _, status, usage = os.wait4(self.pid, 0)
            self._process.returncode = os.waitstatus_to_exitcode(status)  # so that Popen does not wait, too
            self.qmp.drain()
            self._exit = Exit(
                status=self._process.returncode,
                by_itself=False,
                reason=self.qmp.shutdown_reason(),
                cpu_seconds=usage.ru_utime + usage.ru_stime,
            )
            self.qmp.close()
        self._exit = replace(self._exit, by_itself=by_itself)
        while not self._lines.empty():
            self._keep(self._lines.get()[2])
        return self._exit

    def _keep(self, event: Event | None) -> None:
        if event is not None and event.outcome is not Outcome.ENDED:
            self.events.append(event)

    def now(self, outcome: Outcome, text: str) -> Event:
        """An event of this moment that is no line of the guest's."""
        return Event(outcome, text, time.monotonic() - self.started, self.cpu_seconds())

    def _drain(self, serial: BinaryIO) -> None:
        lines = Lines()
        room = self._log_limit
        with serial, self.log.open("wb", buffering=0) as log:
            while chunk := os.read(serial.fileno(), 1 << 16):
                if room <= 0:
                    continue  # QEMU must be able to end
                log.write(chunk[:room])
                room -= len(chunk)
                for line in lines.feed(chunk):
                    self._on_line(line)
                    self._put(line, read_event(line))
                self._lines.put((lines.partial, False, None))
                if room <= 0:
                    self._put("", Event(Outcome.FLOODED, f"more than {self._log_limit} bytes"))
            if room > 0 and lines.partial:
                self._put(lines.partial, read_event(lines.partial))
        self._put("", Event(Outcome.ENDED, "end of the serial line"))

    def _put(self, line: str, event: Event | None) -> None:
        if event is not None:
            seconds = time.monotonic() - self.started
            event = replace(event, seconds=seconds, cpu_seconds=self.cpu_seconds())
        self._lines.put((line, True, event))


def _exited(pidfd: int, seconds: float) -> bool:
    return bool(select.select([pidfd], [], [], seconds)[0])
