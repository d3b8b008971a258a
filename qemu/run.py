"""Boots a build for a person: `python qemu/run.py BUILD_DIR [--volume FILE]…`

The serial line on standard error as it comes, the outcome as the one line on standard output. A guest
that came up is asked to power off, as an operator would, and must. Exit codes: 0 up and off again,
5 the guest refused (a halt, or a panic), 6 it did neither in time.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import click
import stub_files
import testcpio
from accelerator import choose
from boot import DEADLINE, BootResult, finish
from boot_logs import ROOT, kept_on_failure
from machine import Machine
from psp import Psp
from serial_log import Outcome

from tinboot.formats.errors import Refused, TinbootError, Unavailable
from tinboot.host import builddir
from tinboot.host.launch import Form, qemu_arguments

POWER_OFF_SECONDS = 60.0  # emulated systemd stopping a handful of units takes about 3


@click.command()
@click.argument("build_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--volume", "volumes", multiple=True, metavar="[NAME=]PATH", help="File of a volume of the config."
)
@click.option("--deadline", default=DEADLINE, show_default=True, help="Seconds until the guest must be up.")
def command(build_dir: Path, volumes: tuple[str, ...], deadline: float) -> None:
    """Boot the build in BUILD_DIR under emulation and power it off again."""
    with kept_on_failure(f"run-{build_dir.resolve().name}", ROOT) as folder:
        result = run(build_dir, volumes, deadline, folder)
        if result.outcome in (Outcome.HALTED, Outcome.PANICKED):
            raise Refused(f"the guest {result.outcome.value}: {result.event.text}")
        if result.outcome is not Outcome.UP:
            raise Unavailable(result.describe())
        if not result.powered_off:
            raise Unavailable(f"the guest came up and did not power off: {result.exit}")
    click.echo(
        f"{build_dir}: up after {result.seconds:.1f} s ({result.event.cpu_seconds:.1f} s of CPU), powered off"
    )


def run(build_dir: Path, volumes: tuple[str, ...], deadline: float, folder: Path) -> BootResult:
    """One boot of a checked build in the launcher's harness form, with a stub PSP."""
    build = builddir.check(build_dir, builddir.read_manifest(build_dir))
    spec = builddir.launch_spec(build, builddir.match_volumes(build.manifest, volumes), None, (), ())
    listed = qemu_arguments(spec, Form.HARNESS)[1:]
    listed[listed.index("-accel") + 1] = choose(Path(spec.measured.kernel), ROOT.parent / "accelerator")
    initrd = folder / "initrd"
    initrd.write_bytes(testcpio.append(Path(spec.measured.initrd).read_bytes(), stub_files.entries()))
    listed[listed.index("-initrd") + 1] = str(initrd)
    say = partial(click.echo, err=True)
    with Psp() as psp, Machine([*listed, *psp.arguments], log=folder / "boot.log", on_line=say) as machine:
        event = machine.wait(deadline)
        if event.outcome is not Outcome.UP:
            return finish(machine, event)
        machine.execute("system_powerdown")
        return finish(machine, event, seconds=POWER_OFF_SECONDS)


def main() -> None:
    """As tinboot.cli.main: one message and its exit code for a `TinbootError`."""
    try:
        command()
    except TinbootError as error:
        for line in (f"error: {error.message}", error.hint, *getattr(error, "__notes__", ())):
            if line:
                click.echo(line, err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
