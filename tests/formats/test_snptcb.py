"""Product lines and TCB versions, compared part by part."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinboot.formats.errors import Malformed, Refused
from tinboot.formats.snpreport import Cpuid
from tinboot.formats.snptcb import (
    GENOA,
    LINES,
    MILAN,
    TURIN,
    Line,
    Tcb,
    decode,
    encode,
    line_named,
    product_of,
)


@pytest.mark.parametrize(
    ("line", "raw", "tcb"),
    [
        (MILAN, "04000000000018db", Tcb(4, 0, 0x18, 0xDB, None)),
        (GENOA, "0a00000000001754", Tcb(10, 0, 0x17, 0x54, None)),
        (TURIN, "0101010200000048", Tcb(1, 1, 2, 0x48, 1)),
        (TURIN, "0102030400000005", Tcb(bl=2, tee=3, snp=4, ucode=5, fmc=1)),
    ],
)
def test_layouts(line: Line, raw: str, tcb: Tcb) -> None:
    assert decode(line, bytes.fromhex(raw)) == tcb
    assert encode(line, tcb).hex() == raw


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(LINES), st.binary(min_size=8, max_size=8))
def test_what_is_not_reserved_comes_back(line: Line, raw: bytes) -> None:
    kept = bytes(0 if at in line.reserved else byte for at, byte in enumerate(raw))
    assert encode(line, decode(line, raw)) == kept


def test_reserved_bytes() -> None:
    assert MILAN.reserved == GENOA.reserved == (2, 3, 4, 5)
    assert TURIN.reserved == (4, 5, 6)


@pytest.mark.parametrize("size", [0, 7, 9])
def test_another_length(size: int) -> None:
    with pytest.raises(Malformed, match=f"has {size} bytes, expected 8"):
        decode(MILAN, bytes(size))


@pytest.mark.parametrize(
    ("line", "tcb"),
    [(MILAN, Tcb(1, 1, 1, 1, 1)), (TURIN, Tcb(1, 1, 1, 1, None)), (MILAN, Tcb(256, 0, 0, 0, None))],
)
def test_what_a_line_cannot_hold(line: Line, tcb: Tcb) -> None:
    with pytest.raises(ValueError, match=r"fmc is|byte must be"):
        encode(line, tcb)


def test_versions_are_compared_part_by_part() -> None:
    """As one number the first would be far above the second, as microcode is the highest byte."""
    new_microcode, floor = Tcb(3, 0, 0x17, 0xFF, None), Tcb(4, 0, 0x18, 0xDB, None)
    assert new_microcode.below(floor) == ("bl", "snp")
    assert floor.below(new_microcode) == ("ucode",)
    assert floor.below(floor) == ()
    assert Tcb(1, 1, 1, 1, 0).below(Tcb(1, 1, 1, 1, 1)) == ("fmc",)


@pytest.mark.parametrize(
    ("family", "model", "line"),
    [
        *((0x19, model, MILAN) for model in (0x00, 0x01, 0x0F)),
        *((0x19, model, GENOA) for model in (0x10, 0x11, 0x1F, 0xA0, 0xAF)),
        *((0x1A, model, TURIN) for model in (0x00, 0x02, 0x11)),
    ],
)
def test_lines_of_cpus(family: int, model: int, line: Line) -> None:
    assert product_of(Cpuid(family, model, 1)) is line


@pytest.mark.parametrize(
    ("family", "model"),
    [(0x17, 0x31), (0x18, 0), (0x19, 0x20), (0x19, 0x9F), (0x19, 0xB0), (0x1A, 0x12), (0x1B, 0)],
)
def test_unknown_cpus(family: int, model: int) -> None:
    with pytest.raises(Refused, match="no known product line"):
        product_of(Cpuid(family, model, 0))


@pytest.mark.parametrize("model", [0x50, 0x57, 0x90, 0xAF, 0xC0, 0xC7])
def test_a_line_whose_root_is_not_known(model: int) -> None:
    with pytest.raises(Refused, match="of the Venice line"):
        product_of(Cpuid(0x1A, model, 0))


def test_names() -> None:
    assert [line_named(line.name) for line in LINES] == list(LINES)
    with pytest.raises(Refused, match="'milan', expected one of Milan, Genoa, Turin"):
        line_named("milan")
    assert str(Tcb(1, 2, 3, 4, None)) == "bl=1 tee=2 snp=3 ucode=4"
    assert TURIN.components == ("bl", "tee", "snp", "ucode", "fmc")
