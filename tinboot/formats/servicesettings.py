"""What the evidence server has to know of the attested config, in one small file.

    {"architecture":"hopper","gpus":2,"image_version":"0.1.0","publish_attestation":true,"workload":true}

tinboot-prepare writes it to `PATH` before the server starts, which so needs no YAML. `image_version` is the
config's `cvm-version` and stands there where that does; `workload` says whether the config has containers.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from tinboot.formats.jsonfields import parse_object

PATH = "/run/tinboot-prepared/service.json"

MAX_GPUS = 8
ARCHITECTURES = ("hopper", "blackwell")

_LIMIT = 4096  # bytes


class Settings(NamedTuple):
    """`architecture`: of the GPUs, by the config's word; it says nothing where `gpus` is 0."""

    gpus: int
    architecture: str
    publish_attestation: bool
    workload: bool
    image_version: str | None = None


def render(settings: Settings) -> bytes:
    """Always the same bytes: one line, members in order."""
    members = {name: value for name, value in settings._asdict().items() if value is not None}
    return json.dumps(members, separators=(",", ":"), sort_keys=True).encode() + b"\n"


def parse(data: bytes) -> Settings:
    """The inverse of `render`; raises `Malformed`."""
    fields = parse_object("settings", data, _LIMIT)
    settings = Settings(
        fields.integer("gpus", 0, MAX_GPUS),
        fields.one_of("architecture", ARCHITECTURES),
        fields.boolean("publish_attestation"),
        fields.boolean("workload"),
        fields.text("image_version") if fields.has("image_version") else None,
    )
    fields.end()
    return settings
