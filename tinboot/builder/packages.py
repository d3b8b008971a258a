"""Fetches what a lock names, checks every byte, and keeps it in one folder a lock.

The machine's own apt does the transfer (`apt-helper` knows its mirrors, proxy and credentials), but nothing
of apt's trust is used: a file counts only if its SHA-256 is the lock's. What is complete is kept, so an
interrupted fetch goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tinboot.builder import archive, output
from tinboot.builder.lockfile import Kind, Lock, Package
from tinboot.formats.errors import Unavailable

#: apt's program for a single transfer with a hash check (package apt, always there on Debian and Ubuntu).
APT_HELPER = "/usr/lib/apt/apt-helper"

#: Packages a call to apt-helper: enough to keep the connection busy, few enough to show progress.
_BATCH = 16

#: Seconds for one batch. apt's own limit on a stalled transfer is 30 s a try.
_BATCH_DEADLINE = 900

#: Below the folder: what is on its way. A killed process leaves it, the next one takes what is whole in it.
_ARRIVING = ".partial"

_FAILED = re.compile(r"E: Failed to fetch (\S+) +(.*)")
#: What a mirror says that has another version by now. Anything else may pass: the network, the disk.
_MOVED = re.compile(r"404 |410 |File not found|Hash Sum mismatch|File has unexpected size")

#: The URIs of the archives of a kind, in the order to try them; raises `Unavailable` if there is none.
Mirrors = Callable[[Kind], Sequence[str]]

#: Gets what no mirror has any more: called once with those packages and a folder to put files into.
Fallback = Callable[[list[Package], Path], None]


def fetch(
    lock: Lock,
    folder: Path,
    mirrors: Mirrors,
    *,
    progress: Callable[[int, int], None],
    fallback: Fallback,
) -> None:
    """Fills `folder` with exactly the files of `lock`; anything else in it is removed.

    `mirrors` is asked only for what is absent: a complete folder needs none. `progress(done, total)` in
    packages. One process at a time may call it for a folder.
    Raises `Unavailable` naming each package that neither mirror nor `fallback` has, or what kept a
    mirror from answering.
    """
    wanted = {package.file: package for package in lock.packages}
    with _arriving(folder) as arriving:
        _adopt(arriving, folder, lock.packages)
        for path in folder.iterdir():
            if path != arriving and not (path.name in wanted and _genuine(path, wanted[path.name])):
                _remove(path)
        todo = _absent(lock.packages, folder)
        uris = {kind: mirrors(kind) for kind in sorted({package.archive for package in todo})}
        total = len(lock.packages)
        progress(total - len(todo), total)
        for at in range(0, len(todo), _BATCH):
            _fetch_batch(todo[at : at + _BATCH], folder, arriving, uris)
            progress(total - len(todo) + min(at + _BATCH, len(todo)), total)
        if missing := _absent(todo, folder):
            with tempfile.TemporaryDirectory(dir=arriving) as rescued:
                fallback(missing, Path(rescued))
                _adopt(Path(rescued), folder, missing)
        if missing := _absent(todo, folder):
            raise Unavailable(
                "the mirror of this machine no longer has "
                + ", ".join(f"{p.name} {p.version} ({p.archive}: {p.path})" for p in missing)
                + " as the lock names it, and no snapshot archive could be reached",
                f"review what moved and renew the lock: tinboot lock --distribution {lock.distribution}",
            )


@contextmanager
def _arriving(folder: Path) -> Iterator[Path]:
    arriving = folder / _ARRIVING
    try:
        arriving.mkdir(parents=True, exist_ok=True)
        yield arriving
    except OSError as error:
        raise output.unavailable(error, folder) from error
    shutil.rmtree(arriving)


def _absent(packages: Sequence[Package], folder: Path) -> list[Package]:
    return [package for package in packages if not (folder / package.file).exists()]


def _genuine(path: Path, package: Package) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == package.sha256


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _fetch_batch(
    batch: Sequence[Package], folder: Path, arriving: Path, uris: dict[Kind, Sequence[str]]
) -> None:
    """From each mirror in turn; `Unavailable` if one is absent of which no mirror said that it moved."""
    moved: set[Package] = set()
    trouble = ""
    for rank in range(max(map(len, uris.values()))):
        left = _absent(batch, folder)
        asked = {
            f"{uris[package.archive][rank].rstrip('/')}/{package.path}": package
            for package in left
            if rank < len(uris[package.archive])
        }
        if asked:
            gone, said = _transfer(asked, arriving)
            moved |= gone
            trouble = said or trouble
            _adopt(arriving, folder, batch)
    unknown = [package for package in _absent(batch, folder) if package not in moved]
    if unknown:
        names = ", ".join(package.name for package in unknown)
        raise Unavailable(
            f"cannot fetch {names}: {trouble}", "try again when that works: what has arrived is kept"
        )


def _transfer(asked: dict[str, Package], arriving: Path) -> tuple[set[Package], str]:
    """Lets apt get each URI. Returns the packages that are not there, and what else went wrong, in a line.

    Whether a file arrived, only its hash tells.
    """
    words: list[str] = []
    for uri, package in asked.items():
        target = arriving / package.file
        target.unlink(missing_ok=True)
        words += [uri, str(target), f"SHA256:{package.sha256}"]
    try:
        done = subprocess.run(
            [APT_HELPER, "-qq", "download-file", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_BATCH_DEADLINE,
            env=os.environ | {"LC_ALL": "C"},
            check=False,
        )
    except FileNotFoundError as error:
        raise Unavailable(f"{APT_HELPER} is not there", "apt-get install apt") from error
    except subprocess.TimeoutExpired:
        return set(), f"the mirror did not deliver {len(asked)} packages within {_BATCH_DEADLINE} s"
    failed = _FAILED.findall(done.stderr)
    gone = {asked[uri] for uri, reason in failed if uri in asked and _MOVED.match(reason)}
    others = [f"{archive.redacted(uri)}: {reason}" for uri, reason in failed if not _MOVED.match(reason)]
    return gone, others[0] if others else f"apt-helper ended with status {done.returncode}"


def _adopt(source: Path, folder: Path, packages: Sequence[Package]) -> None:
    """Moves the files of `packages` that are in `source` and genuine to their place."""
    for package in packages:
        path = source / package.file
        # from a file: mirror apt makes a link, which a rename would keep
        if path.is_symlink() and path.exists():
            linked, path = path, source / (package.file + ".copy")
            shutil.copyfile(linked, path)
        if _genuine(path, package):
            path.chmod(0o644)
            path.replace(folder / package.file)
