"""`tinboot lock`: which packages images and tools are made from."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from tinboot.builder import archive, lockfile, mkosi_tool, output, places, prepare, recipe, relock
from tinboot.builder.lockfile import Lock, Package
from tinboot.builder.mkosi import Mkosi
from tinboot.cli.progress import Progress, progress
from tinboot.cli.setup import distribution_option
from tinboot.formats.errors import Unavailable

#: Release of each distribution; mkosi.conf.d says the same, and a test compares.
RELEASES = {"debian": "trixie", "ubuntu": "noble"}


@click.command()
@distribution_option
@click.option("--tools/--no-tools", default=True, help="Renew the locks of programs, too.  [default: yes]")
def command(distribution: str | None, tools: bool) -> None:
    """Renew packages/<distribution>.lock, tools.lock and firmware.lock from this machine's archives.

    mkosi resolves and downloads, apt checks the archive's signatures; the lock then holds the SHA-256 of
    every package. Prints what changed. Review the difference, build, commit.
    """
    name = distribution or archive.distribution_of_machine()
    with progress() as shown:
        mkosi = mkosi_tool.find_mkosi()
        if tools:
            for tree in prepare.TREES:
                _renew(tree, "debian", mkosi, shown)
        prepare.tree("tools", mkosi, shown.note, shown.count)
        _renew(name, name, mkosi, shown)


def _renew(name: str, distribution: str, mkosi: Mkosi, shown: Progress) -> None:
    shown.step(f"Resolving packages/{name}.lock")
    mirrors = {kind: archive.machine_mirrors(kind)[0] for kind in relock.SUITES[distribution]}
    release = RELEASES[distribution]
    with tempfile.TemporaryDirectory(prefix="tinboot-lock-") as folder:
        sources = relock.sources(distribution, release, mirrors)
        options = prepare.image_options(name)
        images = name not in prepare.TREES
        python = prepare.python_packages(name, shown.note, shown.count) if images else None
        debs = prepare.download(mkosi, options, sources, Path(folder), shown.note, python)
        lock = relock.lock_of(distribution, release, mirrors, debs, Path(folder) / "apt")
    path = places.lock_file(name)
    for line in changes(_former(name), lock):
        click.echo(line)
    output.write_whole(path, lockfile.dump(lock).encode(), force=True)


def _former(name: str) -> tuple[Package, ...]:
    try:
        return recipe.read_lock(places.REPOSITORY, name).packages
    except Unavailable:
        return ()


def changes(former: tuple[Package, ...], lock: Lock) -> list[str]:
    """One line a package that came, went or moved."""
    before = {package.name: package for package in former}
    after = {package.name: package for package in lock.packages}
    lines = []
    for name in sorted(before | after):
        old, new = before.get(name), after.get(name)
        if old is None and new is not None:
            lines.append(f"+ {name} {new.version}")
        elif new is None and old is not None:
            lines.append(f"- {name} {old.version}")
        elif old is not None and new is not None and old.sha256 != new.sha256:
            again = ", another file" if old.version == new.version else ""
            lines.append(f"  {name} {old.version} -> {new.version}{again}")
    return lines
