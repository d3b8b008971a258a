"""A locked rebuild with warm caches: CPU seconds, and which step takes them. The limit is 90 s."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from tinboot.builder import archive, image, prepare, recipe

LIMIT = 90.0


def cpu() -> float:
    """Of this process and its children that have ended."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def main() -> None:
    """Builds once, without the cache of images, and prints the longest steps by the clock."""
    wanted = recipe.this_checkout(archive.distribution_of_machine(), "release")
    chain = prepare.toolchain(wanted.distribution, lambda _: None, lambda *_: None)
    steps: list[tuple[float, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        began, spent = time.monotonic(), cpu()
        image.build(
            wanted,
            chain,
            Path(folder),
            lambda step: steps.append((time.monotonic() - began, step)),
        )
        wall, used = time.monotonic() - began, cpu() - spent
    lasted = [
        (after - at, step) for (at, step), (after, _) in zip(steps, [*steps[1:], (wall, "")], strict=True)
    ]
    print("\nA locked rebuild, packages and tools there, no image cached")
    print(f"{'CPU s':>8}{'limit':>8}{'wall s':>8}")
    print(f"{used:8.1f}{LIMIT:8.0f}{wall:8.1f}")
    print("the longest steps, by the clock:")
    for seconds, step in sorted(lasted, reverse=True)[:8]:
        print(f"{seconds:8.1f}  {step[:70]}")


if __name__ == "__main__":
    main()
