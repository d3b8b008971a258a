"""Each way a boot can end, with a stand-in for QEMU (conftest.py)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import boot
import machine
import pytest
from serial_log import Outcome

from tinboot.formats import halt
from tinboot.formats.errors import Unavailable

FakeQemu = Callable[[str], Path]  # conftest.py

REFUSAL = halt.Halt("20-root", "root-hash-mismatch", "got 00, expected 01")
HALT = f"say({halt.line(REFUSAL) + chr(10)!r})\n"
UP = 'say(\'tinboot-up {"profile":"release"}\\r\\n\')\n'
PANIC = "say('[    9.1] Kernel panic - not syncing: dm-verity device corrupted\\n')\n"
STAY = "time.sleep(60)\n"


def run(tmp_path: Path, *, deadline: float = 30, marker: str | None = None) -> boot.BootResult:
    here = Path(__file__)
    return boot.boot(here, here, "quiet", log_dir=tmp_path / "logs", deadline=deadline, marker=marker)


def gone(pid: int) -> bool:
    """No such process, or one that only waits for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_hand_over_ends_qemu(fake_qemu: FakeQemu, tmp_path: Path) -> None:
    fake_qemu("say(f'pid {os.getpid()}\\n')\n" + UP + STAY)
    result = run(tmp_path)
    assert result.expect_up() == {"profile": "release"}
    assert result.outcome is Outcome.UP
    assert not result.powered_off
    assert not result.exit.by_itself
    assert 0 < result.seconds < 30
    assert 0 < result.cpu_seconds < 30
    assert gone(int(result.text().split()[1]))
    with pytest.raises(AssertionError, match="expected one halt by any hook"):
        result.expect_halt("root-hash-mismatch")


def test_a_halt_and_a_power_off(fake_qemu: FakeQemu, tmp_path: Path) -> None:
    fake_qemu(HALT + "end('guest-shutdown')")
    result = run(tmp_path)
    assert result.expect_halt("root-hash-mismatch", hook="20-root") == REFUSAL
    assert not result.handed_over
    with pytest.raises(AssertionError, match="halt by any hook for root-missing"):
        result.expect_halt("root-missing")
    with pytest.raises(AssertionError, match="halt by 10-config for root-hash-mismatch"):
        result.expect_halt("root-hash-mismatch", hook="10-config")
    with pytest.raises(AssertionError, match="expected a hand-over"):
        result.expect_up()


@pytest.mark.parametrize(
    ("after", "message"),
    [
        ("end('guest-reset')", "expected a power-off right after"),
        ("sys.exit()", "expected a power-off right after"),
        (PANIC + "end('guest-reset')", "expected a power-off right after"),
        (UP + "end('guest-shutdown')", "expected a power-off right after"),
        (HALT + "end('guest-shutdown')", "expected one halt"),
        ("say('tinboot-halt {}\\n')\nend('guest-shutdown')", "expected a power-off right after"),
    ],
)
def test_a_halt_is_not_enough(fake_qemu: FakeQemu, tmp_path: Path, after: str, message: str) -> None:
    fake_qemu(HALT + after)
    result = run(tmp_path)
    assert result.outcome is Outcome.HALTED
    with pytest.raises(AssertionError, match=message):
        result.expect_halt("root-hash-mismatch")


def test_a_guest_that_halts_and_stays(
    fake_qemu: FakeQemu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot, "END_SECONDS", 0.2)
    fake_qemu(HALT + STAY)
    result = run(tmp_path)
    assert result.halt == REFUSAL
    assert not result.powered_off


def test_a_panic(fake_qemu: FakeQemu, tmp_path: Path) -> None:
    fake_qemu(PANIC + "end('guest-reset')")
    result = run(tmp_path)
    result.expect_panic("dm-verity device corrupted")
    assert not result.powered_off
    with pytest.raises(AssertionError, match="expected a panic with"):
        result.expect_panic("out of memory")
    with pytest.raises(AssertionError, match="after the hand-over"):
        result.expect_panic("dm-verity", after_up=True)


def test_a_panic_after_the_hand_over(fake_qemu: FakeQemu, tmp_path: Path) -> None:
    fake_qemu(UP + PANIC + "end('guest-reset')")
    result = run(tmp_path, marker="never said")
    result.expect_panic("dm-verity", after_up=True)
    with pytest.raises(AssertionError, match="before any hand-over"):
        result.expect_panic("dm-verity")
    with pytest.raises(AssertionError, match="expected a hand-over"):
        result.expect_up()


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (STAY, Outcome.SILENT),
        ("say('\\x1b[2J\\r\\n')\n" + STAY, Outcome.SILENT),
        ("say('loading')\n" + STAY, Outcome.TIMED_OUT),
    ],
)
def test_nothing_decisive_by_the_deadline(
    fake_qemu: FakeQemu, tmp_path: Path, body: str, outcome: Outcome
) -> None:
    fake_qemu(body)
    result = run(tmp_path, deadline=1)
    assert result.outcome is outcome
    assert str(result.log) in result.describe()


def test_the_end_of_qemu_without_a_word(fake_qemu: FakeQemu, tmp_path: Path) -> None:
    fake_qemu("end('guest-shutdown')")
    result = run(tmp_path)
    assert result.outcome is Outcome.ENDED
    assert result.powered_off
    assert result.events == ()


