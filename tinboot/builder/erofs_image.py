"""Runs mkfs.erofs, on a directory or an archive that it is fed; sees that a guest would take the result."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO

from tinboot.formats import erofs
from tinboot.formats.errors import Malformed, Unavailable
from tinboot.formats.verity import BLOCK

#: Called with the bytes written so far.
Progress = Callable[[int], None]

_EVERY = 0.1  # seconds between two reports


def require_space(need: int, files: int, folder: Path) -> None:
    """Says early what would otherwise be found after hours; leaves 1 % and 1 MiB for tree and metadata."""
    state = os.statvfs(folder)
    free = state.f_bavail * state.f_frsize
    need += need // 100 + (1 << 20) + 128 * files
    if free < need:
        raise Unavailable(
            f"the volume needs {need} bytes and the file system of {folder} has {free} left",
            "free some, or choose another place with -o",
        )


def run(
    command: list[str], made: Path, progress: Progress | None, feed: Iterable[bytes] | None = None
) -> None:
    """Runs mkfs.erofs; the growth of its output is the progress. `feed`: its standard input.

    Its environment is empty, its temporary files beside its output.
    """
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if feed is None else subprocess.PIPE,
            stdout=said,
            stderr=subprocess.STDOUT,
            env={"LC_ALL": "C", "TMPDIR": str(made.parent)},
        ) as child,
    ):
        try:
            if child.stdin is not None and feed is not None:
                _feed(child.stdin, feed, progress)
            _await(child, made, progress)
        except BaseException:
            child.kill()
            raise
        said.seek(0)
        words = said.read(1 << 16).decode(errors="replace")
    if child.returncode:
        if "No space left" in words:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        lines = [line.strip() for line in words.splitlines() if line.strip()]
        raise Unavailable(f"mkfs.erofs failed ({child.returncode}): {' / '.join(lines[-2:])[:400]}")


def complete(fd: int, uuid: str) -> None:
    """Pads the image; then the file is as long as its file system says, or `Malformed` is raised."""
    size = os.fstat(fd).st_size
    os.ftruncate(fd, size + -size % BLOCK)
    try:
        found = erofs.parse_superblock(os.pread(fd, BLOCK, 0))
    except ValueError as error:
        raise Malformed(f"mkfs.erofs wrote no file system: {error}") from None
    blocks = -(-size // BLOCK)
    if (found.blocks, found.uuid) != (blocks, uuid):
        raise Malformed(
            f"mkfs.erofs wrote a file system of {found.blocks} blocks, UUID {found.uuid}, "
            f"into {blocks} blocks for UUID {uuid}: a guest would refuse it"
        )


def _await(child: subprocess.Popen[bytes], made: Path, progress: Progress | None) -> None:
    while True:
        try:
            child.wait(_EVERY)
        except subprocess.TimeoutExpired:
            if progress:
                progress(made.stat().st_size if made.exists() else 0)
        else:
            return


def _feed(pipe: IO[bytes], feed: Iterable[bytes], progress: Progress | None) -> None:
    """A child that goes away early says why itself."""
    done, shown = 0, time.monotonic()
    try:
        for part in feed:
            pipe.write(part)
            done += len(part)
            if progress and time.monotonic() - shown > _EVERY:
                progress(done)
                shown = time.monotonic()
        pipe.close()
    except BrokenPipeError:
        with suppress(BrokenPipeError):
            pipe.close()
