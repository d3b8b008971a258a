"""Starts mkosi: a clean environment, its log in a file, its steps reported as they begin."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tinboot.formats.errors import Unavailable

#: Bytes of memory-backed scratch space that a build may take; below it the workspace is on disk.
_WORKSPACE = 3 << 30

#: Called with one line a step.
Report = Callable[[str], None]


#: Seconds from SIGTERM until mkosi is killed.
_ENDS = 20.0

_RENAMED = b"as they are located on different devices, falling back to copying"


@dataclass(frozen=True, slots=True)
class Mkosi:
    """How mkosi is started: argument list, environment beyond ours. `origin`: where it is, for a person."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    version: str
    origin: str

    @property
    def sandbox(self) -> tuple[str, ...]:
        """How the same mkosi's sandbox is started: its module, or the program beside an installed mkosi."""
        *start, last = self.command
        return (*start, "mkosi.sandbox") if last == "mkosi" else (*start, f"{last}-sandbox")

    def build(
        self,
        options: Sequence[str],
        *,
        sources: str | None,
        scratch: Path,
        log: Path,
        network: bool,
        report: Report,
    ) -> None:
        """`mkosi OPTIONS build`. `sources`: apt's; "" leaves only package directories, None mkosi's own.

        `scratch`: an empty folder for everything that is not output. Raises `Unavailable` with the end
        of mkosi's output; the whole of it is in `log`. An exception here, a signal's included, ends mkosi.
        """
        sandbox = scratch / "sandbox"
        (sandbox / "etc/apt/sources.list.d").mkdir(parents=True)
        if sources is not None:
            (sandbox / "etc/apt/sources.list.d/mkosi.sources").write_text(sources, "utf-8")
        with workspace(scratch) as space, log.open("wb") as file:
            command = [
                *([] if network else _without_network()),
                *self.command,
                f"--sandbox-tree={sandbox}",
                f"--workspace-directory={space}",
                *options,
                "--force",
                "build",
            ]
            status = _run(command, environment(self.environment), file, report)
        if status:
            said = log.read_text("utf-8", "replace").splitlines()
            full = any(os.strerror(errno.ENOSPC) in line for line in said)
            raise Unavailable(
                f"mkosi ended with status {status}:\n  " + "\n  ".join(said[-12:]),
                f"make room on the file system of {scratch.parent}; " * full + f"the whole log is {log}",
            )


def _run(command: list[str], environment: dict[str, str], log: IO[bytes], report: Report) -> int:
    """The exit status; whatever ends this function early ends the process before it."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            umask=0o022,  # mkosi's own resource files and depmod's output follow it
        )
    except OSError as error:
        raise Unavailable(f"mkosi does not start: {command[0]}: {error.strerror}", "tinboot setup") from error
    with process:
        assert process.stdout is not None  # noqa: S101 - asked for above
        try:
            for line in process.stdout:
                if _RENAMED in line:
                    continue  # memory and disk are different devices; true of every output, of no interest
                log.write(line)
                if line.startswith("‣".encode()):
                    report(line.decode(errors="replace").removeprefix("‣").strip())
        except BaseException:
            end(process, _ENDS)
            raise
    return process.returncode


def end(process: subprocess.Popen[bytes] | subprocess.Popen[str], seconds: float) -> None:
    """SIGTERM, at which mkosi unmounts and removes its own; SIGKILL if it is still there after `seconds`."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()


def _without_network() -> list[str]:
    """A network namespace with nothing in it; an unprivileged mkosi makes its own (WithNetwork=no)."""
    return ["unshare", "--net", "--"] if os.geteuid() == 0 else []


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """What reaches mkosi: no locale, no time zone, nothing that a caller may have set."""
    kept = {name: os.environ[name] for name in ("HOME", "USER") if name in os.environ}
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC", **kept, **extra}


@contextmanager
def workspace(scratch: Path) -> Iterator[Path]:
    """Memory if there is enough of it: unpacking packages twice as fast is half of a build's time."""
    memory = Path("/dev/shm")  # noqa: S108 - a private folder in it
    with Path("/proc/meminfo").open("r", encoding="ascii") as file:
        available = next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable"))
    enough = memory.is_dir() and min(available // 2, shutil.disk_usage(memory).free) >= _WORKSPACE
    place = memory if enough else scratch
    with tempfile.TemporaryDirectory(prefix="tinboot-", dir=place, ignore_cleanup_errors=True) as folder:
        yield Path(folder)
