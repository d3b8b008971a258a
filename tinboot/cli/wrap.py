"""`tinboot wrap`: weights, or a container's image, become a verity volume and its lines for the config."""

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

from tinboot.builder import oci_wrap, weights_source, wrap, wrap_check
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


def _layout(
    _ctx: click.Context, _param: click.Parameter, value: str | None
) -> tuple[Path, str | None] | None:
    if value is None:
        return None
    path, ref = oci_wrap.parse_layout(value)
    if not path.exists():
        raise click.BadParameter(f"{path} does not exist")
    return path, ref


def _image(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[str, str | None] | None:
    try:
        return None if value is None else oci_wrap.parse_name(value)
    except ValueError as error:
        raise click.BadParameter(f"expected {error}") from None


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path), required=False)
@click.option(
    "--repo", metavar="NAME@REVISION", callback=_identity, help="Identity: salt and UUID come from it."
)
@click.option(
    "--oci", "layout", metavar="LAYOUT[:REF]", callback=_layout,
    help="Instead of SOURCE: an image in an OCI layout, a directory or the tar archive of one.",
)  # fmt: skip
@click.option(
    "--image", metavar="NAME[@sha256:DIGEST]", callback=_image,
    help="With --oci: what containers call it, and the digest that it must have.",
)  # fmt: skip
@click.option("-o", "--output", type=_PATH, metavar="OUT", help="Default: NAME@REVISION.mpk, with -- for /.")
@click.option("--check", "volume", type=_PATH, metavar="OUT", help="Re-derive an existing volume instead.")
@click.option("--expect", metavar="LINE", callback=_line, help="With --check: the config line it must have.")
@click.option("--force", is_flag=True, help="Replace an existing OUT.")
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Processes that hash. Default: all CPUs.")
@click.option("--json", "as_json", is_flag=True, help="Print all about the volume, not only its line.")
def command(
    source: Path | None,
    repo: str | None,
    layout: tuple[Path, str | None] | None,
    image: tuple[str, str | None] | None,
    output: Path | None,
    volume: Path | None,
    expect: VolumeRef | None,
    force: bool,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Turn SOURCE, a directory of model weights or one file, into a verity volume.

    Prints the line for `mpk:` in the config. With --oci and --image instead, a container's image becomes a
    volume to run it from, after every blob was compared with its digest: its entry for `images:` is printed.
    Beside OUT stands OUT.json: what the volume is and which
    mkfs.erofs made it; the same one makes the same bytes again.

    With --check, SOURCE or --oci are optional: the volume is compared with its config line (--expect, else
    OUT.json) and, where given, with what it came from.
    """
    if layout and (source or repo):
        raise click.UsageError("--oci goes with --image, SOURCE with --repo")
    if volume is not None:
        if output is not None or force:
            raise click.UsageError("--check writes nothing: it goes with neither -o nor --force")
        made = _check(volume, repo, layout, image, expect, source, jobs)
    elif layout and image and expect is None:
        made = _wrap_image(oci_wrap.Source(*layout, *image), output, force, jobs)
    else:
        if source is None or repo is None or expect is not None:
            raise click.UsageError(
                "give SOURCE and --repo NAME@REVISION, or --oci LAYOUT and --image NAME, "
                "or --check OUT [--expect LINE]"
            )
        made = _wrap(source, repo, output, force, jobs)
    if as_json:
        click.echo(json.dumps(made.fields(), indent=2))
    elif made.key == "image":
        click.echo(f"- image: {made.identity}\n  mpk: {made.ref}")
    else:
        click.echo(made.ref)


def _wrap(source: Path, repo: str, output: Path | None, force: bool, jobs: int | None) -> wrap.Volume:
    out = output or Path(wrap.default_name(repo))
    content = weights_source.scan(source)
    for name in content.excluded:
        click.echo(f"left out: {name} ({weights_source.EXCLUDED[name]})", err=True)
    _say_whose_tool()
    with _shown() as show:
        made = wrap.wrap(content, repo, out, jobs=jobs, force=force, progress=show)
    click.echo(f"{out}: {made.files} files, {made.size} bytes, made with {_tools(made)}", err=True)
    return made


def _wrap_image(source: oci_wrap.Source, output: Path | None, force: bool, jobs: int | None) -> wrap.Volume:
    out = output or Path(oci_wrap.default_name(source))
    _say_whose_tool()
    with _shown() as show:
        made = oci_wrap.wrap_image(source, out, jobs=jobs, force=force, progress=show)
    click.echo(f"{out}: {made.size} bytes, made with {_tools(made)}", err=True)
    return made


def _say_whose_tool() -> None:
    if find_tool("mkfs.erofs").origin == "host":
        click.echo("note: without the tools tree the host's mkfs.erofs decides the bytes", err=True)


def _tools(made: wrap.Volume) -> str:
    return ", ".join(f"{name} {version}" for name, version in made.tools.items())


def _check(
    volume: Path,
    repo: str | None,
    layout: tuple[Path, str | None] | None,
    image: tuple[str, str | None] | None,
    expect: VolumeRef | None,
    source: Path | None,
    jobs: int | None,
) -> wrap.Volume:
    sidecar = wrap_check.read_sidecar(volume)
    named = "@".join(filter(None, image)) if image else None
    identity = repo or named or (sidecar.identity if sidecar else None)
    if identity is None:
        raise click.UsageError(f"there is no {wrap.sidecar_of(volume)}: give --repo NAME@REVISION or --image")
    is_image = image is not None or layout is not None or (not repo and sidecar and sidecar.key == "image")
    if is_image and ("@" not in identity or source is not None):
        raise click.UsageError("--check of an image takes --image NAME@sha256:DIGEST, and --oci, no SOURCE")
    with _shown() as show:
        if is_image:
            origin = oci_wrap.Source(*layout, *oci_wrap.parse_name(identity)) if layout else None
            made = oci_wrap.check(
                volume, identity, expect=expect, sidecar=sidecar, source=origin, jobs=jobs, progress=show
            )
        else:
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
