"""Runs the runner as a process of its own: `driver.py FOLDER`. PID 1's power-off is this process's end."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from fakeguest import FakeKernel, Guest
from stage import runner, supervisor
from stage.places import Places

POWERED_OFF = 42


class EndingKernel(FakeKernel):
    def power_off(self) -> NoReturn:
        os._exit(POWERED_OFF)

    def execute(self, words: tuple[str, ...], environment: dict[str, str]) -> NoReturn:
        os._exit(0)


def main(folder: str, deadline: int) -> None:
    for module in (supervisor, runner):
        vars(module)["DEFAULT_DEADLINE"] = deadline  # each holds the number under its own name
    guest = Guest.__new__(Guest)
    guest.places = Places(folder)
    kernel = EndingKernel(guest)
    if Path(folder, "unloadable").exists():
        kernel.fail["load_module"] = OSError(8, "Exec format error")
    runner.boot(kernel, guest.places)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
