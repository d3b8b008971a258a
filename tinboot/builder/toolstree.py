"""The tools tree: the programs that make images and volumes, from `packages/tools.lock`."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from pathlib import Path

from tinboot.builder.mkosi import Mkosi, Report


def make(mkosi: Mkosi, repository: Path, packages: Path, build: Path, report: Report) -> Path:
    """`build`/tools, a link to the tree of this lock, recipe and mkosi; made if it is not there.

    `packages`: a folder with the lock's files. Needs apt and dpkg on the host, nothing else.
    """
    state = hashlib.sha256(mkosi.version.encode())
    for path in (repository / "packages/tools.lock", *sorted((repository / "mkosi.tools").iterdir())):
        state.update(path.read_bytes())
    final = build / f"tools-{state.hexdigest()[:16]}"
    build.mkdir(parents=True, exist_ok=True)
    with (build / ".tools.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not final.exists():
            partial = final.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            scratch = partial / "scratch"
            (scratch / "cache").mkdir(parents=True)
            options = [
                f"--directory={repository / 'mkosi.tools'}",
                f"--package-directory={packages}",
                f"--package-cache-directory={scratch / 'cache'}",
                f"--output-directory={partial}",
            ]
            log = build / "tools.log"
            mkosi.build(options, sources="", scratch=scratch, log=log, network=False, report=report)
            (partial / "tools").replace(final)
            shutil.rmtree(partial)
        link = build / "tools"
        if not link.is_symlink() or link.readlink() != Path(final.name):
            staged = build / ".tools.link"
            staged.unlink(missing_ok=True)
            staged.symlink_to(final.name)
            staged.replace(link)
    return link
