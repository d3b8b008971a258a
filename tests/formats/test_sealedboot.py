"""What the hooks sealed, read from outside: only as far as it is compared, and that strictly."""

from __future__ import annotations

import json

import fake_host
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats.errors import Malformed
from tinboot.formats.sealedboot import parse


def changed(hook: int | None = None, **members: object) -> bytes:
    """With members of the whole, or of what a hook found, replaced; `...` takes one out."""
    boot = json.loads(fake_host.sealed(fake_host.gpus(1)))
    where = boot if hook is None else boot["hooks"][hook]["found"]
    where |= members
    for name in [name for name, value in members.items() if value is ...]:
        del where[name]
    return json.dumps(boot).encode()


def test_what_is_compared() -> None:
    found = parse(fake_host.sealed())
    assert (found.cmdline, found.gpus, found.gpu_evidence) == ("readonly=on", 0, None)
    gpus = parse(changed())
    assert gpus.config == found.config
    assert (gpus.gpus, len(gpus.gpu_evidence or b"")) == (1, 32)


def test_what_else_a_hook_found_is_nobodys_matter() -> None:
    assert parse(changed(0, more={"a": [None, "x"]}, models="?")) == parse(changed())


HOOK = {"hook": "10-config", "ms": 1, "found": {}}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"[]", "sealed boot is an array"),
        (changed(cmdline=...), "cmdline is missing"),
        (changed(cmdline="x" * 3000), "not one line of 1 to 2048"),
        (changed(ms="1"), "ms is a string"),
        (changed(hooks=...), "hooks is missing"),
        (changed(more=1), "unknown member 'more'"),
        (changed(hooks=[]), "has no '10-config'"),
        (changed(hooks=[HOOK]), "has no '40-gpu'"),
        (changed(hooks=[HOOK, HOOK]), r"hooks\[1\] is a second '10-config'"),
        (changed(hooks=[HOOK | {"more": 1}]), "unknown member 'more'"),
        (changed(hooks=[HOOK | {"found": 1}]), "found is a number"),
        (changed(0, config_hash=...), "config_hash is missing"),
        (changed(0, config_hash="AA" * 32), "expected 64 lower-case hex digits"),
        (changed(2, gpus=...), "gpus is missing"),
        (changed(2, gpus=65), "65, expected 0 to 64"),
        (changed(2, sha256=...), "sha256 is missing"),
        (changed(2, sha256={}), "gpu-evidence.json is missing"),
        (b" " * (2 << 20), "expected at most"),
    ],
)
def test_anything_else_is_refused_by_its_path(data: bytes, told: str) -> None:
    with pytest.raises(Malformed, match=told):
        parse(data)


@given(st.binary(max_size=60))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(Malformed):
        parse(noise)
