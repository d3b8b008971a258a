"""What commands that appraise evidence take: bytes in hex, a time, files of a bounded size."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from tinboot.formats.errors import Unavailable

LIMIT = 1 << 20  # bytes of any input; each format has a smaller limit of its own

FILE = click.Path(path_type=Path, dir_okay=False)
FILE_OR_STDIN = click.Path(path_type=Path, allow_dash=True, dir_okay=False)


class Hex(click.ParamType[bytes]):
    """`size` bytes, in hex digits of either case."""

    name = "hex"

    def __init__(self, size: int) -> None:
        self.size = size

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        if isinstance(value, bytes):
            return value
        if not re.fullmatch(f"[0-9a-fA-F]{{{2 * self.size}}}", str(value)):
            self.fail(f"{self.size} bytes in hex expected, {2 * self.size} digits", param, ctx)
        return bytes.fromhex(str(value))


def moment(_ctx: click.Context, _param: click.Parameter, value: str | None) -> datetime:
    """A callback: RFC 3339, with its zone; now where nothing is given."""
    if value is None:
        return datetime.now(UTC)
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no time like 2026-11-25T12:00:00Z") from None
    if found.tzinfo is None:
        raise click.BadParameter(f"{value!r} has no time zone: add Z or +01:00")
    return found


def read(path: Path, limit: int = LIMIT) -> bytes:
    """At most one byte more than `limit`, so that what is too long is refused by its format. `-`: stdin."""
    if str(path) == "-":
        return sys.stdin.buffer.read(limit + 1)
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error
