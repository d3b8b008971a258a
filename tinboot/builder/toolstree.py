"""Trees of programs, from locked packages: `tools` makes images and volumes, `firmware` compiles firmware."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tinboot.builder import cache, output
from tinboot.builder.mkosi import Mkosi, Report

#: Trees that stay, 400 MB each: the one in use, and the one before a lock was renewed.
_KEPT = 2


def make(mkosi: Mkosi, repository: Path, name: str, packages: Path, build: Path, report: Report) -> Path:
    """`build`/<name>, a link to the tree of this lock, recipe and mkosi; made if it is not there.

    `packages`: a folder with the lock's files. Needs apt and dpkg on the host, nothing else.
    """
    state = hashlib.sha256(mkosi.version.encode())
    recipe = repository / f"mkosi.{name}"
    for path in (repository / f"packages/{name}.lock", *sorted(recipe.iterdir())):
        state.update(path.read_bytes())
    final = build / f"{name}-{state.hexdigest()[:16]}"
    link = build / name
    with cache.alone(build / f".{name}.lock", report):
        try:
            if not final.exists():
                cache.prune(build, name, _KEPT - 1)
                _make(mkosi, recipe, name, packages, final, report)
            cache.used(final)
            if not link.is_symlink() or link.readlink() != Path(final.name):
                staged = build / f".{name}.link"
                staged.unlink(missing_ok=True)
                staged.symlink_to(final.name)
                staged.replace(link)
        except OSError as error:
            raise output.unavailable(error, build) from error
    return link


def _make(mkosi: Mkosi, recipe: Path, name: str, packages: Path, final: Path, report: Report) -> None:
    with output.scratch(final) as folder:
        work = folder / "work"
        (work / "cache").mkdir(parents=True)
        options = [
            f"--directory={recipe}",
            f"--package-directory={packages}",
            f"--package-cache-directory={work / 'cache'}",
            f"--output-directory={folder}",
        ]
        log = final.with_name(f"{name}.log")
        mkosi.build(options, sources="", scratch=work, log=log, network=False, report=report)
        (folder / name).replace(final)
