"""The section of devices: GPUs in order and nothing else, written always alike, read strictly."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats.deviceevidence import parse, render
from tinboot.formats.errors import Malformed
from tinboot.formats.gpuevidence import MAX_COUNT, GpuEvidence

ONE = GpuEvidence("HOPPER", b"-----BEGIN", b"\x11\xe0\x00", bytes(range(32)))
TWO = ONE._replace(arch="BLACKWELL", nonce=bytes(32))

GPUS = st.lists(
    st.builds(
        GpuEvidence,
        st.sampled_from(["HOPPER", "BLACKWELL"]),
        st.binary(min_size=1, max_size=99),
        st.binary(min_size=1, max_size=99),
        st.binary(min_size=32, max_size=32),
        st.none(),
        st.none(),
    ),
    max_size=MAX_COUNT,
)


def changed(**members: object) -> bytes:
    """Of two GPUs the second one's members replaced: those of `evidence` by their names with `_` before."""
    section = json.loads(render([ONE, TWO]))
    item = section["items"][1]
    for name, value in members.items():
        where = item["evidence"] if name.startswith("_") else item
        if value is ...:
            del where[name.removeprefix("_")]
        else:
            where[name.removeprefix("_")] = value
    return json.dumps(section).encode()


def test_the_written_form_does_not_change() -> None:
    assert render([]) == b'{"format":"https://tinfoil.sh/device-evidence/v1","items":[]}'
    assert render([ONE]).decode() == (
        '{"format":"https://tinfoil.sh/device-evidence/v1","items":[{"id":"gpu0","kind":"gpu",'
        '"vendor":"nvidia","format":"https://tinfoil.sh/format/nvidia-gpu-evidence/v1","evidence":'
        f'{{"arch":"HOPPER","certificate":"LS0tLS1CRUdJTg==","evidence":"EeAA","nonce":"{ONE.nonce.hex()}"}}}}]}}'
    )


@given(GPUS)
def test_what_is_written_is_read(gpus: list[GpuEvidence]) -> None:
    assert parse(render(gpus)) == tuple(gpus)


def test_a_collectors_word_is_left_out() -> None:
    assert parse(render([ONE._replace(driver_version="590.12", vbios_version="96")])) == (ONE,)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"[]", "device_evidence is an array"),
        (b'{"items":[]}', "format is missing"),
        (b'{"format":"https://tinfoil.sh/device-evidence/v2","items":[]}', "v2', expected"),
        (b'{"format":"https://tinfoil.sh/device-evidence/v1"}', "items is missing"),
        (b'{"format":"https://tinfoil.sh/device-evidence/v1","items":[],"x":1}', "unknown member 'x'"),
        (render([ONE] * (MAX_COUNT + 1)), f"evidence of {MAX_COUNT + 1} devices"),
        (changed(id="gpu0"), "'gpu0', expected gpu1"),
        (changed(id="nvswitch0"), "'nvswitch0', expected gpu1"),
        (changed(kind="nvswitch"), "'nvswitch', expected gpu"),
        (changed(vendor="NVIDIA"), "'NVIDIA', expected nvidia"),
        (changed(format="https://tinfoil.sh/format/nvidia-nvswitch-evidence/v1"), "expected https"),
        (changed(vendor=...), r"items\[1\].vendor is missing"),
        (changed(more=1), "unknown member 'more'"),
        (changed(evidence=1), "evidence is a number, expected an object"),
        (changed(_arch="AMPERE"), "'AMPERE', expected HOPPER or BLACKWELL"),
        (changed(_arch=...), r"items\[1\].evidence.arch is missing"),
        (changed(_nonce="00" * 31), "expected 64 lower-case hex digits"),
        (changed(_nonce="AA" * 32), "expected 64 lower-case hex digits"),
        (changed(_certificate=""), "has 0 bytes"),
        (changed(_certificate="AB=="), "not in canonical base64"),
        (changed(_evidence="AA=="[:3]), "not in base64"),
        (changed(_evidence="A" * 12_000), "has 12000 characters"),
        (changed(_version="1.0"), "unknown member 'version'"),
        (render([ONE])[:-2] + b',{"id":1,"id":2}]}', "stands twice"),
    ],
)
def test_anything_else_is_refused_by_its_path(data: bytes, told: str) -> None:
    with pytest.raises(Malformed, match=told):
        parse(data)


def test_no_section_is_too_large_to_refuse() -> None:
    with pytest.raises(Malformed, match="expected at most"):
        parse(b" " * 2_000_000)


@given(st.data())
def test_mutations_are_refused_or_read_as_something_else(data: st.DataObject) -> None:
    good = render([ONE, TWO])
    at = data.draw(st.integers(0, len(good) - 1))
    mutant = good[:at] + data.draw(st.binary(max_size=2)) + good[at + 1 :]
    try:
        found = parse(mutant)
    except Malformed:
        return
    if found == (ONE, TWO):
        assert json.loads(mutant) == json.loads(good)


@given(st.binary(max_size=60))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(Malformed):
        parse(noise)
