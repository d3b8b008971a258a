"""Outputs that exist whole or not at all.

An output is made in a private directory beside its final name, synced, and renamed into place; the
directory goes away however the work ends, SIGINT, SIGTERM and SIGHUP included (stopping.py).
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinboot.formats.errors import Refused, TinbootError, Unavailable

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def scratch(final: Path) -> Iterator[Path]:
    """A private, empty directory on the file system of `final`, removed on every way out."""
    try:
        folder = tempfile.mkdtemp(prefix=f".{final.name[:80]}.", suffix=".partial", dir=final.parent)
    except OSError as error:
        raise unavailable(error, final.parent) from error
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder)


def publish(made: Path, final: Path, *, force: bool = False) -> None:
    """Gives the file `made` (same file system) its final name, durably.

    Without `force` an existing `final` is never touched: raises Refused.
    """
    try:
        sync(made)
        if force:
            made.replace(final)
        else:
            _move_new(made, final)
        sync(final.parent)
    except OSError as error:
        raise unavailable(error, final) from error


def write_whole(final: Path, data: bytes, *, force: bool = False) -> None:
    """Writes a small file the same way."""
    with scratch(final) as folder:
        made = folder / "data"
        try:
            made.write_bytes(data)
        except OSError as error:
            raise unavailable(error, final) from error
        publish(made, final, force=force)


def exists_already(final: Path) -> Refused:
    return Refused(f"{final} exists already", "remove it, choose another name, or use --force")


def unavailable(error: OSError, path: Path) -> TinbootError:
    """What an operating system error at `path` means to a person: no space, or the system's own words."""
    where = error.filename if isinstance(error.filename, str) else path
    if error.errno in _NO_SPACE:
        return Unavailable(f"no space left on the file system of {path}", "free some, or write elsewhere")
    return Unavailable(f"{where}: {error.strerror or error}")


def _move_new(made: Path, final: Path) -> None:
    try:
        final.hardlink_to(made)  # unlike a rename it fails where something stands
    except FileExistsError:
        raise exists_already(final) from None
    except OSError:  # a file system without hard links
        if os.path.lexists(final):
            raise exists_already(final) from None
        made.rename(final)
    else:
        made.unlink()


def sync(path: Path) -> None:
    """Waits until a file's or a directory's content is on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
