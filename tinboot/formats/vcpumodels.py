"""QEMU's named EPYC models and the CPUID signature that each puts into RDX at reset, which is measured.

Source: QEMU 11.1, target/i386/cpu.c, builtin_x86_defs; versions of a model share its signature. A model
that follows the host's CPU ("host", "max") has no digest that anyone could publish, so none is here.
"""

from __future__ import annotations


def signature(family: int, model: int, stepping: int) -> int:
    """CPUID Fn0000_0001_EAX (AMD 25481, CPUID Specification 2.34). Raises ValueError out of its fields.

    A family up to 15 is one nibble; above, that nibble is 15 and the rest stands in the extended family.
    """
    if not (0 <= family <= 0x0F + 0xFF and 0 <= model <= 0xFF and 0 <= stepping <= 0x0F):
        raise ValueError(f"no CPU has family {family}, model {model}, stepping {stepping}")
    base, extended = min(family, 0x0F), max(family - 0x0F, 0)
    return extended << 20 | model >> 4 << 16 | base << 8 | (model & 0x0F) << 4 | stepping


def _versions(name: str, count: int, value: int) -> dict[str, int]:
    return dict.fromkeys((name, *(f"{name}-v{version}" for version in range(1, count + 1))), value)


#: Model -> signature.
SIGNATURES = {
    **_versions("EPYC", 5, signature(23, 1, 2)),
    "EPYC-IBPB": signature(23, 1, 2),
    **_versions("EPYC-Rome", 5, signature(23, 49, 0)),
    **_versions("EPYC-Milan", 4, signature(25, 1, 1)),
    **_versions("EPYC-Genoa", 3, signature(25, 17, 0)),
    **_versions("EPYC-Turin", 2, signature(26, 0, 0)),
}

#: Processors as `-cpu host` shows them, under which nobody should launch: for `measure --explain` alone.
#: Steppings as reports and AMD's revision guides of the families name them.
PROCESSORS = {
    "Milan-X": signature(25, 1, 2),
    "Genoa": signature(25, 17, 1),
    "Genoa-X": signature(25, 17, 2),
    "Bergamo or Siena": signature(25, 160, 2),
    "Turin": signature(26, 2, 1),
    "Turin Dense": signature(26, 17, 0),
}
