"""What a report states: each check refuses what is its own, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from fake_gpus import CREATED, GOOD, appraise, evidence, failed, reference, rim
from fake_nvidia import NONCE
from hypothesis import given, settings
from hypothesis import strategies as st
from stub_gpu_report import ACTIVE, ALTERNATIVES, EMPTY, OFF, ON, Contents, Field, references

from tinboot.formats import gpuopaque
from tinboot.formats.errors import Malformed, Mismatch, Refused, TinbootError, Unavailable
from tinboot.formats.gpureference import ReferenceValues, Rim
from tinboot.verify.checks import Unchecked
from tinboot.verify.gpu_appraisal import Appraisals
from tinboot.verify.gpu_platform import CHECKS, HOPPER, Versions

WRONG = bytes.fromhex("5a" * 48)
COVERED = (*ACTIVE["driver"], *ACTIVE["vbios"])
DRIVER, VBIOS = rim("driver"), rim("vbios")
NVMLS = Versions("550.90.07", "96.00.9f.00.01")


def of(contents: Contents, **rest: Any) -> Appraisals:
    return appraise([evidence(contents)], **rest)


def by(*rims: Rim, **rest: Any) -> Appraisals:
    return of(GOOD, values=ReferenceValues(CREATED, rims), **rest)


def without(found: Rim, *indexes: int) -> Rim:
    kept = {index: allowed for index, allowed in found.measurements.items() if index not in indexes}
    return found._replace(measurements=kept)


def also(found: Rim, index: int, value: bytes = bytes(48)) -> Rim:
    return found._replace(measurements={**found.measurements, index: (value.hex(),)})


def lacking(kind: int) -> Contents:
    """Without that opaque field."""
    return GOOD._replace(opaque=tuple(field for field in GOOD.fields() if field.type != kind))


def test_good_with_and_without_nvml() -> None:
    of(GOOD).accept()
    of(GOOD, versions=[NVMLS]).accept()
    stated = evidence()._replace(driver_version=NVMLS.driver, vbios_version=NVMLS.vbios.lower())
    appraise([stated]).accept()


Case = tuple[str, str, Callable[[], Appraisals], type[TinbootError], str]


def broken() -> Iterator[Case]:
    replayed = partial(of, GOOD._replace(nonce=bytes(32)))
    yield "nonce", "replayed", replayed, Refused, f"nonce is {'00' * 32}, expected {NONCE.hex()}"
    relabelled = partial(appraise, [evidence(GOOD._replace(nonce=bytes(32)))._replace(nonce=NONCE)])
    yield (
        "nonce",
        "relabelled",
        relabelled,
        Mismatch,
        f"nonce is {'00' * 32}, the evidence says {NONCE.hex()}",
    )

    check = "driver-version"
    unknown = partial(by, VBIOS)
    yield (
        check,
        "unknown",
        unknown,
        Unavailable,
        "no reference values for driver 550.90.07: NV_GPU_DRIVER_GH100_",
    )
    nvml = partial(of, GOOD, versions=[NVMLS._replace(driver="550.90.08")])
    yield check, "NVML's", nvml, Refused, "the report is of driver 550.90.07, NVML says '550.90.08'"
    collected = partial(appraise, [evidence()._replace(driver_version="550.90.08")])
    yield check, "collector's", collected, Refused, "driver 550.90.07, the evidence says '550.90.08'"
    yield (
        check,
        "RIM's",
        lambda: by(DRIVER._replace(version="550.90"), VBIOS),
        Mismatch,
        "is of version 550.90, the",
    )
    swapped = partial(by, DRIVER._replace(kind="vbios"), VBIOS)
    yield check, "of a VBIOS", swapped, Mismatch, "are of a vbios, expected a driver"
    absent = partial(of, lacking(gpuopaque.DRIVER_VERSION))
    yield check, "not stated", absent, Malformed, "does not state its driver version"

    check = "vbios-version"
    unknown = partial(by, DRIVER)
    yield (
        check,
        "unknown",
        unknown,
        Unavailable,
        "no reference values for VBIOS 96.00.9F.00.01: NV_GPU_VBIOS_G520_",
    )
    nvml = partial(of, GOOD, versions=[NVMLS._replace(vbios="96.00.9F.00.02")])
    yield check, "NVML's", nvml, Refused, "the report is of VBIOS 96.00.9F.00.01, NVML says '96.00.9F.00.02'"
    collected = partial(appraise, [evidence()._replace(vbios_version="96.00.9F.00.02")])
    yield check, "collector's", collected, Refused, "VBIOS 96.00.9F.00.01, the evidence says '96.00.9F.00.02'"
    yield (
        check,
        "RIM's",
        lambda: by(DRIVER, VBIOS._replace(version="96.00")),
        Mismatch,
        "is of version 96.00, the",
    )
    board = partial(of, GOOD._replace(project="G999"))
    yield check, "another board", board, Unavailable, "NV_GPU_VBIOS_G999_0200_885_96009F0001 is not among"
    for kind, word in (
        (gpuopaque.VBIOS_VERSION, "VBIOS version"),
        (gpuopaque.PROJECT, "project"),
        (gpuopaque.PROJECT_SKU, "project SKU"),
        (gpuopaque.CHIP_SKU, "chip SKU"),
    ):
        yield check, f"no {word}", partial(of, lacking(kind)), Malformed, f"not state its {word}"

    check = "reference-values"
    for found in (DRIVER, VBIOS):
        for index in sorted(found.measurements):
            if index in EMPTY:  # else it is uncovered, too
                made = [without(r, index) if r is found else r for r in (DRIVER, VBIOS)]
                yield (
                    check,
                    f"without {index}",
                    partial(by, *made),
                    Refused,
                    f"nothing of {index}, which NVIDIA",
                )
    both = partial(by, also(DRIVER, 0), VBIOS)
    yield check, "index twice", both, Mismatch, "both have the index 0"

    for index in COVERED:
        wrong = partial(of, GOOD._replace(altered={index: WRONG}))
        yield (
            "measurements",
            str(index),
            wrong,
            Refused,
            f"1 measurements differ .*, index {index}; .* is 5a5a",
        )
    off = partial(of, GOOD._replace(altered={35: WRONG}, nvdec0=OFF))
    yield "measurements", "35 while NVDEC0 is off", off, Refused, "index 35"

    for index in sorted(set(range(64)) - set(COVERED)):
        wrong = partial(of, GOOD._replace(altered={index: WRONG}))
        yield "uncovered", str(index), wrong, Refused, f"the measurement {index} is 5a5a"

    yield (
        "single-gpu",
        "PPCIE",
        lambda: of(GOOD._replace(protected_pcie=ON)),
        Refused,
        "in protected PCIe mode",
    )
    for flag, word in ((1, "multi-GPU"), (2, "protected PCIe"), (3, r"an unknown \(3\)")):
        field = Field(gpuopaque.FEATURE_FLAG, flag.to_bytes(2, "little"))
        make = partial(of, GOOD._replace(extra=(field,)))
        yield "single-gpu", f"flag {flag}", make, Refused, f"is in {word} mode, which is not supported"
    switch = Field(gpuopaque.SWITCH_PDI, bytes(7) + b"\1")
    yield "single-gpu", "switches", lambda: of(GOOD._replace(extra=(switch,))), Refused, "names NVSwitches"


CASES = tuple(broken())


@pytest.mark.parametrize(
    ("check", "what", "make", "error", "message"), CASES, ids=[f"{c[0]}: {c[1]}" for c in CASES]
)
def test_each_check_refuses_its_own(
    check: str, what: str, make: Callable[[], Appraisals], error: type[TinbootError], message: str
) -> None:
    result = make()
    assert failed(result) == [(0, check)]
    decisive = result.decisive
    assert decisive is not None
    assert type(decisive.outcome) is error
    with pytest.raises(error, match=message):
        result.accept()


def test_every_check_has_a_case() -> None:
    assert {case[0] for case in CASES} == {check.id for check in CHECKS}


def test_what_nobody_can_compare_is_not_called_good() -> None:
    result = by(DRIVER)
    states = {v.id: v.outcome for v in result.gpus[0].verdicts}
    for name in ("reference-values", "measurements", "uncovered"):
        assert states[name] == Unchecked("there are no reference values to compare with")


def test_nobody_asked_for_a_nonce() -> None:
    result = of(GOOD._replace(nonce=bytes(32)), nonce=Unchecked("why not"))
    result.accept()
    assert {v.outcome for v in result.gpus[0].verdicts if v.id == "nonce"} == {Unchecked("why not")}


def test_a_rim_that_says_too_little_is_none() -> None:
    for found in (DRIVER, VBIOS):
        few = without(found, *sorted(found.measurements)[1:])
        result = by(*(few if r is found else r for r in (DRIVER, VBIOS)))
        assert (0, "reference-values") in failed(result)


def test_of_blackwell_the_number_counts() -> None:
    contents = Contents("BLACKWELL", nonce=NONCE)
    driver, vbios = rim("driver", contents), rim("vbios", contents)
    other, few = without(driver, 23), without(driver, 23, 24)  # zero here, so that nothing is uncovered
    wrong: list[tuple[int, str]]
    for rims, wrong in (
        ((driver, vbios), []),
        ((other, vbios), []),
        ((few, vbios), [(0, "reference-values")]),
    ):
        values = ReferenceValues(CREATED, rims)
        assert failed(of(contents, values=values, architecture="BLACKWELL")) == wrong


def test_the_least_of_hopper_is_what_genuine_rims_have() -> None:
    assert sum(map(len, HOPPER.values())) == 33
    assert {kind: frozenset(active) for kind, active in ACTIVE.items()} == HOPPER


def test_a_driver_may_measure_more() -> None:
    values = ReferenceValues(CREATED, (also(DRIVER, 41, WRONG), VBIOS))
    of(GOOD._replace(altered={41: WRONG}), values=values).accept()
    assert failed(of(GOOD, values=values)) == [(0, "measurements")]


@pytest.mark.parametrize("index", sorted(ALTERNATIVES))
def test_every_alternative_is_good(index: int) -> None:
    kind = "driver" if index in ACTIVE["driver"] else "vbios"
    version = GOOD.versions[kind == "vbios"]
    values = references("driver" if kind == "driver" else "vbios", version)[index]
    assert len(values) == ALTERNATIVES[index]
    for value in values:
        of(GOOD._replace(altered={index: value})).accept()


def test_nvdec0_off_alone_is_good() -> None:
    of(GOOD._replace(nvdec0=OFF)).accept()


def test_switch_identifiers_of_zero_name_none() -> None:
    of(GOOD._replace(extra=(Field(gpuopaque.SWITCH_PDI, bytes(8)),))).accept()


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(st.integers(0, 63), st.binary(min_size=48, max_size=48), min_size=1, max_size=5))
def test_measurements_are_good_if_and_only_if_each_is(altered: dict[int, bytes]) -> None:
    allowed = {**references("driver", GOOD.versions[0]), **references("vbios", GOOD.versions[1])}
    expected = all(value in allowed.get(index, (bytes(48),)) for index, value in altered.items())
    names = {name for _, name in failed(of(GOOD._replace(altered=altered), values=reference()))}
    assert (names == set()) == expected
    assert names <= {"measurements", "uncovered"}
