"""The tools tree: the programs that make images and volumes, from `packages/tools.lock`."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tinboot.builder import cache, output
from tinboot.builder.mkosi import Mkosi, Report

#: Trees that stay, 400 MB each: the one in use, and the one before a lock was renewed.
_KEPT = 2


def make(mkosi: Mkosi, repository: Path, packages: Path, build: Path, report: Report) -> Path:
    """`build`/tools, a link to the tree of this lock, recipe and mkosi; made if it is not there.

    `packages`: a folder with the lock's files. Needs apt and dpkg on the host, nothing else.
    """
    state = hashlib.sha256(mkosi.version.encode())
    for path in (repository / "packages/tools.lock", *sorted((repository / "mkosi.tools").iterdir())):
        state.update(path.read_bytes())
    final = build / f"tools-{state.hexdigest()[:16]}"
    link = build / "tools"
    with cache.alone(build / ".tools.lock", report):
        try:
            if not final.exists():
                cache.prune(build, "tools", _KEPT - 1)
                _make(mkosi, repository, packages, final, report)
            cache.used(final)
            if not link.is_symlink() or link.readlink() != Path(final.name):
                staged = build / ".tools.link"
                staged.unlink(missing_ok=True)
                staged.symlink_to(final.name)
                staged.replace(link)
        except OSError as error:
            raise output.unavailable(error, build) from error
    return link


def _make(mkosi: Mkosi, repository: Path, packages: Path, final: Path, report: Report) -> None:
    with output.scratch(final) as folder:
        work = folder / "work"
        (work / "cache").mkdir(parents=True)
        options = [
            f"--directory={repository / 'mkosi.tools'}",
            f"--package-directory={packages}",
            f"--package-cache-directory={work / 'cache'}",
            f"--output-directory={folder}",
        ]
        log = final.with_name("tools.log")
        mkosi.build(options, sources="", scratch=work, log=log, network=False, report=report)
        (folder / "tools").replace(final)
