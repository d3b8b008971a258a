"""What one hook leaves for the next, in one process."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # so that PID 1 does without YAML, and 10-config imports it under a deadline
    from stage.kernel import Kernel
    from stage.places import Places
    from tinboot.formats.bootlog import Passed
    from tinboot.formats.cmdline import CommandLine
    from tinboot.formats.config import Config


class State:
    """`line` and `config` exist once 10-config has passed: using them earlier is an AttributeError."""

    __slots__ = ("claimed", "config", "devices", "kernel", "line", "passed", "places", "started")

    line: CommandLine
    config: Config

    def __init__(self, kernel: Kernel, places: Places, passed: list[Passed], started: float) -> None:
        self.kernel = kernel
        self.places = places
        self.passed = passed  # the hooks before this one
        self.started = started  # time.monotonic() when the runner began
        self.claimed: set[str] = set()  # disks, by kernel name, that a hook found to be what they should
        self.devices: set[str] = set()  # device-mapper names that a hook made
