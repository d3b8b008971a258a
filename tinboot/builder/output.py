"""Outputs that exist whole or not at all.

An output is made in a private directory beside its final name, synced, and renamed into place; the
directory goes away however the work ends, SIGINT, SIGTERM and SIGHUP included (stopping.py).
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinboot.formats.errors import Refused, TinbootError, Unavailable

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)

#: renameat2(2): relative to the current folder; swap the two names (linux/fcntl.h, linux/fs.h).
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


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


def replace_folder(made: Path, final: Path) -> None:
    """Gives the folder its final name in one step; a former one stands in `made` afterwards."""
    made.chmod(0o755)
    if not os.path.lexists(final):
        made.rename(final)
    elif not _exchange(made, final):
        # a file system that cannot exchange two names: for a moment there is none
        former = made.with_name("former")
        final.rename(former)
        try:
            made.rename(final)
        except BaseException:
            former.rename(final)
            raise
    sync(final.parent)


def sync(path: Path) -> None:
    """Waits until a file's or a directory's content is on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two names; False where the file system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(number, os.strerror(number), str(other))
