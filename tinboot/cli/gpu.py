"""`tinboot gpu`: what concerns GPUs before and after a boot."""

from __future__ import annotations

import click

#: command -> its line in `tinboot gpu --help`. Loaded when called, as those of cli/main.py.
COMMANDS = {
    "pin": "Verify NVIDIA's RIMs and make reference values of them.",
    "ocsp": "Lay OCSP responses on a disk for the guest's GPU gate.",
    "verify": "Appraise the evidence of GPUs.",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "pin":
            from tinboot.cli import gpu_pin  # noqa: PLC0415 - no command pays for another's imports

            return gpu_pin.command
        if cmd_name == "ocsp":
            from tinboot.cli import gpu_ocsp  # noqa: PLC0415 - likewise

            return gpu_ocsp.command
        if cmd_name == "verify":
            from tinboot.cli import gpu_verify  # noqa: PLC0415 - likewise

            return gpu_verify.command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Commands)
def command() -> None:
    """Reference values of NVIDIA's GPUs, and evidence that is appraised with them."""
