"""Product lines of EPYC with SNP: which CPUs they are, and how each lays out its TCB versions.

A TCB version is eight bytes of separate security version numbers, to be compared one by one: as one number
a new part would hide an old one. AMD SEV-SNP Firmware ABI Specification (56860) 1.58, table 3 (Milan,
Genoa) and table 4 (Turin).
"""

from __future__ import annotations

from typing import NamedTuple

from tinboot.formats.errors import Refused
from tinboot.formats.snpreport import Cpuid, Report


class Product(NamedTuple):
    """A line with one root key. `parts`: byte of the TCB -> name of the part, the others reserved.

    `models`: ranges of CPUID models of `family`. `hwid`: bytes of the chip's id that the certificate has.
    """

    name: str
    family: int
    models: tuple[range, ...]
    parts: dict[int, str]
    hwid: int


_PARTS = {0: "bl", 1: "tee", 6: "snp", 7: "ucode"}
_TURIN_PARTS = {0: "fmc", 1: "bl", 2: "tee", 3: "snp", 7: "ucode"}

#: CPUID models: AMD's PPR of each family; Bergamo and Siena (A0h to AFh) are of Genoa's line.
MILAN = Product("Milan", 0x19, (range(0x10),), _PARTS, 64)
GENOA = Product("Genoa", 0x19, (range(0x10, 0x20), range(0xA0, 0xB0)), _PARTS, 64)
TURIN = Product("Turin", 0x1A, (range(0x12),), _TURIN_PARTS, 8)
PRODUCTS = {product.name: product for product in (MILAN, GENOA, TURIN)}

#: All parts that any product has.
PART_NAMES = ("fmc", "bl", "tee", "snp", "ucode")


class Tcb(NamedTuple):
    """Security version numbers, 0 to 255. `fmc` is None before Turin."""

    bl: int
    tee: int
    snp: int
    ucode: int
    fmc: int | None = None

    def parts(self) -> dict[str, int]:
        """Name -> number, of the parts that there are."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    def below(self, other: Tcb) -> tuple[str, ...]:
        """The parts in which this one is older than `other`."""
        theirs = other.parts()
        return tuple(name for name, value in self.parts().items() if name in theirs and value < theirs[name])

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.parts().items())


def decode(product: Product, raw: bytes) -> Tcb:
    """The TCB version in eight bytes of a report; reserved ones are looked at by `reserved`."""
    return Tcb(**{name: raw[at] for at, name in product.parts.items()})


def encode(product: Product, tcb: Tcb) -> bytes:
    """The inverse of `decode`."""
    raw = bytearray(8)
    for at, name in product.parts.items():
        raw[at] = tcb.parts()[name]
    return bytes(raw)


def reserved(product: Product, raw: bytes) -> int | None:
    """The first reserved byte of a TCB version that is not zero."""
    return next((at for at in range(8) if at not in product.parts and raw[at]), None)


def product_of(cpuid: Cpuid) -> Product:
    """Raises `Refused` for a CPU of no line whose root key is known."""
    for product in PRODUCTS.values():
        if cpuid.family == product.family and any(cpuid.model in models for models in product.models):
            return product
    raise Refused(
        f"family {cpuid.family:#x} model {cpuid.model:#x} is of no known product",
        f"known are {', '.join(PRODUCTS)}; a newer line needs a newer tinboot",
    )


def product_of_report(report: Report, issuer: str) -> Product:
    """The product line of a report; `issuer` decides for version 2, which does not say.

    `issuer`: the product that the certificate's issuer names. Of version 2, Turin has a chip id of 8 bytes.
    """
    if report.cpuid is not None:
        return product_of(report.cpuid)
    if any(report.chip_id) and not any(report.chip_id[TURIN.hwid :]):
        return TURIN
    if issuer not in PRODUCTS:
        raise Refused(f"the certificate is of the product {issuer!r}, which is not known")
    return PRODUCTS[issuer]
