"""`tinboot host`: questions about the machine that is to run the guests."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tinboot.host import check as checks
from tinboot.host.launch import QEMU
from tinboot.host.machine import Finding, Status, observe

_STYLE = {Status.OK: "green", Status.MISSING: "red", Status.UNKNOWN: "yellow"}


@click.group(short_help="Check what this machine lacks for SEV-SNP and H100.")
def command() -> None:
    """Questions about the machine that is to run the guests."""


@command.command()
@click.option(
    "--memory", type=click.IntRange(64, 16 << 20), default=16384, show_default=True, metavar="MIB",
    help="Memory of the guest to plan for.",
)  # fmt: skip
@click.option("--firmware", type=click.Path(path_type=Path), metavar="FD", help="The AmdSev OVMF to judge.")
@click.option("--qemu", "program", default=QEMU, metavar="PROGRAM", help=f"The QEMU to judge, if not {QEMU}.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def check(*, memory: int, firmware: Path | None, program: str, as_json: bool) -> None:
    """Say what this machine lacks for SEV-SNP guests with H100 GPUs, and the remedy.

    Exit code 0: nothing. 5: something is missing. 6: nothing is known to be missing, but something
    cannot be told from here. Run it as root: the secure processor answers nobody else.
    """
    findings = checks.run(observe(memory, firmware, program))
    if as_json:
        click.echo(json.dumps([_record(finding) for finding in findings], indent=2))
    else:
        _table(findings)
    sys.exit(checks.exit_code(findings))


def _record(finding: Finding) -> dict[str, str]:
    return {
        "check": finding.name,
        "status": finding.status.value,
        "found": finding.found,
        "remedy": finding.remedy,
    }


def _table(findings: list[Finding]) -> None:
    """One row a check; a remedy stands below what was found, so that 80 columns are enough."""
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, show_edge=False)
    table.add_column("check", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("found, and what to do")
    for finding in findings:
        answer = Text(finding.found)
        if finding.remedy:
            answer.append(f"\n-> {finding.remedy}", style="bold")
        status = Text(finding.status.value, style=_STYLE[finding.status])
        table.add_row(finding.name, status, answer)
    console.print(table)
    counts = Counter(finding.status for finding in findings)
    console.print("\n" + ", ".join(f"{counts[status]} {status.value}" for status in Status))
