"""A firmware that stands still, told from one that works, waits, or is not scheduled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import boot
import deadloop
import pytest
from machine import Machine
from serial_log import Outcome

NAMES = ("RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RBP", "RSP", *(f"R{n}" for n in range(8, 16)))
LOOP = 0x3EE1638F


def printed(rip: int, *, halted: bool = False, **changed: int) -> str:
    """As QEMU 7.2 prints it: four registers a line, names padded to three characters."""
    values = {name: changed.get(name, number) for number, name in enumerate(NAMES)}
    words = [f"{name:<3}={value:016x}" for name, value in values.items()]
    lines = [" ".join(words[at : at + 4]) for at in range(0, 16, 4)]
    lines.append(f"RIP={rip:016x} RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT={halted:d}")
    return "\r\n".join(["", "CPU#0", *lines, "ES =0030 0000000000000000 ffffffff 00cf9300 DPL=0 DS   [-WA]"])


def test_registers() -> None:
    found = deadloop.registers(printed(LOOP, R9=7))
    assert found is not None
    assert found[0] == LOOP
    assert len(found) == 17
    assert found != deadloop.registers(printed(LOOP))


@pytest.mark.parametrize(
    "text", ["", "EAX=00000000 EBX=00000000\r\nEIP=0000fff0 HLT=0", printed(LOOP, halted=True)]
)
def test_no_registers(text: str) -> None:
    """16 and 32 bits, and a CPU that waits for an interrupt."""
    assert deadloop.registers(text) is None


def stuck(*texts: str) -> int | None:
    samples = deadloop.Samples()
    for text in texts:
        samples.add(deadloop.registers(text))
    return samples.stuck


def test_a_loop_that_a_timer_interrupts() -> None:
    loop, handler = printed(LOOP), printed(0x3EE00000, RAX=99)
    assert stuck(*[loop] * 12) == LOOP
    assert stuck(*[loop] * 5, handler, *[loop] * 3, handler, loop, loop) == LOOP


def test_too_few() -> None:
    assert stuck(*[printed(LOOP)] * 11) is None


@pytest.mark.parametrize(
    "texts",
    [
        # one instruction that repeats, such as rep insb: its counter moves
        [printed(LOOP, RCX=n) for n in range(12)],
        [printed(LOOP + n) for n in range(12)],
        [printed(LOOP)] * 9 + [printed(LOOP, RAX=n) for n in (1000, 1001, 1002)],
        [printed(0xFFFFFFFF81000000)] * 12,
        [printed(LOOP, halted=True)] * 12,
        ["EIP=0000fff0"] * 12,
    ],
    ids=["repeats", "runs", "mostly", "kernel", "halted", "bios"],
)
def test_what_is_no_dead_loop(texts: list[str]) -> None:
    assert stuck(*texts) is None


#: A stand-in for QEMU whose registers never change. It answers on its monitor and burns CPU if told to.
STANDS = """
import threading
sock = __import__("socket").socket(fileno=qmp)
def answer():
    for line in sock.makefile("rb"):
        request = json.loads(line)
        reply = {{"return": {text!r}, "id": request["id"]}}
        sock.sendall(json.dumps(reply).encode() + b"\\n")
threading.Thread(target=answer, daemon=True).start()
if {busy}:
    end_at = time.monotonic() + 60
    while time.monotonic() < end_at:
        pass
time.sleep(60)
"""


@pytest.mark.parametrize(("busy", "outcome"), [(True, Outcome.DEAD_LOOP), (False, Outcome.SILENT)])
def test_only_cpu_time_counts(
    fake_qemu: Callable[[str], Path], tmp_path: Path, busy: bool, outcome: Outcome
) -> None:
    """A machine that is not scheduled shows the same registers for as long as it likes."""
    fake_qemu(STANDS.format(text=printed(LOOP), busy=busy))
    with Machine([], log=tmp_path / "boot.log") as machine:
        event = deadloop.wait(machine, 60 if busy else 2)
    assert event.outcome is outcome
    assert not busy or event.text == f"at {LOOP:#x}"


@pytest.mark.parametrize("said", ["", "BdsDxe: it is over"])
def test_the_result_of_a_boot(fake_qemu: Callable[[str], Path], tmp_path: Path, said: str) -> None:
    """What the firmware printed counts without its escapes."""
    escapes = "\x1b[2J\x1b[01;01H\x1b[=3h"
    body = STANDS.format(text=printed(LOOP), busy=True)
    fake_qemu(f"say({escapes + said!r})\n" + body)
    result = boot.run([], tmp_path / "logs", 60)
    result.expect_dead_loop(said=said)
    assert result.outcome is Outcome.DEAD_LOOP
    with pytest.raises(AssertionError, match="expected the firmware to stop, and to say 'other'"):
        result.expect_dead_loop(said="other")


def test_a_boot_that_ended_otherwise(fake_qemu: Callable[[str], Path], tmp_path: Path) -> None:
    fake_qemu("end('guest-shutdown')")
    with pytest.raises(AssertionError, match="expected the firmware to stop"):
        boot.run([], tmp_path / "logs", 60).expect_dead_loop()


def test_a_line_ends_the_wait(fake_qemu: Callable[[str], Path], tmp_path: Path) -> None:
    fake_qemu(
        STANDS.format(text=printed(LOOP), busy=False).replace("time.sleep", "say('ready\\n')\ntime.sleep")
    )
    with Machine([], log=tmp_path / "boot.log") as machine:
        assert deadloop.wait(machine, 60, marker="ready").outcome is Outcome.MARKER


def test_the_end_of_qemu_ends_the_wait(fake_qemu: Callable[[str], Path], tmp_path: Path) -> None:
    fake_qemu("sys.exit()")
    with Machine([], log=tmp_path / "boot.log") as machine:
        assert deadloop.wait(machine, 60).outcome is Outcome.ENDED
