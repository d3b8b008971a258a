"""Kernel modules, in the order that the build wrote down."""

from __future__ import annotations

import errno
from typing import NamedTuple

from stage.kernel import Kernel


class Listed(NamedTuple):
    """Absolute paths in load order: what mounting the root needs, what only the root needs, and what only a
    config with services does."""

    early: list[str]
    late: list[str]
    services: list[str]


def listed(path: str) -> Listed:
    """The list that tinboot/builder/modules.py wrote: one path a line, empty lines between the parts."""
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    first = lines.index("")
    second = lines.index("", first + 1)
    return Listed(lines[:first], lines[first + 1 : second], lines[second + 1 :])


def load(kernel: Kernel, paths: list[str]) -> None:
    """Loads these, in order.

    A module that is there already, or whose device is not, is no failure: sev-guest on a machine without
    SNP, SHA-256 for SSSE3 on a CPU without. Whoever then misses something refuses by name.
    """
    for path in paths:
        try:
            kernel.load_module(path)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENODEV):
                raise
