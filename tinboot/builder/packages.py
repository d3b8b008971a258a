"""Fetches what a lock names, checks every byte, and keeps it in one folder a lock.

The machine's own apt does the transfer (`apt-helper` knows its mirrors, proxy and credentials), but nothing
of apt's trust is used: a file counts only if its SHA-256 is the lock's. What is complete is kept, so an
interrupted fetch goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from tinboot.builder.lockfile import Lock, Package
from tinboot.formats.errors import Unavailable

#: apt's program for a single transfer with a hash check (package apt, always there on Debian and Ubuntu).
APT_HELPER = "/usr/lib/apt/apt-helper"

#: Packages a call to apt-helper: enough to keep the connection busy, few enough to show progress.
_BATCH = 16

#: Seconds for one batch. apt's own limit on a stalled transfer is 30 s a try.
_BATCH_DEADLINE = 900

#: Gets packages that no mirror has any more; returns the file where it was found.
Fallback = Callable[[Lock, Package], Path | None]


def fetch(
    lock: Lock,
    folder: Path,
    mirrors: Mapping[str, str],
    *,
    progress: Callable[[int, int], None],
    fallback: Fallback,
) -> None:
    """Fills `folder` with exactly the files of `lock`; anything else in it is removed.

    `mirrors`: archive kind to URI, as `Package.archive` names them. `progress(done, total)` in packages.
    Raises `Unavailable` naming each package that neither mirror nor `fallback` has.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {package.file: package for package in lock.packages}
    for path in folder.iterdir():
        if path.name not in wanted or not _genuine(path, wanted[path.name]):
            path.unlink()
    todo = [package for package in lock.packages if not (folder / package.file).exists()]
    done = len(lock.packages) - len(todo)
    progress(done, len(lock.packages))
    for at in range(0, len(todo), _BATCH):
        batch = todo[at : at + _BATCH]
        _transfer(batch, folder, mirrors)
        done += len(batch)
        progress(done, len(lock.packages))
    missing = [package for package in todo if not (folder / package.file).exists()]
    for package in list(missing):
        found = fallback(lock, package)
        if found is not None and _genuine(found, package):
            _place(found, folder / package.file)
            missing.remove(package)
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


def _transfer(batch: Iterable[Package], folder: Path, mirrors: Mapping[str, str]) -> None:
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
            _place(target, folder / package.file)
        target.unlink(missing_ok=True)


def _place(source: Path, target: Path) -> None:
    """Hard link or rename, so that a file under its final name is whole."""
    if source.parent == target.parent:
        source.chmod(0o644)
        source.replace(target)
    else:
        staged = target.with_name(target.name + ".partial")
        staged.write_bytes(source.read_bytes())
        staged.replace(target)
