"""`tinboot wrap`: weights become a verity volume and its line for the config."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from tinboot.builder import weights_source, wrap, wrap_check
from tinboot.builder.tools import find_tool
from tinboot.cli.progress import Progress as Lines
from tinboot.cli.progress import progress
from tinboot.formats.verity import VolumeRef, parse_volume_ref

_PATH = click.Path(path_type=Path)


def _identity(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    try:
        if value is not None:
            wrap.check_identity(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return value


def _line(_ctx: click.Context, _param: click.Parameter, value: str | None) -> VolumeRef | None:
    try:
        return None if value is None else parse_volume_ref(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path), required=False)
@click.option(
    "--repo", metavar="NAME@REVISION", callback=_identity, help="Identity: salt and UUID come from it."
)
@click.option("-o", "--output", type=_PATH, metavar="OUT", help="Default: NAME@REVISION.mpk, with -- for /.")
@click.option("--check", "volume", type=_PATH, metavar="OUT", help="Re-derive an existing volume instead.")
@click.option("--expect", metavar="LINE", callback=_line, help="With --check: the config line it must have.")
@click.option("--force", is_flag=True, help="Replace an existing OUT.")
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Processes that hash. Default: all CPUs.")
@click.option("--json", "as_json", is_flag=True, help="Print all about the volume, not only its line.")
def command(
    source: Path | None,
    repo: str | None,
    output: Path | None,
    volume: Path | None,
    expect: VolumeRef | None,
    force: bool,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Turn SOURCE, a directory of model weights or one file, into a verity volume.

    Prints the line for `mpk:` in the config. Beside OUT stands OUT.json: what the volume is and which
    mkfs.erofs made it; the same one makes the same bytes again.

    With --check, SOURCE is optional: the volume is compared with its config line (--expect, else OUT.json)
    and, where given, with SOURCE.
    """
    if volume is not None:
        if output is not None or force:
            raise click.UsageError("--check writes nothing: it goes with neither -o nor --force")
        made = _check(volume, repo, expect, source, jobs)
    else:
        if source is None or repo is None or expect is not None:
            raise click.UsageError("give SOURCE and --repo NAME@REVISION, or --check OUT [--expect LINE]")
        made = _wrap(source, repo, output, force, jobs)
    click.echo(json.dumps(made.fields(), indent=2) if as_json else str(made.ref))


def _wrap(source: Path, repo: str, output: Path | None, force: bool, jobs: int | None) -> wrap.Volume:
    out = output or Path(wrap.default_name(repo))
    content = weights_source.scan(source)
    for name in content.excluded:
        click.echo(f"left out: {name} ({weights_source.EXCLUDED[name]})", err=True)
    if find_tool("mkfs.erofs").origin == "host":
        click.echo("note: without the tools tree the host's mkfs.erofs decides the bytes", err=True)
    with _shown() as show:
        made = wrap.wrap(content, repo, out, jobs=jobs, force=force, progress=show)
    tools = ", ".join(f"{name} {version}" for name, version in made.tools.items())
    click.echo(f"{out}: {made.files} files, {made.size} bytes, made with {tools}", err=True)
    return made


def _check(
    volume: Path, repo: str | None, expect: VolumeRef | None, source: Path | None, jobs: int | None
) -> wrap.Volume:
    sidecar = wrap_check.read_sidecar(volume)
    identity = repo or (sidecar.repo if sidecar else None)
    if identity is None:
        raise click.UsageError(f"there is no {wrap.sidecar_of(volume)}: give --repo NAME@REVISION")
    with _shown() as show:
        made = wrap_check.check(
            volume, identity, expect=expect, sidecar=sidecar, source=source, jobs=jobs, progress=show
        )
    if expect is None:
        click.echo(f"{volume} is a volume of {identity}; compare its line with your config's:", err=True)
    return made


@contextmanager
def _shown() -> Iterator[wrap.Progress]:
    """A bar for each stage on a terminal, a line now and then elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        with progress() as lines:
            yield _lines(lines)
        return
    columns = (TextColumn("{task.description:12}"), BarColumn(), DownloadColumn(binary_units=True))
    with Progress(*columns, TransferSpeedColumn(), TimeRemainingColumn(), console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage)
            bars.update(tasks[stage], completed=done, total=total)

        yield show


def _lines(lines: Lines) -> wrap.Progress:
    seen: set[str] = set()

    def show(stage: str, done: int, total: int) -> None:
        if stage not in seen:
            seen.add(stage)
            lines.step(stage)
        lines.count("MiB", done >> 20, total >> 20)

    return show
