"""The evidence server's settings: what is written is read back, and nothing else is read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats import servicesettings
from tinboot.formats.errors import Malformed
from tinboot.formats.servicesettings import ARCHITECTURES, MAX_GPUS, Settings

SETTINGS = Settings(2, "hopper", True, True, "0.1.0")
MEMBERS = {
    "architecture": "hopper",
    "gpus": 2,
    "image_version": "0.1.0",
    "publish_attestation": True,
    "workload": True,
}

settings = st.builds(
    Settings,
    st.integers(0, MAX_GPUS),
    st.sampled_from(ARCHITECTURES),
    st.booleans(),
    st.booleans(),
    st.none() | st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){2}", fullmatch=True),
)


def test_one_line() -> None:
    data = servicesettings.render(SETTINGS)
    assert json.loads(data) == MEMBERS
    assert data.index(b"\n") == len(data) - 1


@given(settings)
def test_round_trip(value: Settings) -> None:
    assert servicesettings.parse(servicesettings.render(value)) == value


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"gpus": 9}, "settings.gpus"),
        ({"gpus": True}, "settings.gpus"),
        ({"architecture": "ada"}, "settings.architecture"),
        ({"publish_attestation": 1}, "settings.publish_attestation is a number, expected true or false"),
        ({"workload": None}, "settings.workload is null"),
        ({"image_version": ""}, "settings.image_version"),
        ({"more": 1}, "unknown member 'more'"),
    ],
)
def test_refuses(change: dict[str, object], word: str) -> None:
    with pytest.raises(Malformed, match=word):
        servicesettings.parse(json.dumps(MEMBERS | change).encode())


@pytest.mark.parametrize("name", ["architecture", "gpus", "publish_attestation", "workload"])
def test_refuses_without(name: str) -> None:
    members = {key: value for key, value in MEMBERS.items() if key != name}
    with pytest.raises(Malformed, match=f"settings.{name} is missing"):
        servicesettings.parse(json.dumps(members).encode())


@given(st.binary(max_size=200))
def test_fuzz(data: bytes) -> None:
    try:
        found = servicesettings.parse(data)
    except Malformed:
        return
    assert isinstance(found, Settings)
