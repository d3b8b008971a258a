"""What AMD said before, kept in files: a hint, read with a bound and verified like what is new.

    $XDG_CACHE_HOME/tinboot/kds/<name>     XDG Base Directory Specification 0.8; without it ~/.cache

A file is there whole or not at all. A folder that cannot be written or read costs time, not an answer.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from pathlib import Path

_LIMIT = 1 << 20  # bytes of one file


def default_folder() -> Path:
    """Relative paths in the variable count for nothing, as the specification says."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "tinboot" / "kds"


class Cache:
    """A folder of files; None: nothing is kept. Names are base names of ours, never the network's."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def get(self, name: str, seconds: float | None = None) -> bytes | None:
        """The file, where it is there, readable, and written at most `seconds` ago."""
        if self._folder is None:
            return None
        try:
            with (self._folder / name).open("rb") as file:
                age = time.time() - os.fstat(file.fileno()).st_mtime
                if seconds is not None and not 0 <= age <= seconds:
                    return None
                data = file.read(_LIMIT + 1)
        except OSError:
            return None
        return data if len(data) <= _LIMIT else None

    def put(self, name: str, data: bytes) -> None:
        if self._folder is None:
            return
        with contextlib.suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file, path = tempfile.mkstemp(prefix=f".{name}.", dir=self._folder)
            made = Path(path)
            try:
                with os.fdopen(file, "wb") as opened:
                    opened.write(data)
                made.replace(self._folder / name)
            except OSError:
                made.unlink(missing_ok=True)
