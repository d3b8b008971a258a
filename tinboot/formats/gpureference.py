"""Reference values of GPUs: what measurements may be, of each driver and VBIOS that was pinned.

`tinboot gpu pin` writes them from NVIDIA's RIMs, whose signatures it verified; nothing later reads a RIM to
learn one. Compact JSON, members and entries sorted, so that equal values are equal bytes:

    {"created":"2026-11-25T00:00:00Z","format":1,"rims":[
     {"id":"NV_GPU_DRIVER_GH100_550.90.07","kind":"driver","measurements":{"7":["<96 hex>"],...},
      "not_after":"...","origin":"...","product":"GH100","root":"<64 hex>","sha256":"<64 hex>",
      "signer":"...","version":"550.90.07"}]}
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Literal, NamedTuple, cast

from tinboot.formats import gpureport
from tinboot.formats.errors import Malformed, Refused
from tinboot.formats.jsonfields import Fields, parse_object

MAX_SIZE = 1 << 20
MAX_RIMS = 256
MAX_ALTERNATIVES = 32

FORMAT = 1

Kind = Literal["driver", "vbios"]

_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_ID = re.compile(r"NV_GPU_[A-Za-z0-9._-]{1,100}")


class Rim(NamedTuple):
    """What one RIM says. `measurements`: index -> the digests it may have, 48 bytes in hex each.

    `sha256`: of the file that was verified, `origin` where it came from; `root`: SHA-256 of its root's DER,
    `signer` the leaf's name; `not_after`: when the first certificate under the root ends, in UTC.
    """

    id: str
    kind: Kind
    version: str
    product: str
    sha256: str
    origin: str
    root: str
    signer: str
    not_after: datetime
    measurements: dict[int, tuple[str, ...]]


class ReferenceValues(NamedTuple):
    """`created`, in UTC: no machine that is to use them has an earlier time. `rims`: no two of an id."""

    created: datetime
    rims: tuple[Rim, ...]

    def rim(self, identifier: str) -> Rim | None:
        return next((rim for rim in self.rims if rim.id == identifier), None)


def parse(data: bytes) -> ReferenceValues:
    """Raises `Malformed` with the member's path."""
    top = parse_object("reference values", data, MAX_SIZE)
    top.integer("format", FORMAT, FORMAT)
    created = _time(top, "created")
    rims = tuple(_rim(entry) for entry in top.records("rims"))
    top.end()
    if not 0 < len(rims) <= MAX_RIMS:
        raise Malformed(f"reference values of {len(rims)} RIMs, expected 1 to {MAX_RIMS}")
    identifiers = [rim.id for rim in rims]
    if len(set(identifiers)) != len(identifiers):
        raise Malformed("reference values with two RIMs of one id")
    return ReferenceValues(created, rims)


def render(values: ReferenceValues) -> bytes:
    """The inverse of `parse`, always the same bytes."""
    rims = [_fields(rim) for rim in sorted(values.rims, key=lambda rim: rim.id)]
    fields = {"created": _text(values.created), "format": FORMAT, "rims": rims}
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def merge(*parts: ReferenceValues) -> ReferenceValues:
    """All of them, of the time of the newest. Raises `Refused` where two say different things of one id."""
    rims: dict[str, Rim] = {}
    for rim in (rim for part in parts for rim in part.rims):
        if rims.setdefault(rim.id, rim).measurements != rim.measurements:
            raise Refused(f"two RIMs of {rim.id}, with different measurements")
    return ReferenceValues(max(part.created for part in parts), tuple(rims[i] for i in sorted(rims)))


def _rim(entry: Fields) -> Rim:
    identifier = entry.text("id")
    if not _ID.fullmatch(identifier):
        raise Malformed(f"{entry.where}.id is {identifier!r}, which is not the id of a GPU's RIM")
    kind = entry.text("kind")
    if kind not in {"driver", "vbios"}:
        raise Malformed(f"{entry.where}.kind is {kind!r}, expected driver or vbios")
    found = Rim(
        identifier,
        cast("Kind", kind),
        entry.text("version", 80),
        entry.text("product", 80),
        entry.hexadecimal("sha256", 64),
        entry.text("origin", 1024),
        entry.hexadecimal("root", 64),
        entry.text("signer"),
        _time(entry, "not_after"),
        _measurements(entry.record("measurements")),
    )
    entry.end()
    return found


def _measurements(entry: Fields) -> dict[int, tuple[str, ...]]:
    found: dict[int, tuple[str, ...]] = {}
    for name in entry.names:
        if not re.fullmatch("0|[1-9][0-9]?", name) or int(name) >= gpureport.BLOCKS:
            raise Malformed(f"{entry.where} has the index {name!r}, expected 0 to {gpureport.BLOCKS - 1}")
        digests = entry.texts(name)
        if not 0 < len(digests) <= MAX_ALTERNATIVES:
            raise Malformed(f"{entry.where}.{name} has {len(digests)} digests")
        for digest in digests:
            if not re.fullmatch("[0-9a-f]{96}", digest):
                raise Malformed(
                    f"{entry.where}.{name} has {digest[:100]!r}, expected 96 lower-case hex digits"
                )
        found[int(name)] = digests
    if not found:
        raise Malformed(f"{entry.where} is empty: a RIM that says nothing")
    return found


def _time(entry: Fields, name: str) -> datetime:
    text = entry.text(name)
    if not _TIME.fullmatch(text):
        raise Malformed(f"{entry.where}.{name} is {text!r}, expected a time as 2026-11-25T00:00:00Z")
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise Malformed(f"{entry.where}.{name} is {text!r}, there is no such time") from None


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _fields(rim: Rim) -> dict[str, object]:
    """Members in order; indexes in the order of numbers."""
    fields = rim._asdict()
    fields["not_after"] = _text(rim.not_after)
    fields["measurements"] = {str(index): rim.measurements[index] for index in sorted(rim.measurements)}
    return dict(sorted(fields.items()))
