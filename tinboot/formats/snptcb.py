"""AMD's product lines, and what the eight bytes of a TCB_VERSION mean on each.

A TCB version is a row of security version numbers. Their order in the bytes is not their rank, so they are
compared one by one and never as one integer.

TCB_VERSION: AMD SEV-SNP Firmware ABI Specification (56860) 1.58, chapter 2, one layout for family 0x19 and
one for 0x1A. Which models belong to which line: virtee/sev, src/lib.rs (Generation); models 0xA0 to 0xAF
(Bergamo, Siena) have certificates of the Genoa line, and genuine reports with them show it.
"""

from __future__ import annotations

from typing import NamedTuple

from tinboot.formats.errors import Malformed, Refused
from tinboot.formats.snpreport import Cpuid

SIZE = 8


class Line(NamedTuple):
    """A product line: one root of AMD's each. Offsets in a TCB version; `hwid`: bytes that name a chip."""

    name: str
    bl: int
    tee: int
    snp: int
    ucode: int
    fmc: int | None
    hwid: int

    @property
    def components(self) -> tuple[str, ...]:
        """Names of what a TCB version of this line holds."""
        return tuple(name for name in NAMES if getattr(self, name) is not None)

    @property
    def reserved(self) -> tuple[int, ...]:
        """Offsets of a TCB version that hold nothing and are zero."""
        used = {getattr(self, name) for name in NAMES}
        return tuple(at for at in range(SIZE) if at not in used)


#: Boot loader, TEE (PSP operating system), SNP firmware, microcode; first mutable code, from Turin on.
NAMES = ("bl", "tee", "snp", "ucode", "fmc")

MILAN = Line("Milan", bl=0, tee=1, snp=6, ucode=7, fmc=None, hwid=64)
GENOA = Line("Genoa", bl=0, tee=1, snp=6, ucode=7, fmc=None, hwid=64)
TURIN = Line("Turin", bl=1, tee=2, snp=3, ucode=7, fmc=0, hwid=8)
LINES = (MILAN, GENOA, TURIN)

_MODELS = (
    (0x19, range(0x10), MILAN),
    (0x19, range(0x10, 0x20), GENOA),
    (0x19, range(0xA0, 0xB0), GENOA),
    (0x1A, range(0x12), TURIN),
)
_VENICE = (range(0x50, 0x58), range(0x90, 0xB0), range(0xC0, 0xC8))  # of family 0x1A


class Tcb(NamedTuple):
    """The security version numbers; `fmc` is None on lines that have none."""

    bl: int
    tee: int
    snp: int
    ucode: int
    fmc: int | None

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self._asdict().items() if value is not None)

    def below(self, other: Tcb) -> tuple[str, ...]:
        """Names of the components that are lower than `other`'s, of the same line."""
        return tuple(
            name
            for name, own, its in zip(NAMES, self, other, strict=True)
            if (own if own is not None else -1) < (its if its is not None else -1)
        )


def decode(line: Line, raw: bytes) -> Tcb:
    """Raises `Malformed` for another length than 8. Reserved bytes are a check's (`Line.reserved`)."""
    if len(raw) != SIZE:
        raise Malformed(f"a TCB version has {len(raw)} bytes, expected {SIZE}")
    fmc = raw[line.fmc] if line.fmc is not None else None
    return Tcb(raw[line.bl], raw[line.tee], raw[line.snp], raw[line.ucode], fmc)


def encode(line: Line, tcb: Tcb) -> bytes:
    """The inverse of `decode`; raises ValueError for a component that the line lacks or that is no byte."""
    raw = bytearray(SIZE)
    for name, value in tcb._asdict().items():
        at = getattr(line, name)
        if (at is None) != (value is None):
            raise ValueError(f"{name} is {value} in a TCB version of {line.name}")
        if at is not None:
            raw[at] = value
    return bytes(raw)


def product_of(cpuid: Cpuid) -> Line:
    """The line that a CPU belongs to. Raises `Refused` for one that has no root here."""
    for family, models, line in _MODELS:
        if cpuid.family == family and cpuid.model in models:
            return line
    if cpuid.family == 0x1A and any(cpuid.model in models for models in _VENICE):
        raise Refused(f"a CPU of the Venice line ({cpuid}), for which AMD's root is not known here")
    raise Refused(f"a CPU of no known product line ({cpuid})")


def line_named(name: str) -> Line:
    """Raises `Refused` for a name that is none of `LINES`."""
    for line in LINES:
        if line.name == name:
            return line
    raise Refused(f"the product line {name[:40]!r}, expected one of {', '.join(x.name for x in LINES)}")
