"""`tinboot setup`: what builds and boots need beyond system packages and Python, fetched and checked.

setup.sh runs it last. A step is done again only if its result is absent or damaged, and prints one line.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import click

from tinboot.builder import mkosi_tool, namespaces, prepare, recipe
from tinboot.cli.progress import Progress, progress
from tinboot.host import qemu
from tinboot.host.launch import QEMU, Form

distribution_option = click.option(
    "--distribution",
    type=click.Choice(recipe.DISTRIBUTIONS),
    help="What the image is made of.  [default: the machine's own, where its packages are locked]",
)


def default_distribution() -> str:
    """What images are made of without `--distribution`; raises `Unavailable`."""
    return recipe.default_distribution()


def check_mkosi(shown: Progress, distribution: str) -> str:
    """An installed mkosi that is new enough, else the pinned one."""
    found = mkosi_tool.find_mkosi()
    return f"{found.version} ({found.origin})"


def check_qemu(shown: Progress, distribution: str) -> str:
    """The QEMU that boots images here, `$TINBOOT_QEMU` or the one in PATH."""
    path = qemu.find(os.environ.get("TINBOOT_QEMU") or QEMU, Form.HARNESS)
    return f"{qemu.version_text(path)} ({path})"


def check_namespaces(shown: Progress, distribution: str) -> str:
    """What mkosi builds in."""
    return namespaces.check()


def get_packages(shown: Progress, distribution: str) -> str:
    """Locked packages and the tools tree; builder/prepare.py."""
    made = prepare.toolchain(distribution, shown.note, shown.count)
    return f"{distribution}, with the tools tree {made.tools.resolve()}"


def get_firmware(shown: Progress, distribution: str) -> str:
    """The firmware's sources and its compiler; the build itself comes when it is first needed."""
    made = prepare.firmware_kit(shown.note, shown.count)
    return f"{len(made.sources)} sources, compiler {made.tree.resolve()}"


#: In this order; each returns what it found, in a few words.
STEPS: dict[str, Callable[[Progress, str], str]] = {
    "mkosi": check_mkosi,
    "QEMU": check_qemu,
    "namespaces": check_namespaces,
    "packages": get_packages,
    "firmware": get_firmware,
}


@click.command("setup")
@distribution_option
def command(distribution: str | None) -> None:
    """Fetch and check the tools that builds need.

    mkosi, QEMU's version, locked packages, the tools tree, and the firmware's sources and compiler. What is
    done is not done again, what was interrupted goes on. Ends with 6 and the remedy if something cannot be
    had.
    """
    with progress() as shown:
        for name, step in STEPS.items():
            shown.step(f"setup: {name}")
            found = step(shown, distribution or default_distribution())
            shown.finish()
            click.echo(f"setup: {name}: {found}", err=True)
