"""One boot from start to end: what came of it, as a value.

    boot(kernel, initrd, cmdline, [Disk(root, "0123456789abcdef0123")], log_dir=logs)

`machine.Machine` is the same in steps, for tests that change something under a running guest.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import deadloop
import measured_boot
from arguments import Disk, arguments
from machine import Exit, Machine
from serial_log import Event, Outcome, clean

import tinboot.formats.halt
from tinboot.formats import bootreport
from tinboot.formats.errors import Unavailable
from tinboot.host.launch import HARNESS_CPU

if TYPE_CHECKING:
    from psp import Psp

#: Seconds for an emulated boot on a loaded machine; idle it takes about 10 (image facts, section 3).
DEADLINE = 120.0
#: Seconds from a guest's last word to the end of QEMU: a halt or a panic is no reason to stay.
END_SECONDS = 15.0

_FINAL = (Outcome.HALTED, Outcome.PANICKED)  # the guest itself must end the machine after these


@dataclass(frozen=True, slots=True)
class BootResult:
    """`event` ended the wait; `events` are all decisive lines, also those after it; `exit` is QEMU's end."""

    event: Event
    events: tuple[Event, ...]
    exit: Exit
    log: Path

    @property
    def outcome(self) -> Outcome:
        return self.event.outcome

    @property
    def handed_over(self) -> bool:
        """A `tinboot-up` line was printed, at any time."""
        return any(event.outcome is Outcome.UP for event in self.events)

    @property
    def up(self) -> dict[str, object] | None:
        """The fields of the first `tinboot-up` line."""
        return next((event.up for event in self.events if event.up is not None), None)

    @property
    def halt(self) -> tinboot.formats.halt.Halt | None:
        """The first refusal."""
        return next((event.halt for event in self.events if event.halt is not None), None)

    @property
    def panic(self) -> str | None:
        """What the kernel said when it gave up."""
        return next((event.text for event in self.events if event.outcome is Outcome.PANICKED), None)

    @property
    def report(self) -> bootreport.BootReport:
        """The report that the guest collected; raises ValueError unless it showed one, and only one."""
        (line,) = (line for line in self.lines() if line.startswith(bootreport.PREFIX))
        return bootreport.parse(line)

    @property
    def powered_off(self) -> bool:
        """The guest itself switched the machine off."""
        return self.exit.powered_off

    @property
    def seconds(self) -> float:
        """From QEMU's start to `event`."""
        return self.event.seconds

    @property
    def cpu_seconds(self) -> float:
        """Of QEMU, user and system, to its end; `event.cpu_seconds` is the part until the event."""
        return self.exit.cpu_seconds

    def text(self) -> str:
        """The whole serial log."""
        return self.log.read_text(errors="replace")

    def lines(self) -> list[str]:
        """The same, each line without the escapes that the firmware prints."""
        return [clean(line) for line in self.log.read_bytes().split(b"\n")]

    def expect_up(self) -> dict[str, object]:
        """The fields of `tinboot-up`, or an AssertionError that shows the log's end."""
        if self.up is None or self.outcome not in (Outcome.UP, Outcome.MARKER):
            raise AssertionError(f"expected a hand-over: {self.describe()}")
        return self.up

    def expect_halt(self, reason: str, *, hook: str | None = None) -> tinboot.formats.halt.Halt:
        """The refusal, or an AssertionError: the guest must refuse once, for `reason`, and power off."""
        halts = [event.halt for event in self.events if event.halt is not None]
        if len(halts) != 1 or halts[0].reason != reason or hook not in (None, halts[0].hook):
            raise AssertionError(f"expected one halt by {hook or 'any hook'} for {reason}: {self.describe()}")
        if len(self.events) != 1 or not self.powered_off:
            raise AssertionError(f"expected a power-off right after the halt: {self.describe()}")
        return halts[0]

    def expect_panic(self, text: str, *, after_up: bool = False) -> None:
        """An AssertionError unless the kernel panicked with `text` in its message, and that ended QEMU.

        The panic must come before the hand-over or, with `after_up`, after it; no hook may have refused.
        """
        if self.panic is None or text not in self.panic or not self.exit.by_itself:
            raise AssertionError(f"expected a panic with {text!r}: {self.describe()}")
        if self.halt is not None or self.handed_over != after_up:
            expected = "after the hand-over" if after_up else "before any hand-over"
            raise AssertionError(f"expected a panic and no halt, {expected}: {self.describe()}")

    def expect_dead_loop(self, *, said: str = "") -> None:
        """An AssertionError unless the firmware stopped the machine, its last word being `said`."""
        words = "".join(self.lines()).strip()
        if self.outcome is not Outcome.DEAD_LOOP or self.events or words != said:
            raise AssertionError(f"expected the firmware to stop, and to say {said!r}: {self.describe()}")

    def describe(self) -> str:
        """What happened, for a person: outcome, refusal, end of QEMU, the last lines, where the log lies."""
        said = f"{self.outcome.value} ({self.event.text[:500]})" if self.event.text else self.outcome.value
        end = "powered off" if self.powered_off else f"QEMU's end: {self.exit}"
        tail = "\n".join(f"    | {line}" for line in self.text().splitlines()[-15:])
        return f"the guest {said} after {self.seconds:.1f} s; {end}\n{tail}\n    log: {self.log}"


