"""What `tinboot wrap` takes from a directory of weights, or from one file: names, bytes, execute bits.

Nothing else of the input may matter: owners, times, other mode bits, extended attributes, hard links,
and whether a file is there itself or, as in a Hugging Face cache, as a link to ../../blobs.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tinboot.formats.errors import Refused, Unavailable

#: What tools leave beside the weights of a download: (path in the source, why it is left out).
EXCLUDED = {
    ".cache/huggingface": "bookkeeping of a Hugging Face download",
    ".git": "bookkeeping of git",
}

_LFS = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """`name` relative to the source, with slashes; `origin` the regular file with the bytes."""

    name: str
    origin: Path
    size: int
    executable: bool


@dataclass(frozen=True, slots=True)
class Source:
    """All sorted by name; `excluded` tells what was left out."""

    files: tuple[SourceFile, ...]
    directories: tuple[str, ...]
    excluded: tuple[str, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def scan(source: Path) -> Source:
    """Reads the names. Raises Refused for what no volume may hold, Unavailable for what cannot be read."""
    try:
        root = source.resolve(strict=True)
        if not root.is_dir():
            return Source((_regular(root, source.name, root),), (), ())
        # the layout of a Hugging Face cache: models--NAME/snapshots/REVISION with links to models--NAME/blobs
        allowed = [root]
        if root.parent.name == "snapshots":
            allowed.append(root.parent.parent / "blobs")
        files: list[SourceFile] = []
        directories: list[str] = []
        excluded: list[str] = []
        for name, entry in _walk(root, "", excluded):
            if entry.is_dir(follow_symlinks=False):
                directories.append(name)
            else:
                files.append(_regular(Path(entry.path), name, *allowed))
    except OSError as error:
        raise Unavailable(f"{error.filename or source}: {error.strerror}") from None
    if not files:
        raise Refused(f"{source} holds no file", "give the directory that the weights are in")
    return Source(
        tuple(sorted(files, key=lambda f: f.name)), tuple(sorted(directories)), tuple(sorted(excluded))
    )


def _walk(folder: Path, prefix: str, excluded: list[str]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + entry.name
            if name in EXCLUDED:
                excluded.append(name)
            elif not entry.is_dir(follow_symlinks=False):
                yield name, entry
            else:
                inside = list(_walk(Path(entry.path), name + "/", excluded))
                if inside or name not in {str(Path(e).parent) for e in excluded}:
                    yield name, entry  # .cache with nothing else in it goes with what it held
                yield from inside


def _regular(path: Path, name: str, *allowed: Path) -> SourceFile:
    """The file behind `path`, which may be a link that stays within `allowed`."""
    try:
        origin = path.resolve(strict=True)
    except FileNotFoundError:
        _refuse(path, "is a link to nothing", "finish the download, or remove the link")
    except RuntimeError:
        _refuse(path, "is a link to itself", "remove it")
    if not any(origin.is_relative_to(base) for base in allowed):
        _refuse(
            path, f"is a link out of the source, to {origin}", "replace it by a copy of what it points to"
        )
    state = origin.stat()
    if not stat.S_ISREG(state.st_mode):
        what = "a link to a directory" if stat.S_ISDIR(state.st_mode) else "neither a file nor a directory"
        _refuse(path, f"is {what}", "weights are plain files: remove it, or replace it by one")
    with origin.open("rb") as opened:
        if state.st_size < 1024 and opened.read(len(_LFS)) == _LFS:
            _refuse(path, "is a git-lfs pointer, not the file itself", "run `git lfs pull` in the source")
    return SourceFile(name, origin, state.st_size, bool(state.st_mode & 0o111))


def _refuse(path: Path, what: str, hint: str) -> NoReturn:
    raise Refused(f"{path} {what}", hint)
