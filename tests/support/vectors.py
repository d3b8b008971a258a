"""Real evidence, which is not part of the project: where it is, and a skip that says so where it is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tinboot.builder import places


def folder() -> Path:
    """TINBOOT_VECTORS, else ../shared/vectors beside the checkout."""
    return Path(os.environ.get("TINBOOT_VECTORS") or places.REPOSITORY.parent / "shared" / "vectors")


def read(name: str) -> bytes:
    """The file `name` of it; skips the test where it is absent."""
    path = folder() / name
    if not path.is_file():
        pytest.skip(f"no real evidence here: {name} is not in TINBOOT_VECTORS or ../shared/vectors")
    return path.read_bytes()