def boot(
    kernel: Path,
    initrd: Path,
    cmdline: str,
    disks: Sequence[Disk] = (),
    *,
    log_dir: Path,
    memory: int = 1024,
    cpu: str = HARNESS_CPU,
    smp: int = 1,
    accel: str = "tcg",
    deadline: float = DEADLINE,
    marker: str | None = None,
    extra: Sequence[str] = (),
    under: Path | None = None,
    psp: Psp | None = None,
) -> BootResult:
    """Boots until `tinboot-up` (or `marker`), a halt, a panic, QEMU's end, or `deadline` seconds.

    `memory` in MiB. `extra` are further QEMU arguments. `under`: the production firmware, which compares
    kernel, initrd and command line with their hashes; without it QEMU's own loader starts the kernel. `psp`
    answers the guest's requests for reports. The logs are `boot.log`, `boot-2.log`, … in `log_dir`. Raises
    Unavailable where QEMU itself fails: that says nothing about the guest.
    """
    listed = arguments(kernel, initrd, cmdline, disks, memory=memory, cpu=cpu, smp=smp, accel=accel)
    listed += extra
    if psp is not None:
        listed += psp.arguments
    if under is not None:
        listed = measured_boot.under(listed, under, log_dir, measured_boot.hashes(listed))
        return run(listed, log_dir, deadline, marker, psp=psp, firmware=under)
    with Machine(listed, log=next_log(log_dir)) as machine:
        event = machine.wait(deadline, marker=marker)
        return finish(machine, event)


def run(
    listed: Sequence[str],
    log_dir: Path,
    deadline: float = DEADLINE,
    marker: str | None = None,
    *,
    psp: Psp | None = None,
    firmware: Path | None = None,
) -> BootResult:
    """The same for a whole argument list under firmware, whose refusal ends the wait, too.

    With `psp`, whose arguments are in the list, it measures what is in memory to start with `firmware`.
    """
    measured = psp is not None and firmware is not None
    with Machine([*listed, *(["-S"] if measured else [])], log=next_log(log_dir)) as machine:
        if psp is not None and firmware is not None:
            psp.start(machine, firmware)
        event = deadloop.wait(machine, deadline, marker=marker)
        return finish(machine, event)


def finish(machine: Machine, event: Event, *, seconds: float | None = None) -> BootResult:
    """Ends `machine` after `event`.

    A guest that halted or panicked has the time to end by itself; others have `seconds` (for a guest that
    was asked to power off) or none.
    """
    if seconds is None:
        seconds = END_SECONDS if event.outcome in (*_FINAL, Outcome.ENDED) else 0
    ended = machine.end(seconds=seconds)
    if ended.by_itself and ended.status != 0:
        said = machine.qemu_log.read_text(errors="replace").strip()
        raise Unavailable(f"QEMU ended with status {ended.status}:\n{said[-4000:]}")
    return BootResult(event, tuple(machine.events), ended, machine.log)


def next_log(log_dir: Path) -> Path:
    """`boot.log`, or the first of `boot-2.log`, … that is not there yet."""
    names = itertools.chain(["boot.log"], (f"boot-{number}.log" for number in itertools.count(2)))
    return next(path for name in names if not (path := log_dir / name).exists())
