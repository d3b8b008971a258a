"""TCB floors and what AMD's advisories demand: a dated data file, read here.

Floors are per part of the TCB, and for microcode per CPU: Bergamo's numbers are lower than Genoa's though
they share a product line. Which numbers an AGESA or PI version has is mostly unpublished, so of an advisory
it may be that nobody can tell; then the answer says so.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import Literal, NamedTuple

from tinboot.formats.errors import Malformed
from tinboot.formats.jsonfields import Fields, parse_object
from tinboot.formats.snpreport import Cpuid, FirmwareVersion, Report
from tinboot.formats.snptcb import LINES, NAMES, Line, Tcb, decode, line_named
from tinboot.verify.policy import PLATFORM_BITS, PROFILES

SCHEMA = 1
LIMIT = 256 << 10

_LINES = {line.name for line in LINES}

Standing = Literal["fixed", "not fixed", "cannot tell"]


class Floor(NamedTuple):
    """Of a product line. `tcb`: part -> least number, microcode apart; `microcode`: CPU -> least number."""

    product: str
    tcb: dict[str, int]
    microcode: dict[Cpuid, int]
    why: str


class Fix(NamedTuple):
    """What shows an advisory fixed on a product line: all that is not None. `never`: why nothing does.

    `microcode`: CPU -> what is known to be fixed; nobody has said that what is older is not.
    """

    product: str
    firmware: FirmwareVersion | None
    snp: int | None
    platform: str | None
    microcode: dict[Cpuid, int] | None
    never: str | None


class Advisory(NamedTuple):
    id: str
    bulletin: str
    name: str
    affected: tuple[str, ...]
    fixed: tuple[Fix, ...]


class Finding(NamedTuple):
    """What is known of one advisory on this platform, and by what."""

    advisory: Advisory
    standing: Standing
    detail: str


class Data(NamedTuple):
    """`floors`: profile -> product -> floor. `date`: of the day it was last looked through."""

    date: str
    floors: dict[str, dict[str, Floor]]
    advisories: tuple[Advisory, ...]

    def microcode(self, profile: str, line: Line, cpuid: Cpuid | None) -> int | None:
        """The least microcode of a CPU, None where no number is known.

        A report of version 2 does not name the CPU: then the highest of the line counts.
        """
        return _least(self.floors[profile][line.name].microcode, cpuid)

    def standing(self, report: Report, line: Line) -> tuple[Finding, ...]:
        """Each advisory that concerns this product line."""
        return tuple(
            Finding(advisory, *self._judge(advisory, report, line))
            for advisory in self.advisories
            if line.name in advisory.affected
        )

    def _judge(self, advisory: Advisory, report: Report, line: Line) -> tuple[Standing, str]:
        fix = next((fix for fix in advisory.fixed if fix.product == line.name), None)
        if fix is None:
            return "cannot tell", "AMD publishes no number that shows it"
        if fix.never is not None:
            return "not fixed", fix.never
        return self._met(fix, report, line, decode(line, report.reported_tcb))

    def _met(self, fix: Fix, report: Report, line: Line, tcb: Tcb) -> tuple[Standing, str]:
        met = []
        if fix.firmware is not None:
            if report.current_version < fix.firmware:
                return "not fixed", f"SNP firmware {report.current_version}, fixed in {fix.firmware}"
            met.append(f"SNP firmware {report.current_version}")
        if fix.snp is not None:
            if tcb.snp < fix.snp:
                return "not fixed", f"snp={tcb.snp}, fixed in {fix.snp}"
            met.append(f"snp={tcb.snp}")
        if fix.platform is not None:
            if not report.platform_info >> PLATFORM_BITS[fix.platform] & 1:
                return "not fixed", f"PLATFORM_INFO lacks {fix.platform}"
            met.append(fix.platform)
        if fix.microcode is not None:
            least = _least(fix.microcode, report.cpuid)
            if least is None:
                return "cannot tell", f"no number is known for this CPU ({report.cpuid})"
            if tcb.ucode < least:
                return "cannot tell", f"ucode={tcb.ucode}, known to be fixed in {least}"
            met.append(f"ucode={tcb.ucode}")
        return "fixed", ", ".join(met)


def _least(known: dict[Cpuid, int], cpuid: Cpuid | None) -> int | None:
    if cpuid is None:
        return max(known.values(), default=None)
    return known.get(cpuid)


@cache
def shipped() -> Data:
    """The data file of this version."""
    return load(resources.files("tinboot.verify.data").joinpath("advisories.json").read_bytes())


def load(data: bytes) -> Data:
    """Raises `Malformed` with the member's path."""
    fields = parse_object("advisories", data, LIMIT)
    fields.integer("schema", SCHEMA, SCHEMA)
    date = fields.text("date")
    profiles = fields.record("floors")
    floors = {name: _floors(profiles.records(name)) for name in profiles.names}
    if set(floors) != set(PROFILES) or any(set(found) != _LINES for found in floors.values()):
        raise Malformed(f"{fields.where}.floors lacks a profile or a product, or has one too many")
    advisories = tuple(_advisory(record) for record in fields.records("advisories"))
    fields.end()
    return Data(date, floors, advisories)


def _floors(records: list[Fields]) -> dict[str, Floor]:
    found: dict[str, Floor] = {}
    for record in records:
        line = line_named(record.text("product"))
        if line.name in found:
            raise Malformed(f"{record.where} names {line.name} for the second time")
        tcb = record.record("tcb")
        wanted = [name for name in NAMES if name != "ucode" and name in line.components]
        numbers = {name: tcb.integer(name, 0, 255) for name in wanted}
        tcb.end()
        found[line.name] = Floor(line.name, numbers, _microcode(record), record.text("why"))
        record.end()
    return found


def _microcode(record: Fields) -> dict[Cpuid, int]:
    microcode: dict[Cpuid, int] = {}
    for entry in record.records("microcode"):
        cpuid = Cpuid(*(entry.integer(name, 0, 511) for name in Cpuid._fields))
        if cpuid in microcode:
            raise Malformed(f"{entry.where} names a CPU for the second time: {cpuid}")
        microcode[cpuid] = entry.integer("ucode", 0, 255)
        entry.end()
    return microcode


def _advisory(record: Fields) -> Advisory:
    advisory = Advisory(
        record.text("id"),
        record.text("bulletin"),
        record.text("name"),
        record.texts("affected"),
        tuple(_fix(fix) for fix in record.records("fixed")),
    )
    record.end()
    return advisory


def _fix(record: Fields) -> Fix:
    names = set(record.names)
    fix = Fix(
        line_named(record.text("product")).name,
        _version(record) if "firmware" in names else None,
        record.integer("snp", 0, 255) if "snp" in names else None,
        record.text("platform") if "platform" in names else None,
        _microcode(record) if "microcode" in names else None,
        record.text("never") if "never" in names else None,
    )
    record.end()
    if fix.platform not in (None, *PLATFORM_BITS):
        raise Malformed(f"{record.where} names the bit {fix.platform!r}, which there is not")
    if not any(part is not None for part in fix[1:]):
        raise Malformed(f"{record.where} says nothing of what shows it fixed")
    return fix


def _version(record: Fields) -> FirmwareVersion:
    text = record.text("firmware")
    match = re.fullmatch(r"([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})", text)
    if match is None:
        raise Malformed(f"{record.where}.firmware is {text!r}, expected a version like 1.55.22")
    return FirmwareVersion(*map(int, match.groups()))
