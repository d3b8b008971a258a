"""The workload's status: what its watcher writes, the endpoint reads; and no other."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats.errors import Malformed
from tinboot.formats.workloadstatus import (
    MAX_CONTAINERS,
    STATES,
    Container,
    WorkloadStatus,
    parse,
    render,
)

ONE = WorkloadStatus(ready=True, containers=(Container("embed", "running", "", 41_200),))


def changed(**members: object) -> bytes:
    found = json.loads(render(ONE)) | members
    return json.dumps({name: value for name, value in found.items() if value is not ...}).encode()


def container(**members: object) -> bytes:
    found = ONE.containers[0]._asdict() | members
    return changed(containers=[{name: value for name, value in found.items() if value is not ...}])


def test_the_written_form_does_not_change() -> None:
    assert render(ONE).decode() == (
        '{"ready":true,"containers":[{"name":"embed","state":"running","reason":"","since_ms":41200}]}\n'
    )


CONTAINERS = st.lists(
    st.builds(
        Container,
        st.text("abc-0", min_size=1, max_size=64),
        st.sampled_from(STATES),
        st.text("abc :", max_size=99),
        st.integers(0, 1 << 53),
    ),
    max_size=9,
    unique_by=lambda item: item.name,
)


@given(CONTAINERS)
def test_what_is_written_is_read(containers: list[Container]) -> None:
    ready = all(item.state == "running" for item in containers)
    status = WorkloadStatus(ready, tuple(containers))
    assert parse(render(status)) == status


@pytest.mark.parametrize("state", STATES[:1] + STATES[2:])
def test_nothing_is_ready_of_which_a_part_is_not(state: str) -> None:
    with pytest.raises(Malformed, match="is ready, and a container is not running"):
        parse(container(state=state))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"[]", "workload status is an array"),
        (b"", "not strict JSON"),
        (render(ONE)[:-4], "not strict JSON"),
        (changed(ready=...), "ready is missing"),
        (changed(ready=1), "a number, expected true or false"),
        (changed(more=1), "unknown member 'more'"),
        (changed(containers=None), "null, expected an array"),
        (changed(containers=[ONE.containers[0]._asdict()] * 2), "a name twice"),
        (changed(containers=[{}] * (MAX_CONTAINERS + 1)), f"of {MAX_CONTAINERS + 1} containers"),
        (container(state="up"), "'up', expected starting or running"),
        (container(reason=...), "reason is missing"),
        (container(reason="a\nb"), "reason is not one line of 0 to 512"),
        (container(reason="x" * 513), "reason is not one line of 0 to 512"),
        (container(since_ms=-1), "-1, expected 0 to"),
        (container(since_ms=True), "true, expected a whole number"),
        (container(more=1), "unknown member 'more'"),
        (b" " * 70_000, "expected at most"),
    ],
)
def test_anything_else_is_refused_by_its_path(data: bytes, told: str) -> None:
    with pytest.raises(Malformed, match=told):
        parse(data)


@given(st.binary(max_size=60))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(Malformed):
        parse(noise)
