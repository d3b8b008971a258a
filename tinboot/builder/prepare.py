"""Everything a locked build needs, fetched once: mkosi, packages, the trees of programs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinboot.builder import (
    archive,
    cache,
    lockfile,
    mkosi_tool,
    nv_verifier,
    packages,
    payload,
    places,
    recipe,
    toolstree,
)
from tinboot.builder.lockfile import Lock, Package
from tinboot.builder.mkosi import Mkosi, Report
from tinboot.formats.errors import Unavailable

#: Called with the name of a lock and how many of its packages are there.
Progress = Callable[[str, int, int], None]

#: Trees of programs, each with a recipe mkosi.<name>/, a lock and a link build/<name>: what makes images
#: and volumes, and what compiles the firmware. Both are Debian's.
TREES = ("tools", "firmware")


@dataclass(frozen=True, slots=True)
class Toolchain:
    """`tools`: the tools tree; `packages`: the folder with the files of the images' lock; `python`: NVIDIA's
    Python packages, as the root takes them (payload.py)."""

    mkosi: Mkosi
    tools: Path
    packages: Path
    python: Path


@dataclass(frozen=True, slots=True)
class FirmwareKit:
    """`tree`: the compiler's; `sources`: the firmware's tarballs, in the order of their lock."""

    mkosi: Mkosi
    tree: Path
    sources: tuple[Path, ...]


def toolchain(distribution: str, report: Report, progress: Progress) -> Toolchain:
    """Fetches what is missing, makes the tools tree if it is not there. Raises `Unavailable`."""
    mkosi = mkosi_tool.find_mkosi()
    tools = tree("tools", mkosi, report, progress)
    packages = locked_packages(distribution, mkosi, report, progress)
    return Toolchain(mkosi, tools, packages, python_packages(distribution, report, progress))


def firmware_kit(report: Report, progress: Progress) -> FirmwareKit:
    """The compiler's tree and the firmware's sources; a build then needs no network. Raises `Unavailable`."""
    mkosi = mkosi_tool.find_mkosi()
    return FirmwareKit(mkosi, tree("firmware", mkosi, report, progress), firmware_sources(report, progress))


def tree(name: str, mkosi: Mkosi, report: Report, progress: Progress) -> Path:
    """The link build/<name> to the tree of packages/<name>.lock; `name` is one of `TREES`."""
    folder = locked_packages(name, mkosi, report, progress)
    return toolstree.make(mkosi, places.REPOSITORY, name, folder, places.build_folder(), report)


def locked_packages(name: str, mkosi: Mkosi, report: Report, progress: Progress) -> Path:
    """The folder with exactly the files of packages/<name>.lock, each checked."""
    lock = recipe.read_lock(places.REPOSITORY, name)
    folder = places.build_folder() / "packages" / name

    def snapshot(missing: list[Package], target: Path) -> None:
        gone = ", ".join(f"{package.name} {package.version}" for package in missing)
        report(f"not on this machine's mirrors: {gone}; trying the snapshot of {lock.stamp}")
        _from_snapshot(name, lock, mkosi, target, report, progress)

    with cache.alone(folder.with_name(f".{name}.lock"), report):
        packages.fetch(
            lock,
            folder,
            archive.machine_mirrors,
            progress=lambda done, of: progress(name, done, of),
            fallback=snapshot,
        )
    return folder


def firmware_sources(report: Report, progress: Progress) -> tuple[Path, ...]:
    """The tarballs of ovmf/sources.lock, each checked, below build/packages/sources."""
    file = "ovmf/sources.lock"
    lock = lockfile.parse(file, (places.REPOSITORY / file).read_text("utf-8"))
    folder = places.build_folder() / "packages" / "sources"

    def gone(missing: list[Package], _: Path) -> None:
        names = ", ".join(f"{source.file} ({source.archive}: {source.path})" for source in missing)
        raise Unavailable(
            f"the mirror of this machine no longer has {names} as {file} names it",
            f"put it into {folder}, from wherever it can be had: only the SHA-256 counts; or set "
            f"{archive.variable('debian')} to a snapshot of {lock.stamp}",
        )

    with cache.alone(folder.with_name(".sources.lock"), report):
        packages.fetch(
            lock,
            folder,
            archive.machine_mirrors,
            progress=lambda done, of: progress("sources", done, of),
            fallback=gone,
        )
    return tuple(folder / source.file for source in lock.packages)


def python_packages(distribution: str, report: Report, progress: Progress) -> Path:
    """NVIDIA's Python for the interpreter of the distribution's release, each wheel by its SHA-256."""
    return nv_verifier.make(recipe.PYTHON[distribution].removeprefix("python"), report, progress)


def _from_snapshot(
    name: str, lock: Lock, mkosi: Mkosi, target: Path, report: Report, progress: Progress
) -> None:
    """Has mkosi build from its `Snapshot=` of the lock's stamp, for the packages that it downloads."""
    with tempfile.TemporaryDirectory(prefix="tinboot-snapshot-") as folder:
        options = [*image_options(name), f"--snapshot={lock.stamp}"]
        try:
            python = None if name in TREES else python_packages(name, report, progress)
            downloaded = download(mkosi, options, None, Path(folder), report, python)
        except Unavailable as error:
            report(error.message.splitlines()[-1].strip())
            return
        for deb in downloaded:
            shutil.copyfile(deb, target / deb.name)


def image_options(name: str) -> list[str]:
    """mkosi's options to build everything that the lock `name` is for: the widest profile has it all."""
    if name in TREES:
        return [f"--directory={places.REPOSITORY / f'mkosi.{name}'}"]
    return [
        f"--directory={places.REPOSITORY}",
        f"--distribution={name}",
        "--profile=debug",
        f"--tools-tree={places.build_folder() / 'tools'}",
    ]


def download(
    mkosi: Mkosi, options: list[str], sources: str | None, folder: Path, report: Report, python: Path | None
) -> list[Path]:
    """Runs a networked mkosi build in `folder`, for the packages that it fetches.

    `sources`: apt sources, or None for mkosi's own; `python`: for an image's, as in `Toolchain`.
    """
    cache = folder / "cache"
    cache.mkdir()
    if python is not None:
        (folder / "output").mkdir()
        payload.stage(folder / "output" / payload.FOLDER, python, None)
    mkosi.build(
        [*options, f"--package-cache-directory={cache}", f"--output-directory={folder / 'output'}"],
        sources=sources,
        scratch=folder,
        log=places.build_folder() / "download.log",
        network=True,
        report=report,
    )
    return sorted(cache.rglob("*.deb"))
