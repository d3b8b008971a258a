"""PID 1: mounts what a process needs, has a worker run the hooks, hands over or ends the machine.

Every path ends in the root's init or in one halt line and power-off. Never a shell, a retry, or a wait
without a bound. No wall clock is read: deadlines are on the monotonic clock, which starts with the kernel.
"""

from __future__ import annotations

import os
import signal
import time
from typing import NoReturn

from stage import console
from stage.kernel import MS_NODEV, MS_NOEXEC, MS_NOSUID, Kernel
from stage.places import Places
from stage.state import State
from stage.supervisor import DEADLINES, DEFAULT_DEADLINE, Ended, supervise
from stage.worker import RUNNER, describe, load_hook
from tinboot.formats import halt
from tinboot.formats.halt import Halt, Refusal

HANDOVER = "90-handover"
_SEALED_BYTES = "16m"  # of tmpfs: the config has at most 1 MiB, GPU evidence well under one each


def main() -> NoReturn:
    """Called by /init, once."""
    if os.getpid() != 1:
        raise SystemExit("this is the initrd's PID 1: it powers the machine off, start it nowhere else")
    boot(Kernel(), Places())


def boot(kernel: Kernel, places: Places) -> NoReturn:
    """The whole of it; returns by neither way out."""
    ended = Halt(RUNNER, "hook-exited", "the runner came to its end without hand-over")
    try:
        _boot(kernel, places)
    except Ended as end:
        ended = end.halt
    except Refusal as refusal:
        ended = Halt(RUNNER, refusal.reason, refusal.detail)
    except BaseException as error:  # PID 1 has nobody to raise to
        ended = Halt(RUNNER, "hook-failed", describe(error))
    finally:
        try:
            console.say(halt.line(ended))
            console.drain()
        finally:
            kernel.power_off()


def _boot(kernel: Kernel, places: Places) -> None:
    started = time.monotonic()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-Alt-Del, which the host can press
    mount_basics(kernel, places)
    console.attach(f"{places.dev}/console")
    check_cpu(places.proc)
    hooks = sorted(os.listdir(places.hooks))
    if hooks[-1:] != [HANDOVER]:
        raise Refusal("hook-failed", f"the hooks are {hooks}, the last must be {HANDOVER}")
    passed = supervise(kernel, places, hooks[:-1], started)
    hand_over(State(kernel, places, passed, started))


def mount_basics(kernel: Kernel, places: Places) -> None:
    """/proc, /sys, /dev, /run, and the tmpfs that is sealed at hand-over."""
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    for source, target, kind, flag, data in (
        ("proc", places.proc, "proc", flags, ""),
        ("sysfs", places.sys, "sysfs", flags, ""),
        ("devtmpfs", places.dev, "devtmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755"),
        ("tmpfs", places.run, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755"),
        ("tinboot", places.sealed, "tmpfs", flags, f"mode=0755,size={_SEALED_BYTES}"),
    ):
        os.makedirs(target, exist_ok=True)
        kernel.mount(source, target, kind, flag, data)


def check_cpu(proc: str) -> None:
    """Refuses a CPU without RDRAND: the kernel's random numbers would have no source that the host lacks."""
    with open(f"{proc}/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("flags"):
                if "rdrand" in line.split():
                    return
                break
    raise Refusal("cpu-no-rdrand", "/proc/cpuinfo has no rdrand among the CPU's flags")


def hand_over(state: State) -> None:
    """Runs the last hook in this process, PID 1, under its deadline. It comes back by raising only."""
    seconds = DEADLINES.get(HANDOVER, DEFAULT_DEADLINE)

    def expire(number: int, frame: object) -> NoReturn:
        raise Ended(Halt(HANDOVER, "hook-timeout", f"not finished after {seconds} s"))

    reap()
    signal.signal(signal.SIGALRM, expire)
    signal.alarm(seconds)
    try:
        load_hook(f"{state.places.hooks}/{HANDOVER}")(state)
        ended = Halt(HANDOVER, "hook-exited", "returned without handing over")
    except Refusal as refusal:
        ended = Halt(HANDOVER, refusal.reason, refusal.detail)
    except SystemExit:
        ended = Halt(HANDOVER, "hook-exited", "ended the process without handing over")
    except Ended:
        raise
    except BaseException as error:  # as in `boot`, under this hook's name
        ended = Halt(HANDOVER, "hook-failed", describe(error))
    signal.alarm(0)
    raise Ended(ended)


def reap() -> None:
    """Collects orphans that ended, so that none is left to the root's init as a zombie."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return
