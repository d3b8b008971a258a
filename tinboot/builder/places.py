"""Where the builder reads and writes: the repository, and the one folder for everything it makes."""

from __future__ import annotations

import os
from pathlib import Path

#: The recipes, hooks and locks belong to this checkout; an image is built from its files.
REPOSITORY = Path(__file__).resolve().parents[2]


def build_folder() -> Path:
    """`build/` in the repository, or `$TINBOOT_BUILD`: packages, tools, images, logs. All can be remade."""
    return Path(os.environ.get("TINBOOT_BUILD") or REPOSITORY / "build")


def lock_file(name: str) -> Path:
    """The lock of `tools`, or of a distribution's images."""
    return REPOSITORY / "packages" / f"{name}.lock"
