"""Where the logs of a test's boots lie: kept if it failed, removed if it passed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

#: In the repository; ignored by git.
ROOT = Path(__file__).resolve().parent.parent / "build" / "boot-logs"


@contextmanager
def kept_on_failure(name: str, root: Path) -> Iterator[Path]:
    """An empty folder for logs. An exception keeps it and is told where; else it goes."""
    folder = empty(name, root)
    try:
        yield folder
    except BaseException as error:
        error.add_note(f"serial logs are kept in {folder}")
        raise
    shutil.rmtree(folder)


def empty(name: str, root: Path) -> Path:
    """The folder for `name`, made anew."""
    folder = folder_of(name, root)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def folder_of(name: str, root: Path) -> Path:
    """Where the logs of `name`, a pytest node id or any text, lie: a file name of its own for each."""
    readable = re.sub(r"[^\w.=-]+", "_", name.removeprefix("tests/")).strip("_.")
    return root / f"{readable[:180]}-{sha256(name.encode()).hexdigest()[:8]}"
