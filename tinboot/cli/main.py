"""`tinboot`: the commands in the order of the line they work on."""

from __future__ import annotations

import importlib
import sys

import click

import tinboot.formats.errors
from tinboot.builder import stopping

#: command -> (module that defines `command`, its line in `tinboot --help`). Loaded when called, so that
#: no command pays for another's imports.
COMMANDS = {
    "build": ("tinboot.cli.build", "Build kernel, initrd, root and command line for a config."),
    "rebuild": ("tinboot.cli.rebuild", "Build twice under different conditions and compare."),
    "firmware": ("tinboot.cli.firmware", "Build the firmware of every guest, or check that build."),
    "measure": ("tinboot.cli.measure", "Compute the launch digest of a launch, or explain one."),
    "id-block": ("tinboot.cli.idblock", "Sign an ID block, which the PSP enforces at launch."),
    "lock": ("tinboot.cli.lock", "Renew the list of packages that images are built from."),
    "wrap": ("tinboot.cli.wrap", "Turn model weights, or a container's image, into a verity volume."),
    "launch": ("tinboot.cli.launch", "Start a build in QEMU, or print how."),
    "verify": ("tinboot.cli.verify", "Appraise what a host says, or a report in a file."),
    "request": ("tinboot.cli.request", "Verify a host, then send it one request."),
    "inspect": ("tinboot.cli.inspect", "Show what evidence claims, and what would prove it."),
    "gpu": ("tinboot.cli.gpu", "Pin NVIDIA's reference values; appraise evidence of GPUs."),
    "host": ("tinboot.cli.host", "Check what this machine lacks for SEV-SNP and H100."),
    "setup": ("tinboot.cli.setup", "Fetch and check the tools that builds need."),
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(COMMANDS[cmd_name][0]).command
        assert isinstance(command, click.Command)  # noqa: S101 - a wrong table is a bug, not an input
        return command

    def invoke(self, ctx: click.Context) -> None:
        """One line for Ctrl-C, SIGTERM or SIGHUP, as soon as whatever was being made is cleaned up."""
        try:
            with stopping.stoppable():
                super().invoke(ctx)
        except stopping.Stopped as stopped:
            click.echo(f"{stopped}; nothing was left behind", err=True)
            ctx.exit(128 + stopped.signum)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tinboot")
def cli() -> None:
    """Build, launch and verify confidential VMs whose every byte is accounted for."""


def main() -> None:
    """Entry point: turns `TinbootError` into one message and its exit code (formats/errors.py)."""
    try:
        cli(standalone_mode=True)
    except tinboot.formats.errors.TinbootError as error:
        prefix = click.style("error:", fg="red", bold=True)
        click.echo(f"{prefix} {error.message}", err=True)
        if error.hint:
            click.echo(f"{click.style('hint:', bold=True)} {error.hint}", err=True)
        sys.exit(error.exit_code)
