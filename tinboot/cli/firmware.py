"""`tinboot firmware`: the firmware of every guest, from pinned source."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tinboot.builder import compare, firmware, firmware_check, output, places, prepare
from tinboot.builder.firmware import Built
from tinboot.cli.progress import Progress, progress
from tinboot.formats import ovmf


@click.group()
def command() -> None:
    """The firmware of every guest, AmdSev OVMF, from pinned source."""


@command.command()
@click.option(
    "-o", "--output", "target", type=click.Path(dir_okay=False, path_type=Path), default=firmware.IMAGE,
    show_default=True, metavar="FILE", help="Where to write it.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace FILE where it is something else.")
@click.option("--json", "as_json", is_flag=True, help="Print what was built as JSON.")
def build(target: Path, force: bool, as_json: bool) -> None:
    """Build the firmware and compare it with the pinned SHA-256.

    A few minutes the first time; then it is kept, until something in ovmf/ or the compiler's lock changes.
    Ends with 4, and writes nothing, if the result is not what is pinned.
    """
    with progress() as shown:
        shown.step("Building the firmware")
        built = firmware.build(places.REPOSITORY, lambda: _kit(shown), shown.note)
    firmware.require_pinned(built.sha256, places.REPOSITORY)
    if not target.exists() or compare.first_byte(built.path, target) is not None:
        output.write_whole(target, built.path.read_bytes(), force=force)
    if as_json:
        click.echo(json.dumps({"file": str(target), **_fields(built)}, indent=2))
    else:
        click.echo(f"{built.sha256}  {target}")


@command.command()
@click.option("--json", "as_json", is_flag=True, help="Print both builds and the metadata as JSON.")
def check(as_json: bool) -> None:
    """Build the firmware twice under different conditions and compare.

    Path, jobs, umask, locale and time differ. Ends with 4 at the first byte that differs, or if the
    firmware is not the pinned one, and with 5 if an SNP guest could not be measured with it.
    """
    builds: list[Built] = []
    with progress() as shown:
        shown.step("Fetching what the build needs")
        kit = _kit(shown)
        shown.step("Build 1 of 2")
        both = (firmware.usual(), firmware_check.OTHER)
        for built in firmware_check.twice(places.REPOSITORY, kit, shown.note, both):
            builds.append(built)
            shown.step("Build 2 of 2" if len(builds) == 1 else "Comparing")
            if len(builds) == 2:
                firmware_check.require_equal(*builds)
                metadata = firmware_check.require_measurable(built.path.read_bytes())
    firmware.require_pinned(builds[0].sha256, places.REPOSITORY)
    if as_json:
        record = {"builds": [_fields(one) for one in builds], "metadata": _metadata(metadata)}
        click.echo(json.dumps(record, indent=2))
        return
    for conditions, one in zip(both, builds, strict=True):
        click.echo(
            f"{one.sha256}  {one.seconds:.0f} s, {one.cpu_seconds:.0f} s of CPU, "
            f"{conditions.jobs} jobs, umask {conditions.umask:03o}"
        )
    for section in metadata.sections:
        click.echo(f"{section.gpa:#10x} {section.size:#8x}  {ovmf.KINDS.get(section.kind, section.kind)}")
    click.echo("two builds, the pinned bytes, and room for the kernel hashes")


def _kit(shown: Progress) -> prepare.FirmwareKit:
    return prepare.firmware_kit(shown.note, shown.count)


def _fields(built: Built) -> dict[str, object]:
    return {"sha256": built.sha256, "seconds": built.seconds, "cpu_seconds": built.cpu_seconds}


def _metadata(found: ovmf.Firmware) -> dict[str, object]:
    return {
        "size": found.size,
        "reset_eip": found.reset_eip,
        "hash_table": found.hash_table,
        "sections": [section._asdict() for section in found.sections],
    }
