"""Runs the runner as a process of its own: `driver.py FOLDER`. PID 1's power-off is this process's end."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from fakeguest import FakeKernel, Guest
from stage import runner, supervisor

POWERED_OFF = 42


class EndingKernel(FakeKernel):
    def power_off(self) -> NoReturn:
        os._exit(POWERED_OFF)

    def execute(self, path: str, environment: dict[str, str]) -> NoReturn:
        os._exit(0)


def main(folder: str, deadline: int) -> None:
    supervisor.DEFAULT_DEADLINE = runner.DEFAULT_DEADLINE = deadline
    guest = Guest.__new__(Guest)
    guest.places = runner.Places(folder)
    kernel = EndingKernel(guest)
    if Path(folder, "unloadable").exists():
        kernel.fail["load_module"] = OSError(8, "Exec format error")
    runner.boot(kernel, guest.places)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
