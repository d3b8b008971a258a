"""Starts mkosi: a clean environment, its log in a file, its steps reported as they begin."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinboot.formats.errors import Unavailable

#: Bytes of memory-backed scratch space that a build may take; below it the workspace is on disk.
_WORKSPACE = 3 << 30

#: Called with one line a step.
Report = Callable[[str], None]


_RENAMED = b"as they are located on different devices, falling back to copying"


@dataclass(frozen=True, slots=True)
class Mkosi:
    """How mkosi is started: argument list, environment beyond ours, and its version."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    version: str

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
        of mkosi's output; the whole of it is in `log`.
        """
        sandbox = scratch / "sandbox"
        (sandbox / "etc/apt/sources.list.d").mkdir(parents=True)
        if sources is not None:
            (sandbox / "etc/apt/sources.list.d/mkosi.sources").write_text(sources, "utf-8")
        command = [
            *([] if network else _without_network()),
            *self.command,
            f"--sandbox-tree={sandbox}",
            f"--workspace-directory={_workspace(scratch)}",
            *options,
            "--force",
            "build",
        ]
        with (
            log.open("wb") as file,
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=_environment(self.environment),
                umask=0o022,  # mkosi's own resource files and depmod's output follow it
            ) as process,
        ):
            assert process.stdout is not None  # noqa: S101 - asked for above
            for line in process.stdout:
                if _RENAMED in line:
                    continue  # memory and disk are different devices; true of every output, of no interest
                file.write(line)
                if line.startswith("‣".encode()):
                    report(line.decode(errors="replace").removeprefix("‣").strip())
        if process.returncode:
            tail = log.read_text("utf-8", "replace").splitlines()[-12:]
            raise Unavailable(
                f"mkosi ended with status {process.returncode}:\n  " + "\n  ".join(tail),
                f"the whole log is {log}",
            )


def _without_network() -> list[str]:
    """A network namespace with nothing in it; an unprivileged mkosi makes its own (WithNetwork=no)."""
    return ["unshare", "--net", "--"] if os.geteuid() == 0 else []


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    """What reaches mkosi: no locale, no time zone, nothing that a caller may have set."""
    kept = {name: os.environ[name] for name in ("HOME", "USER") if name in os.environ}
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC", **kept, **extra}


def _workspace(scratch: Path) -> Path:
    """Memory if there is enough of it: unpacking packages twice as fast is half of a build's time."""
    memory = Path("/dev/shm")  # noqa: S108 - mkosi makes its own private folder in it
    with Path("/proc/meminfo").open("r", encoding="ascii") as file:
        available = next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable"))
    if memory.is_dir() and min(available // 2, shutil.disk_usage(memory).free) >= _WORKSPACE:
        return memory
    (scratch / "workspace").mkdir()
    return scratch / "workspace"
