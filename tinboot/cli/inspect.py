"""`tinboot inspect`: a tree of what evidence claims, for a person. It decides nothing."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tinboot.cli import claims, gpu_verify
from tinboot.cli import verify as report
from tinboot.cli.claims import Claim, Means
from tinboot.cli.parameters import FILE, moment, read
from tinboot.cli.verdicts import WIDTH
from tinboot.client import Given, evidence, origin
from tinboot.formats import attestationdocument, completeattestation, gpuevidence, snpreport
from tinboot.formats.errors import TinbootError, Unavailable
from tinboot.formats.jsonfields import parse_object
from tinboot.verify import gpu_roots, roots
from tinboot.verify.checks import Unchecked, Verdict

if TYPE_CHECKING:
    from rich.table import Table
    from rich.tree import Tree

_LIMIT = completeattestation.MAX_SIZE
_END = "Nothing is decided here: what a host is held to, tinboot verify HOST is told."


@click.command("inspect")
@click.argument("what", metavar="FILE|HOST[:PORT]")
@click.option("--vek", type=FILE, metavar="CERT", help="The certificate of the report's key.")
@click.option("--certs", type=FILE, metavar="TABLE", help="A certificate table, as the guest got it.")
@click.option("--chain", type=FILE, metavar="PEM", help="Issuers. Default: AMD's, which tinboot has.")
@click.option("--connect", metavar="ADDRESS:PORT", help="Where HOST is reached, if not there.")
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 3600),
    default=evidence.SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="For all that is asked of HOST.",
)
@click.option("--at", metavar="RFC3339", callback=moment, help="The time to look at dates for. Default: now.")
@click.option("--trust-root", type=FILE, metavar="CERT", help="TESTS ONLY: trust this root, too.")
@click.option("--trust-gpu-root", type=FILE, metavar="CERT", help="TESTS ONLY: and this one, of GPUs.")
@click.option("--json", "as_json", is_flag=True, help="Print the tree as JSON.")
def command(
    what: str,
    vek: Path | None,
    certs: Path | None,
    chain: Path | None,
    connect: str | None,
    timeout: float,
    at: datetime,
    trust_root: Path | None,
    trust_gpu_root: Path | None,
    as_json: bool,
) -> None:
    """Show what evidence claims, and beside each claim the checks that would prove it and what they say.

    FILE is an attestation document (v2, v3 or complete), a report of 1184 bytes or evidence of GPUs; `-` is
    standard input. What is no file is a HOST, which is asked for its evidence.

    Nothing is decided, whatever the checks say: the exit code is 0 for all that can be read.
    """
    means = _means(vek, certs, chain, (trust_root, trust_gpu_root), at)
    path = Path(what)
    if what == "-" or path.exists() or "/" in what:
        found = _file(what, read(path, _LIMIT), means)
    else:
        found = _host(what, connect, timeout, means)
    if as_json:
        click.echo(json.dumps({"decided": "nothing", **found.fields()}, indent=2))
    else:
        _show(found)


def _means(
    vek: Path | None,
    certs: Path | None,
    chain: Path | None,
    test_roots: tuple[Path | None, Path | None],
    at: datetime,
) -> Means:
    offered = [] if chain is None else [*report.certificates(chain)]
    pinned: tuple[roots.Root, ...] = roots.AMD
    gpus: tuple[str, ...] = gpu_roots.NVIDIA
    cpu_root, gpu_root = test_roots
    if cpu_root is not None:
        root = report.trusted(cpu_root)
        pinned = (*pinned, roots.test_root(root))
        offered.insert(0, root)
    if gpu_root is not None:
        gpus = (*gpus, gpu_verify.trusted(gpu_root))
    own = None if vek is None else report.one(vek)
    table = None if certs is None else report.table_of(certs)
    return Means(Given(own, table, offered, None, pinned), gpus, at)


def _file(name: str, data: bytes, means: Means) -> Claim:
    try:
        if len(data) == snpreport.SIZE and data[:1] not in b"[{":
            return claims.of_report(data, means)
        if data.lstrip()[:1] == b"[":
            return claims.of_gpus(gpuevidence.parse(data), means)
        fields = parse_object("evidence", data, _LIMIT)
        if fields.has("boot"):
            return claims.of_complete(completeattestation.parse(data), means)
        return claims.of_document(attestationdocument.parse(data), means)
    except TinbootError as error:
        raise type(error)(f"{name}: {error.message}", error.hint) from error


def _host(name: str, connect: str | None, timeout: float, means: Means) -> Claim:
    try:
        at = origin(name, connect)
    except ValueError as error:
        raise click.UsageError(f"there is no such file, and no such host: {error}") from None
    try:
        return claims.of_host(at.authority, evidence.fetch(at, timeout), means)
    except Unavailable as error:
        raise Unavailable(error.message, f"{error.hint} (there is no file of this name)".lstrip()) from error


def _show(found: Claim) -> None:
    """80 columns wide."""
    from rich.console import Console  # noqa: PLC0415 - with --json there is nothing to draw
    from rich.tree import Tree  # noqa: PLC0415 - as above

    tree = Tree(_drawn(found), guide_style="dim")
    _grow(tree, found)
    console = Console(width=WIDTH, highlight=False)
    with console.capture() as drawn:
        console.print(tree)
    click.echo("\n".join(line.rstrip() for line in drawn.get().splitlines()))
    click.echo(_END)


def _grow(tree: Tree, claim: Claim) -> None:
    for part in claim.parts:
        _grow(tree.add(_drawn(part)), part)


def _drawn(claim: Claim) -> Table:
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(claim.name, style="bold"), Text(claim.value))
    for mark, style, text in _told(claim.checks):
        grid.add_row(Text(mark, style=style, justify="right"), Text(text, style="dim"))
    return grid


def _told(verdicts: tuple[Verdict, ...]) -> list[tuple[str, str, str]]:
    """A line for each that failed, one for all that are open, one for all that passed."""
    found = [
        ("FAIL", "red", f"{v.id}: {v.outcome.message}")
        for v in verdicts
        if isinstance(v.outcome, TinbootError)
    ]
    opened = [verdict.id for verdict in verdicts if isinstance(verdict.outcome, Unchecked)]
    passed = [verdict.id for verdict in verdicts if verdict.outcome is None]
    found += [("open", "yellow", ", ".join(opened))] if opened else []
    return found + ([("ok", "green", ", ".join(passed))] if passed else [])