def test_a_qemu_that_fails_says_nothing_about_the_guest(fake_qemu: FakeQemu, tmp_path: Path) -> None:
    fake_qemu("sys.exit('qemu: no such machine')")
    with pytest.raises(Unavailable, match=r"(?s)status 1:.*-append quiet.*no such machine"):
        run(tmp_path)


def test_no_qemu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TINBOOT_QEMU", str(tmp_path / "absent"))
    machine.find_qemu.cache_clear()
    with pytest.raises(Unavailable, match="absent is not installed"):
        run(tmp_path)


def test_the_log_has_a_bound(fake_qemu: FakeQemu, tmp_path: Path) -> None:
    fake_qemu("while True:\n    say('x' * 999 + '\\n')")
    with machine.Machine([], log=tmp_path / "log", log_limit=5000) as flooding:
        assert flooding.wait(30).outcome is Outcome.FLOODED
    assert (tmp_path / "log").stat().st_size == 5000


def test_a_marker_may_be_a_prompt(fake_qemu: FakeQemu, tmp_path: Path) -> None:
    fake_qemu(UP + "say('host login: ')\ntime.sleep(1)\nsay('root\\nread 7 blocks, login again\\n')\n" + STAY)
    with machine.Machine([], log=tmp_path / "log") as guest:
        first = guest.wait(30, marker="login")
        second = guest.wait(30, marker="login")
    assert (first.outcome, first.text) == (Outcome.MARKER, "host login: ")
    assert (second.outcome, second.text) == (Outcome.MARKER, "read 7 blocks, login again")
    assert [event.outcome for event in guest.events] == [Outcome.UP]


def test_a_marked_line_comes_whole(fake_qemu: FakeQemu, tmp_path: Path) -> None:
    fake_qemu("say('blocks ')\ntime.sleep(0.05)\nsay('7\\n')\n" + STAY)
    with machine.Machine([], log=tmp_path / "log") as guest:
        assert guest.wait(30, marker="blocks").text == "blocks 7"


def test_what_is_done_between_two_waits_does_not_stop_the_guest(fake_qemu: FakeQemu, tmp_path: Path) -> None:
    switch = tmp_path / "switch"
    fake_qemu(
        f"say('ready\\n')\nwhile not os.path.exists({str(switch)!r}):\n    time.sleep(0.01)\n"
        "say('y' * 300000 + '\\n')\n" + PANIC + "end('guest-reset')"
    )
    with machine.Machine([], log=tmp_path / "log") as guest:
        assert guest.wait(30, marker="ready").outcome is Outcome.MARKER
        switch.touch()
        ended = guest.end(seconds=30)
    assert ended.by_itself
    assert [event.outcome for event in guest.events] == [Outcome.PANICKED]


def test_a_qemu_that_does_not_listen_is_killed(
    fake_qemu: FakeQemu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_TERMINATE_SECONDS", 0.2)
    fake_qemu("signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + UP + STAY)
    assert run(tmp_path).exit.status == -signal.SIGKILL


def test_an_error_in_the_test_ends_qemu(fake_qemu: FakeQemu, tmp_path: Path) -> None:
    fake_qemu("say('ready\\n')\n" + STAY)
    guest = machine.Machine([], log=tmp_path / "log")

    def fail() -> None:
        with guest:
            guest.wait(30, marker="ready")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert gone(guest.pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_qemu_does_not_outlive_the_harness(
    fake_qemu: FakeQemu, tmp_path: Path, number: signal.Signals
) -> None:
    fake_qemu("say(f'{os.getpid()}\\n')\n" + STAY)
    program = (
        f"import sys; sys.path.insert(0, {str(Path(machine.__file__).parent)!r})\n"
        "from pathlib import Path; from machine import Machine\n"
        f"with Machine([], log=Path({str(tmp_path / 'log')!r}),\n"
        "    on_line=lambda line: print(line, flush=True)) as guest: guest.wait(60, marker='never')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(machine.__file__).parent.parent,
    ) as harness:
        assert harness.stdout is not None
        pid = int(harness.stdout.readline())
        assert not gone(pid)
        harness.send_signal(number)
        harness.wait(30)
    deadline = time.monotonic() + 10
    while not gone(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_cpu_seconds_are_the_child_s_own(fake_qemu: FakeQemu, tmp_path: Path) -> None:
    fake_qemu(
        "spent = time.process_time() + 0.3\nwhile time.process_time() < spent:\n    pass\n" + HALT
        + "while time.process_time() < spent + 0.2:\n    pass\nend('guest-shutdown')"
    )  # fmt: skip
    before = os.times()
    result = run(tmp_path)
    assert 0.25 <= result.event.cpu_seconds <= result.cpu_seconds - 0.15
    assert result.cpu_seconds <= 5 + os.times().children_user - before.children_user


def test_logs_are_numbered(fake_qemu: FakeQemu, tmp_path: Path) -> None:
    fake_qemu(UP + STAY)
    assert [run(tmp_path).log.name for _ in range(3)] == ["boot.log", "boot-2.log", "boot-3.log"]
