"""`tinboot rebuild`: shows that an image is a function of its recipe."""

from __future__ import annotations

import hashlib
from pathlib import Path

import click

from tinboot.builder import compare, prepare, rebuild, recipe
from tinboot.cli.progress import progress
from tinboot.cli.setup import default_distribution, distribution_option
from tinboot.formats.errors import Mismatch


@click.command()
@distribution_option
@click.option("--profile", type=click.Choice(recipe.PROFILES), default="release", show_default=True)
def command(distribution: str | None, profile: str) -> None:
    """Build the image twice under different conditions and compare every byte.

    Path, umask, locale, time zone, host name, user, CPUs and time differ. Prints the SHA-256 of each
    artefact, or the first difference (exit code 4), and diffoscope's view of it where that is installed.
    """
    wanted = recipe.this_checkout(distribution or default_distribution(), profile)
    with progress() as shown:
        shown.step("Fetching what builds need")
        chain = prepare.toolchain(wanted.distribution, shown.note, shown.count)
        folders: list[Path] = []
        shown.step("Build 1 of 2")
        for conditions, folder in rebuild.twice(wanted, chain, shown.note):
            folders.append(folder)
            if len(folders) == 1:
                shown.step("Build 2 of 2")
                continue
            shown.step("Comparing")
            difference = compare.first_difference(*folders)
            if difference is not None:
                click.echo(compare.report(folders[0], folder, difference), nl=False)
                raise Mismatch(
                    f"the builds differ: {difference}", f"the second build's conditions: {conditions}"
                )
            for path in sorted(folder.iterdir()):
                with path.open("rb") as file:
                    click.echo(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}")
    click.echo("two builds, the same bytes")
