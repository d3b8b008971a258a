"""`tinboot launch`: a build becomes a QEMU process, or the arguments of one."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from tinboot.formats import launchspec
from tinboot.formats.errors import Refused
from tinboot.formats.launchspec import Forward, LaunchSpec
from tinboot.formats.manifest import Manifest
from tinboot.host import builddir, qemu
from tinboot.host.launch import QEMU, Form, qemu_arguments

_FILE = click.Path(path_type=Path)


@click.command(short_help="Start a build in QEMU, or print how.")
@click.argument("build_dir", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--volume", "volumes", multiple=True, metavar="[NAME=]PATH",
    help="File of a volume that the config names. Without NAME its content tells which.",
)  # fmt: skip
@click.option("--gpu", "gpus", multiple=True, metavar="PCI", help="PCI address of a GPU, 0000:41:00.0.")
@click.option(
    "--gpu-ocsp", type=_FILE, metavar="DISK",
    help="OCSP responses about the GPUs, made by `tinboot gpu ocsp`, for a config that asks for them.",
)  # fmt: skip
@click.option(
    "--operator", type=_FILE, metavar="JSON",
    help="Values that the config asks for by name, and the machine's address; not measured.",
)  # fmt: skip
@click.option("--firmware", type=_FILE, metavar="FD", help="AmdSev OVMF. The production form needs one.")
@click.option(
    "--forward", "forwards", multiple=True, metavar="[ADDR:]PORT:PORT",
    help="Lead a TCP port of this machine (of 127.0.0.1 by default) to one of the guest.",
)  # fmt: skip
@click.option("--harness", is_flag=True, help="Emulate: no SEV-SNP, no GPU, runs on any machine.")
@click.option("--qemu", "program", default=QEMU, metavar="PROGRAM", help=f"The QEMU to run, if not {QEMU}.")
@click.option("--dry-run", is_flag=True, help="Print the arguments, one a line, and start nothing.")
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: print form and arguments as JSON.")
def command(
    *,
    build_dir: Path,
    volumes: tuple[str, ...],
    gpus: tuple[str, ...],
    gpu_ocsp: Path | None,
    operator: Path | None,
    firmware: Path | None,
    forwards: tuple[str, ...],
    harness: bool,
    program: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Start the build in BUILD_DIR under SEV-SNP, its console on this terminal.

    Every file of the build is compared with its manifest first, every volume with the config's root
    hash. This process then becomes QEMU.
    """
    form = Form.HARNESS if harness else Form.PRODUCTION
    if as_json and not dry_run:
        raise click.UsageError("--json prints the arguments: it goes with --dry-run")
    if firmware is None and form is Form.PRODUCTION:
        raise click.UsageError("the production form needs --firmware FD; --harness runs without")
    found = builddir.read_manifest(build_dir)
    addresses = tuple(builddir.pci_address(gpu) for gpu in gpus)
    _agree_on_gpus(found, addresses, form)
    matched = builddir.match_volumes(found, volumes)
    build = _check(build_dir, found)
    if operator is not None:
        builddir.check_operator(build, operator)
    ports = [_forward(text) for text in forwards]
    spec = builddir.launch_spec(build, matched, firmware, addresses, ports, gpu_ocsp, operator)
    arguments = qemu_arguments(spec, form, program)
    if dry_run:
        _print(spec, form, arguments, as_json)
        return
    arguments[0] = qemu.find(program, form)
    if firmware is not None and not firmware.is_file():
        raise click.UsageError(f"--firmware {firmware}: no such file")
    if gpu_ocsp is not None and not gpu_ocsp.is_file():
        raise click.UsageError(f"--gpu-ocsp {gpu_ocsp}: no such file")
    qemu.require_devices(spec, form)
    click.echo(
        f"Starting {found.name} ({form.value} form, {spec.measured.vcpus} vCPUs, {spec.memory} MiB)", err=True
    )
    sys.stdout.flush()
    os.execv(arguments[0], arguments)  # noqa: S606 - becoming QEMU is the point; no shell would be wanted


def _check(directory: Path, found: Manifest) -> builddir.Build:
    """`builddir.check` with a bar on a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("Checking {task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        total = found.kernel.size + found.initrd.size + found.root.size
        task = bar.add_task("", total=total)
        return builddir.check(
            directory, found, lambda name, size: bar.update(task, description=name, advance=size)
        )


def _agree_on_gpus(found: Manifest, gpus: tuple[str, ...], form: Form) -> None:
    if form is Form.PRODUCTION and len(gpus) != found.gpus:
        raise Refused(
            f"the config asks for {found.gpus} GPUs, {len(gpus)} are given",
            "give --gpu once for each; the guest halts on any other number",
        )
    if form is Form.HARNESS and found.gpus:
        click.echo(f"note: the config asks for {found.gpus} GPUs; without them the guest will halt", err=True)


def _forward(text: str) -> Forward:
    parts = text.split(":")
    if len(parts) == 2:
        parts.insert(0, "127.0.0.1")
    if len(parts) != 3 or not all(p.isascii() and p.isdigit() and len(p) <= 5 for p in parts[1:]):
        raise click.BadParameter(f"{text!r} is not [ADDR:]PORT:PORT", param_hint="--forward")
    return Forward(parts[0], int(parts[1]), int(parts[2]))


def _print(spec: LaunchSpec, form: Form, arguments: list[str], as_json: bool) -> None:
    if as_json:
        result = {
            "form": form.value,
            "command_line": launchspec.command_line(spec),
            "arguments": arguments,
        }
        click.echo(json.dumps(result, indent=2))
        return
    for argument in arguments:
        click.echo(shlex.quote(argument))
