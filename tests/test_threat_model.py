"""docs/threat-model.md is complete: every halt reason stands in it, and it names no other."""

from __future__ import annotations

import re
from pathlib import Path

from tinboot.formats import halt

PAGE = Path(__file__).resolve().parents[1] / "docs/threat-model.md"


def named() -> set[str]:
    """What stands in code marks and is formed like a reason, in the last column of the page's tables."""
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("|")]
    last = [row.rstrip("|").rpartition("|")[2] for row in rows]
    return {word for cell in last for word in re.findall(r"`([a-z0-9]+(?:-[a-z0-9]+)+)`", cell)}


def test_every_reason_is_in_the_threat_model() -> None:
    assert named() == set(halt.REASONS)
