"""What /.well-known/tinfoil-boot-stages says: the stages of this boot, how each ended and how long it took.

    {"stages":[{"name":"20-root","status":"ok","duration_ns":41000000,"detail":"..."}],
     "started_at":"2026-11-25T14:00:00Z","completed_at":"2026-11-25T14:00:09Z"}

`detail` and `completed_at` are left out where there is none. It is for people and graphs; nothing attests it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from tinboot.formats.errors import Malformed
from tinboot.formats.jsonfields import Fields, parse_object

STATUSES = ("pending", "ok", "skipped", "warning", "failed")

MAX_SIZE = 64 << 10  # bytes
MAX_STAGES = 64
_LONGEST = 1 << 62  # nanoseconds: what a signed number of 64 bits has


class Stage(NamedTuple):
    """`status`: one of `STATUSES`. `duration_ns`: 0 while it is pending. `detail`: one line, or nothing."""

    name: str
    status: str
    duration_ns: int
    detail: str = ""


class BootStages(NamedTuple):
    """Times have a zone; `completed` is None while the boot goes on."""

    stages: tuple[Stage, ...]
    started: datetime
    completed: datetime | None = None


def render(boot: BootStages) -> bytes:
    members: dict[str, object] = {
        "stages": [_members(stage) for stage in boot.stages],
        "started_at": _moment(boot.started),
    }
    if boot.completed is not None:
        members["completed_at"] = _moment(boot.completed)
    return json.dumps(members, separators=(",", ":")).encode()


def parse(data: bytes) -> BootStages:
    """The inverse, to the second; raises `Malformed` with the member's path."""
    fields = parse_object("boot stages", data, MAX_SIZE)
    stages = [_stage(entry) for entry in _bounded(fields.records("stages"))]
    started = _time(fields, "started_at")
    completed = _time(fields, "completed_at") if fields.has("completed_at") else None
    fields.end()
    return BootStages(tuple(stages), started, completed)


def _members(stage: Stage) -> dict[str, object]:
    members: dict[str, object] = {
        "name": stage.name,
        "status": stage.status,
        "duration_ns": stage.duration_ns,
    }
    return members | ({"detail": stage.detail} if stage.detail else {})


def _stage(entry: Fields) -> Stage:
    stage = Stage(
        entry.text("name", 64),
        entry.one_of("status", STATUSES),
        entry.integer("duration_ns", 0, _LONGEST),
        entry.text("detail", 1024) if entry.has("detail") else "",
    )
    entry.end()
    return stage


def _bounded(entries: Sequence[Fields]) -> Sequence[Fields]:
    if len(entries) > MAX_STAGES:
        raise Malformed(f"{len(entries)} boot stages, expected at most {MAX_STAGES}")
    return entries


def _moment(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(fields: Fields, name: str) -> datetime:
    text = fields.text(name, 40)
    wrong = Malformed(f"{fields.where}.{name} is {text!r}, expected a time as 2026-11-25T14:00:00Z")
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", text):
        raise wrong
    try:
        return datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=UTC)
    except ValueError as error:
        raise wrong from error
