"""`tinboot rebuild`: shows that an image is a function of its recipe."""

from __future__ import annotations

import hashlib
from pathlib import Path

import click

from tinboot.builder import compare, gpu_reference, prepare, rebuild, recipe
from tinboot.cli.progress import progress
from tinboot.cli.setup import default_distribution, distribution_option
from tinboot.formats.errors import Mismatch


@click.command()
@distribution_option
@click.option("--profile", type=click.Choice(recipe.PROFILES), default="release", show_default=True)
@click.option(
    "--gpu-reference-values",
    "reference",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="What the image was built with: the folder that `tinboot gpu pin` made.",
)
def command(distribution: str | None, profile: str, reference: Path | None) -> None:
    """Build the image twice under different conditions and compare every byte.

    Path, umask, locale, time zone, host name, user, CPUs and time differ. Prints these as each build saw
    them and the SHA-256 of each artefact; or the first difference (exit code 4), and diffoscope's view of
    it where that is installed.
    """
    pinned = None if reference is None else gpu_reference.read(reference)
    wanted = recipe.this_checkout(distribution or default_distribution(), profile, pinned)
    wanted.lock()
    with progress() as shown:
        shown.step("Fetching what builds need")
        chain = prepare.toolchain(wanted.distribution, shown.note, shown.count)
        builds: list[rebuild.Built] = []
        shown.step("Build 1 of 2")
        for built in rebuild.twice(wanted, chain, shown.note):
            builds.append(built)
            shown.step("Build 2 of 2" if len(builds) == 1 else "Comparing")
            if len(builds) == 2:
                _compare(*builds)
    click.echo("two builds, the same bytes")


def _compare(one: rebuild.Built, other: rebuild.Built) -> None:
    """Prints conditions and hashes; raises `Mismatch` at the first difference."""
    for name, value in one.seen.items():
        click.echo(f"{name:<10} {value:<40}  {other.seen[name]}")
    difference = compare.first_difference(one.folder, other.folder)
    if difference is not None:
        click.echo(compare.report(one.folder, other.folder, difference), nl=False)
        raise Mismatch(
            f"the builds differ: {difference}", "what differed between them is printed above the message"
        )
    for path in sorted(other.folder.iterdir()):
        with path.open("rb") as file:
            click.echo(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}")
