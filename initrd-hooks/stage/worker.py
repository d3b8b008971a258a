"""The process in which kernel modules load and the hooks before hand-over run, one interpreter for all.

It tells its supervisor over a pipe, one JSON object a line: `begin` a step, `passed` it, `refused`
(the boot ends), `done`. Whatever else happens to it (exit, signal, silence) the supervisor sees.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import NoReturn

from stage.kernel import Kernel
from stage.modules import listed, load
from stage.places import Places
from stage.state import State
from tinboot.formats.bootlog import Found, Passed
from tinboot.formats.halt import Refusal

#: The step before the hooks, and the name under which the runner itself refuses.
RUNNER = "runner"


def work(kernel: Kernel, places: Places, hooks: list[str], pipe: int, started: float) -> NoReturn:
    """Runs `hooks` in order; never returns into the supervisor's code."""
    status = 1
    try:
        status = _steps(kernel, places, hooks, pipe, started)
    finally:
        os._exit(status)


def _steps(kernel: Kernel, places: Places, hooks: list[str], pipe: int, started: float) -> int:
    step = RUNNER
    try:
        tell(pipe, {"begin": step})
        load(kernel, listed(places.modules).early)
        state = State(kernel, places, [], started)
        for step in hooks:
            tell(pipe, {"begin": step})
            began = time.monotonic()
            found = load_hook(f"{places.hooks}/{step}")(state)
            passed = Passed(step, round((time.monotonic() - began) * 1000), found)
            state.passed.append(passed)
            tell(pipe, {"passed": passed._asdict()})
    except Refusal as refusal:
        tell(pipe, {"refused": [refusal.reason, refusal.detail]})
        return 1
    except SystemExit:
        raise  # a hook that exits is told from one that fails by leaving no word
    except BaseException as error:  # whatever a hook raises ends the boot by name
        tell(pipe, {"refused": ["hook-failed", describe(error)]})
        return 1
    tell(pipe, {"done": True})
    return 0


def load_hook(path: str) -> Callable[[State], Found]:
    """The function `run` of the hook at `path`, a Python program without extension."""
    with open(path, "rb") as file:
        source = file.read()
    scope: dict[str, Callable[[State], Found]] = {}
    exec(compile(source, path, "exec", dont_inherit=True), scope)  # that is what a hook is
    return scope["run"]


def describe(error: BaseException) -> str:
    """The error's type, message, and the file and line that raised it: a traceback in one line."""
    at, trace = "", error.__traceback__
    while trace is not None:
        at = f" at {os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__}: {error}{at}"


def tell(pipe: int, message: dict[str, object]) -> None:
    """One message to the supervisor."""
    data = memoryview(json.dumps(message).encode() + b"\n")
    while data:
        data = data[os.write(pipe, data) :]
