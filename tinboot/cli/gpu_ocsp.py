"""`tinboot gpu ocsp`: OCSP responses become the disk that the guest's GPU gate reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from tinboot.builder import output
from tinboot.formats import ocspdisk
from tinboot.formats.errors import Malformed, TinbootError
from tinboot.verify import gpu_ocsp

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("ocsp")
@click.argument("responses", type=_FILE, nargs=-1, required=True)
@click.option("-o", "--output", "target", type=_FILE, required=True, metavar="DISK", help="The disk to make.")
@click.option("--force", is_flag=True, help="Replace DISK where it is there.")
def command(responses: Sequence[Path], target: Path, force: bool) -> None:
    """Lay RESPONSES, DER of NVIDIA's OCSP responder, on a disk for `tinboot launch --gpu-ocsp`.

    One about each GPU's certificates but the leaf and the root. They have to be readable; whether they hold
    is for the guest to say, which knows its GPUs and the time.
    """
    disk = ocspdisk.pack([_read(path) for path in responses])
    if target.exists() and not force:
        raise output.exists_already(target)
    with output.scratch(target) as scratch:
        made = scratch / "disk"
        try:
            made.write_bytes(disk)
            made.chmod(0o644)
            output.sync(made)
            made.replace(target)
        except OSError as error:
            raise output.unavailable(error, target) from error
    click.echo(f"{target}: {len(responses)} responses, {len(disk)} bytes", err=True)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(gpu_ocsp.MAX_SIZE + 1)
        gpu_ocsp.read(data)
    except OSError as error:
        raise output.unavailable(error, path) from error
    except TinbootError as error:
        raise type(error)(f"{path}: {error.message}", error.hint) from error
    if not data.startswith(b"\x30\x82"):
        raise Malformed(f"{path}: a response of less than 256 bytes")
    return data
