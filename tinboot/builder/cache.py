"""What `build/` keeps from one command to the next: one writer at a time, and only the newest few."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tinboot.builder import output


@contextmanager
def alone(path: Path, report: Callable[[str], None]) -> Iterator[None]:
    """Holds the lock file `path`; other processes of this machine wait, and say so through `report`.

    The kernel gives the lock back however a process ends. The file stays: removing it would let two in.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise output.unavailable(error, path) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another command that makes the same")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def used(path: Path) -> None:
    """Notes that a kept folder was needed, so that it counts among the newest."""
    os.utime(path)


def prune(folder: Path, name: str, keep: int) -> None:
    """Of the folders `<name>-<16 hex digits>` in `folder` leaves the `keep` used last.

    Removes also what a killed process left of one (`output.scratch`). Call it under the lock of `name`.
    """
    kept = re.compile(re.escape(name) + "-[0-9a-f]{16}")
    left = re.compile(r"\." + kept.pattern + r"\..*\.partial")
    entries = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    finished = [path for path in entries if kept.fullmatch(path.name)]
    finished.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in finished[keep:] + [path for path in entries if left.fullmatch(path.name)]:
        shutil.rmtree(path, ignore_errors=True)
