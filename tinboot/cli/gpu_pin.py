"""`tinboot gpu pin`: NVIDIA's RIMs, verified, become the reference values that a build takes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from tinboot.builder import gpu_pin, rim_chain, rim_id, rim_service
from tinboot.builder.gpu_pin import Pinned, Source
from tinboot.cli import parameters
from tinboot.formats.errors import Malformed

_TIME = "%Y-%m-%dT%H:%M:%SZ"


def _moment(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    return None if value is None else parameters.moment(ctx, param, value)


def _drivers(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_id(value if value.startswith("NV_GPU_") else rim_id.driver(value)) for value in values)


def _vbioses(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_id(value) for value in values)


def _id(value: str) -> str:
    if not rim_id.is_id(value):
        raise click.BadParameter(f"{value!r} is not as 550.90.07 or NV_GPU_VBIOS_1010_0200_882_96009F0001")
    return value


@click.command("pin")
@click.argument("rims", metavar="[RIM]...", nargs=-1)
@click.option(
    "--driver",
    "drivers",
    multiple=True,
    metavar="VERSION",
    callback=_drivers,
    help="Fetch this driver's RIM.",
)
@click.option(
    "--vbios", "vbioses", multiple=True, metavar="ID", callback=_vbioses, help="Fetch this VBIOS's RIM."
)
@click.option(
    "--rim-service", default=rim_service.NVIDIA, show_default=True, metavar="URL", help="From where."
)
@click.option(
    "-o", "--output", "folder", type=click.Path(path_type=Path), required=True, metavar="DIR", help="To make."
)
@click.option(
    "--at", metavar="TIME", callback=_moment, help="When the RIMs must be valid, RFC 3339. Default: now."
)
@click.option(
    "--trust-root",
    type=parameters.FILE,
    metavar="CERT",
    help="TESTS ONLY: trust this root of RIMs, too.",
)
@click.option("--force", is_flag=True, help="Replace a DIR that was made before.")
@click.option("--json", "as_json", is_flag=True, help="Print what was pinned as JSON.")
def command(
    rims: tuple[str, ...],
    drivers: tuple[str, ...],
    vbioses: tuple[str, ...],
    rim_service: str,
    folder: Path,
    at: datetime | None,
    trust_root: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Verify NVIDIA's RIMs and write them to DIR as reference values, for `tinboot build`.

    RIM is a file, or ID=FILE where its name does not say which it is. The driver's VERSION is Hopper's; give
    the whole ID for another, as NV_GPU_CC_DRIVER_GB100_595.71.05. What does not verify ends it: DIR is made
    of all or not at all.

    Exit codes: 3 malformed, 4 signature, chain or dates, 5 not usable, 6 cannot be fetched.
    """
    if not (rims or drivers or vbioses):
        raise click.UsageError("give a RIM, --driver or --vbios")
    gpu_pin.check_output(folder, force=force)
    trusted = [rim_chain.NVIDIA]
    if trust_root is not None:
        trusted.append(_root(trust_root))
    sources = [gpu_pin.from_file(argument) for argument in rims]
    sources += [_fetched(identifier, rim_service) for identifier in (*drivers, *vbioses)]
    pinned = gpu_pin.pin(sources, at or datetime.now(UTC), trusted)
    gpu_pin.write(pinned, folder, force=force)
    if as_json:
        click.echo(json.dumps(_fields(pinned, folder), indent=2))
    else:
        _show(pinned, folder)


def _root(path: Path) -> str:
    try:
        fingerprint, name = rim_chain.fingerprint(parameters.read(path))
    except Malformed as error:
        raise Malformed(f"{path}: {error.message}", error.hint) from error
    if fingerprint != rim_chain.NVIDIA:
        click.echo(f"WARNING: trusting the root {name!r} of {path}, which is not NVIDIA's", err=True)
    return fingerprint


def _fetched(identifier: str, service: str) -> Source:
    address = rim_service.address(identifier, service)
    return Source(identifier, address, rim_service.fetch(identifier, service))


def _show(pinned: Pinned, folder: Path) -> None:
    """Each RIM within 80 columns, and what to think of next."""
    for rim in pinned.values.rims:
        ends = rim.not_after.strftime(_TIME)
        click.echo(f"{rim.id}\n  {len(rim.measurements)} measurements, by {rim.signer}, until {ends}")
        click.echo(f"  sha256 {rim.sha256}")
    first = min(rim.not_after for rim in pinned.values.rims)
    count, created = len(pinned.values.rims), pinned.values.created.strftime(_TIME)
    click.echo(
        f"{folder}: {count} RIM{'s' * (count > 1)}, for clocks from {created} on\n"
        f"native takes them for ever, nv-local-gpu-verifier until {first.strftime(_TIME)}"
    )
    if any(rim.root != rim_chain.NVIDIA for rim in pinned.values.rims):
        click.echo("by a TEST ROOT: nothing of this says what NVIDIA's GPUs measure")
    for kind in ("driver", "vbios"):
        if not any(rim.kind == kind for rim in pinned.values.rims):
            click.echo(f"note: no RIM of a {kind}: every GPU needs one of each", err=True)


def _fields(pinned: Pinned, folder: Path) -> dict[str, object]:
    return {
        "output": str(folder),
        "created": pinned.values.created.strftime(_TIME),
        "rims": [
            {
                "id": rim.id,
                "kind": rim.kind,
                "version": rim.version,
                "product": rim.product,
                "entries": len(rim.measurements),
                "not_after": rim.not_after.strftime(_TIME),
                "signer": rim.signer,
                "root": rim.root,
                "nvidia": rim.root == rim_chain.NVIDIA,
                "sha256": rim.sha256,
                "origin": rim.origin,
            }
            for rim in pinned.values.rims
        ],
    }
