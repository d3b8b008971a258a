"""Boot stages: written as clients read them, read back strictly."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats.bootstages import MAX_STAGES, STATUSES, BootStages, Stage, parse, render
from tinboot.formats.errors import Malformed

BEGUN = datetime(2026, 11, 25, 14, tzinfo=UTC)
ONE = BootStages((Stage("20-root", "ok", 41_000_000, "root hash"), Stage("ready", "pending", 0)), BEGUN)


def changed(**members: object) -> bytes:
    found = json.loads(render(ONE)) | members
    return json.dumps({name: value for name, value in found.items() if value is not ...}).encode()


def stage(**members: object) -> bytes:
    found = {"name": "a", "status": "ok", "duration_ns": 1} | members
    return changed(stages=[{name: value for name, value in found.items() if value is not ...}])


def test_the_written_form_does_not_change() -> None:
    assert render(ONE).decode() == (
        '{"stages":[{"name":"20-root","status":"ok","duration_ns":41000000,"detail":"root hash"},'
        '{"name":"ready","status":"pending","duration_ns":0}],"started_at":"2026-11-25T14:00:00Z"}'
    )
    done = ONE._replace(completed=BEGUN + timedelta(seconds=9))
    assert json.loads(render(done))["completed_at"] == "2026-11-25T14:00:09Z"


def test_times_are_in_utc() -> None:
    there = ONE._replace(started=BEGUN.astimezone(timezone(timedelta(hours=2))))
    assert render(there) == render(ONE)


STAGES = st.builds(
    Stage,
    st.text("abc-0", min_size=1, max_size=64),
    st.sampled_from(STATUSES),
    st.integers(0, 1 << 62),
    st.text("abc :", max_size=99),
)
TIMES = st.datetimes(datetime(2000, 1, 1), timezones=st.just(UTC)).map(lambda t: t.replace(microsecond=0))


@given(st.builds(BootStages, st.lists(STAGES, max_size=9).map(tuple), TIMES, st.none() | TIMES))
def test_what_is_written_is_read(boot: BootStages) -> None:
    assert parse(render(boot)) == boot


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"[]", "boot stages is an array"),
        (changed(stages=...), "stages is missing"),
        (changed(started_at=...), "started_at is missing"),
        (changed(started_at="2026-11-25T14:00:00+00:00"), "expected a time as"),
        (changed(started_at="2026-13-25T14:00:00Z"), "expected a time as"),
        (changed(started_at="2026-11-25T14:00:00.5Z"), "expected a time as"),
        (changed(completed_at=None), "completed_at is null"),
        (changed(more=1), "unknown member 'more'"),
        (changed(stages=[1]), "a number, expected an object"),
        (changed(stages=[{}] * (MAX_STAGES + 1)), f"{MAX_STAGES + 1} boot stages"),
        (stage(name=""), "name is not one line"),
        (stage(status="done"), "'done', expected pending or ok"),
        (stage(duration_ns=-1), "-1, expected 0 to"),
        (stage(duration_ns=1.5), "not strict JSON"),
        (stage(duration_ns=...), "duration_ns is missing"),
        (stage(detail=""), "detail is not one line"),
        (stage(more=1), "unknown member 'more'"),
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
