"""Fetches what a lock names, checks every byte, and keeps it in one folder a lock.

The machine's own apt does the transfer (`apt-helper` knows its mirrors, proxy and credentials), but nothing
of apt's trust is used: a file counts only if its SHA-256 is the lock's. What is complete is kept, so an
interrupted fetch goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tinboot.builder.lockfile import Kind, Lock, Package
from tinboot.formats.errors import Unavailable

#: apt's program for a single transfer with a hash check (package apt, always there on Debian and Ubuntu).
APT_HELPER = "/usr/lib/apt/apt-helper"

#: Packages a call to apt-helper: enough to keep the connection busy, few enough to show progress.
_BATCH = 16

#: Seconds for one batch. apt's own limit on a stalled transfer is 30 s a try.
_BATCH_DEADLINE = 900

#: Gets what no mirror has any more: called once with those packages and a folder to put files into.
Fallback = Callable[[list[Package], Path], None]


def fetch(
    lock: Lock,
    folder: Path,
    mirrors: Mapping[Kind, Sequence[str]],
    *,
    progress: Callable[[int, int], None],
    fallback: Fallback,
) -> None:
    """Fills `folder` with exactly the files of `lock`; anything else in it is removed.

    `mirrors`: archive kind, as `Package.archive` names it, to URIs in the order to try them.
    `progress(done, total)` in packages.
    Raises `Unavailable` naming each package that neither mirror nor `fallback` has.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {package.file: package for package in lock.packages}
    for path in folder.iterdir():
        if path.name not in wanted or not _genuine(path, wanted[path.name]):
            path.unlink()
    todo = [package for package in lock.packages if not (folder / package.file).exists()]
    total = len(lock.packages)
    progress(total - len(todo), total)
    for at in range(0, len(todo), _BATCH):
        batch = todo[at : at + _BATCH]
        for rank in range(max(len(uris) for uris in mirrors.values())):
            left = [package for package in batch if not (folder / package.file).exists()]
            _transfer(left, folder, {kind: uris[rank] for kind, uris in mirrors.items() if rank < len(uris)})
        progress(total - len(todo) + at + len(batch), total)
    missing = [package for package in todo if not (folder / package.file).exists()]
    if missing:
        with tempfile.TemporaryDirectory(dir=folder.parent) as rescued:
            fallback(missing, Path(rescued))
            missing = [package for package in missing if not _adopt(Path(rescued), folder, package)]
    if missing:
        raise Unavailable(
            "the mirror of this machine no longer has "
            + ", ".join(f"{p.name} {p.version} ({p.archive}: {p.path})" for p in missing)
            + " as the lock names it, and no snapshot archive could be reached",
            f"review what moved and renew the lock: tinboot lock --distribution {lock.distribution}",
        )


def _genuine(path: Path, package: Package) -> bool:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == package.sha256


def _transfer(batch: list[Package], folder: Path, mirrors: Mapping[Kind, str]) -> None:
    """What arrives and is genuine is placed; whatever else happens is found out by the caller."""
    words: list[str] = []
    partial: dict[Path, Package] = {}
    for package in batch:
        if package.archive in mirrors:
            target = folder / (package.file + ".partial")
            partial[target] = package
            uri = mirrors[package.archive].rstrip("/") + "/" + package.path
            words += [uri, str(target), f"SHA256:{package.sha256}"]
    if not words:
        return
    try:
        subprocess.run(
            [APT_HELPER, "-qq", "download-file", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_BATCH_DEADLINE,
            env=os.environ | {"LC_ALL": "C"},
            check=False,
        )
    except FileNotFoundError as error:
        raise Unavailable(f"{APT_HELPER} is not there", "apt-get install apt") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(
            f"the mirror did not deliver {len(partial)} packages within {_BATCH_DEADLINE} s",
            "try again: what has arrived is kept",
        ) from error
    for target, package in partial.items():
        if target.exists() and _genuine(target, package):
            target.chmod(0o644)
            target.replace(folder / package.file)
        target.unlink(missing_ok=True)


def _adopt(rescued: Path, folder: Path, package: Package) -> bool:
    """Moves the package's file from `rescued` to its place, if it is there and genuine."""
    path = rescued / package.file
    if not path.exists() or not _genuine(path, package):
        return False
    path.replace(folder / package.file)
    return True
