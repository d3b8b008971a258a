"""Reference values: equal values are equal bytes, and nothing loose is taken for one."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats.errors import Malformed, Refused
from tinboot.formats.gpureference import ReferenceValues, Rim, merge, parse, render

A, B = "a" * 96, "b" * 96
RIM = Rim(
    "NV_GPU_DRIVER_GH100_550.90.07",
    "driver",
    "550.90.07",
    "GH100",
    "1" * 64,
    "driver.xml",
    "2" * 64,
    "NVIDIA Reference Value L4",
    datetime(2026, 12, 30, tzinfo=UTC),
    {21: (A,), 7: (A, B)},
)
OTHER = RIM._replace(id="NV_GPU_VBIOS_1010_0200_882_96009F0001", kind="vbios", measurements={0: (B,)})
VALUES = ReferenceValues(datetime(2026, 11, 25, 12, 30, 5, tzinfo=UTC), (RIM, OTHER))


def changed(**members: object) -> bytes:
    fields = json.loads(render(VALUES))
    fields["rims"][0] |= members
    return json.dumps(fields).encode()


def test_what_is_written_is_read() -> None:
    assert parse(render(VALUES)) == VALUES


def test_equal_values_are_equal_bytes() -> None:
    swapped = VALUES._replace(rims=(OTHER, RIM._replace(measurements={7: (A, B), 21: (A,)})))
    assert render(swapped) == render(VALUES)


def test_the_written_form_does_not_change() -> None:
    text = render(VALUES._replace(rims=(OTHER,))).decode()
    assert text == (
        '{"created":"2026-11-25T12:30:05Z","format":1,"rims":[{"id":"NV_GPU_VBIOS_1010_0200_882_96009F0001",'
        f'"kind":"vbios","measurements":{{"0":["{B}"]}},"not_after":"2026-12-30T00:00:00Z",'
        f'"origin":"driver.xml","product":"GH100","root":"{"2" * 64}","sha256":"{"1" * 64}",'
        '"signer":"NVIDIA Reference Value L4","version":"550.90.07"}]}\n'
    )


def test_one_is_found_by_its_id() -> None:
    assert VALUES.rim(RIM.id) == RIM
    assert VALUES.rim("NV_GPU_DRIVER_GH100_1") is None


def test_several_become_one_of_the_newest_time() -> None:
    later = datetime(2026, 12, 1, tzinfo=UTC)
    merged = merge(VALUES, ReferenceValues(later, (OTHER, RIM._replace(id="NV_GPU_DRIVER_GH100_570"))))
    assert merged.created == later
    assert [rim.id for rim in merged.rims] == sorted((RIM.id, "NV_GPU_DRIVER_GH100_570", OTHER.id))


def test_two_that_contradict_each_other_do_not() -> None:
    with pytest.raises(Refused, match=f"two RIMs of {RIM.id}"):
        merge(VALUES, VALUES._replace(rims=(RIM._replace(measurements={7: (B,)}),)))


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"id": "driver"}, "not the id of a GPU's RIM"),
        ({"id": "NV_GPU_../../x"}, "not the id of a GPU's RIM"),
        ({"kind": "switch"}, "expected driver or vbios"),
        ({"sha256": "1" * 63}, "expected 64 lower-case hex digits"),
        ({"root": None}, "root is null"),
        ({"not_after": "2026-12-30"}, "expected a time as"),
        ({"not_after": "2026-12-30T00:00:00+01:00"}, "expected a time as"),
        ({"not_after": "2026-13-30T00:00:00Z"}, "there is no such time"),
        ({"measurements": {}}, "a RIM that says nothing"),
        ({"measurements": {"64": [A]}}, "has the index '64'"),
        ({"measurements": {"07": [A]}}, "has the index '07'"),
        ({"measurements": {"-1": [A]}}, "has the index '-1'"),
        ({"measurements": {"7": []}}, "has 0 digests"),
        ({"measurements": {"7": [A, A]}}, "has an item twice"),
        ({"measurements": {"7": [A.upper()]}}, "expected 96 lower-case hex digits"),
        ({"measurements": {"7": [A + "a"]}}, "expected 96 lower-case hex digits"),
        ({"measurements": {"7": [f"{n:096x}" for n in range(33)]}}, "has 33 digests"),
        ({"id": OTHER.id}, "two RIMs of one id"),
        ({"more": 1}, "unknown member 'more'"),
    ],
)
def test_anything_else_is_refused_by_its_path(members: dict[str, object], told: str) -> None:
    with pytest.raises(Malformed, match=told):
        parse(changed(**members))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b'{"created":"2026-11-25T00:00:00Z","format":1,"rims":[]}', "0 RIMs, expected 1 to 256"),
        (b'{"created":"2026-11-25T00:00:00Z","format":2,"rims":[]}', "format is 2, expected 1 to 1"),
        (b'{"format":1,"rims":[]}', "created is missing"),
        (b" " * ((1 << 20) + 1), "expected at most"),
    ],
)
def test_another_whole_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(Malformed, match=told):
        parse(data)


@given(st.binary(max_size=60))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(Malformed):
        parse(noise)
