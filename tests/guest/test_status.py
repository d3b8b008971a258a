"""The status line and its parts."""

from __future__ import annotations

import json

import pytest

from tinboot.guest.status import status_line


def test_is_one_line_with_what_was_sealed() -> None:
    line = status_line(b'{"ms": 7, "hooks": []}\n', "release", 9120)
    assert "\n" not in line
    word, _, fields = line.partition(" ")
    assert word == "tinboot-up"
    assert json.loads(fields) == {
        "boot": {"ms": 7, "hooks": []},
        "profile": "release",
        "uptime_ms": 9120,
    }


def test_what_is_no_json_is_not_passed_on() -> None:
    with pytest.raises(ValueError, match="Expecting"):
        status_line(b"not json", "release", 1)
