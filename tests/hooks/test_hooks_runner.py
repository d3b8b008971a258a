"""The runner as a process: however a hook ends, one halt line and power-off, or hand-over."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from driver import POWERED_OFF

from tinboot.formats import bootlog, halt

ROOT = Path(__file__).parents[2]
GOOD = "def run(state):\n    return {'n': len(state.passed)}\n"
LAST = "def run(state):\n    state.kernel.execute(('init',), {})\n"
FLAGS = "processor\t: 0\nflags\t\t: fpu rdrand sse2\n"


class Boot(NamedTuple):
    status: int
    lines: list[str]

    def halted(self) -> tuple[str, str]:
        """Hook and reason of the one halt line, which must be the last."""
        assert self.status == POWERED_OFF, self.lines
        found = [line for line in self.lines if line.startswith(halt.PREFIX)]
        assert found == self.lines[-1:], self.lines
        return halt.parse(found[0])[:2]


class Runner:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hooks = folder / "usr/lib/tinboot/hooks"
        self.hooks.mkdir(parents=True)
        for name in ("dev", "proc"):
            (folder / name).mkdir()
        (folder / "dev/console").touch()
        (folder / "proc/cpuinfo").write_text(FLAGS)
        (folder / "usr/lib/tinboot/modules").write_text("/a.ko\n/b.ko\n\n/c.ko\n\n/d.ko\n")
        self.write("90-handover", LAST)

    def write(self, name: str, source: str) -> None:
        (self.hooks / name).write_text(source)

    def boot(self, deadline: int = 20) -> Boot:
        path = [str(ROOT / "initrd-hooks"), str(ROOT), str(ROOT / "tests/hooks")]
        done = subprocess.run(
            [sys.executable, str(ROOT / "tests/hooks/driver.py"), str(self.folder), str(deadline)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
        return Boot(done.returncode, (self.folder / "dev/console").read_text().splitlines())


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def test_hands_over(runner: Runner) -> None:
    runner.write("20-b", GOOD)
    runner.write("10-a", GOOD)
    boot = runner.boot()
    assert boot.status == 0
    passed = [bootlog.parse_passed(line) for line in boot.lines]
    assert [(p.hook, p.found) for p in passed] == [("10-a", {"n": 0}), ("20-b", {"n": 1})]


def test_last_hook_sees_what_passed(runner: Runner) -> None:
    runner.write("10-a", GOOD)
    runner.write("90-handover", "def run(state):\n    raise ValueError(str(state.passed))\n")
    boot = runner.boot()
    assert boot.halted() == ("90-handover", "hook-failed")
    assert "Passed(hook='10-a'" in boot.lines[-1]


@pytest.mark.parametrize("hook", ["15-bad", "90-handover"])
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return 1 / 0", "hook-failed"),
        ("raise KeyboardInterrupt", "hook-failed"),
        ("raise GeneratorExit", "hook-failed"),
        ("import missing_module", "hook-failed"),
        ("from tinboot.formats.halt import Refusal; raise Refusal('root-size', 'x')", "root-size"),
        ("from tinboot.formats.halt import Refusal; raise Refusal('no-such-reason', 'x')", "hook-failed"),
        ("import sys; sys.exit(0)", "hook-exited"),
    ],
)
def test_ends_by_name(runner: Runner, hook: str, body: str, reason: str) -> None:
    runner.write(hook, f"def run(state):\n    {body}\n")
    assert runner.boot().halted() == (hook, reason)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("import os; os._exit(0)", "hook-exited"),
        ("import os; os._exit(3)", "hook-exited"),
        ("import os; os.kill(os.getpid(), 9)", "hook-killed"),
        ("import os; os.abort()", "hook-killed"),
        ("import os; os.closerange(3, 4096); os._exit(0)", "hook-exited"),
        ("import os; os.fork() or __import__('time').sleep(2); os._exit(0)", "hook-exited"),
        ("return object()", "hook-failed"),
        ("import os; [os.write(f, b'{\\n') for f in range(3, 9)]", "hook-failed"),
    ],
)
def test_process_of_the_hooks_ends(runner: Runner, body: str, reason: str) -> None:
    runner.write("15-bad", f"def run(state):\n    {body}\n")
    _, found = runner.boot().halted()
    assert found == reason


@pytest.mark.parametrize("hook", ["15-slow", "90-handover"])
@pytest.mark.parametrize("body", ["time.sleep(100)", "signal.pause()", "exec('while 1: pass')"])
def test_deadline(runner: Runner, hook: str, body: str) -> None:
    runner.write(hook, f"import os, signal, time\ndef run(state):\n    {body}\n")
    assert runner.boot(deadline=1).halted() == (hook, "hook-timeout")


def test_deadline_holds_for_a_stopped_process(runner: Runner) -> None:
    runner.write("15-stop", "import os, signal\ndef run(state):\n    os.kill(os.getpid(), signal.SIGSTOP)\n")
    assert runner.boot(deadline=1).halted() == ("15-stop", "hook-timeout")


def test_deadline_holds_with_the_pipe_closed(runner: Runner) -> None:
    runner.write("15-shut", "import os, time\ndef run(state):\n    os.closerange(3, 99); time.sleep(100)\n")
    assert runner.boot(deadline=1).halted() == ("15-shut", "hook-timeout")


def test_a_daemon_that_holds_the_pipe_does_not_hold_the_boot(runner: Runner) -> None:
    source = """
    import os, time
    if os.fork() == 0:
        for fd in (0, 1, 2):
            os.close(fd)
        time.sleep(3)
        os._exit(0)
    return {}
"""
    runner.write("15-daemon", f"def run(state):{source}")
    assert runner.boot(deadline=2).status == 0


def test_hook_that_does_not_compile(runner: Runner) -> None:
    runner.write("15-bad", "def run(state)\n")
    assert runner.boot().halted() == ("15-bad", "hook-failed")


def test_last_hook_that_returns(runner: Runner) -> None:
    runner.write("90-handover", GOOD)
    assert runner.boot().halted() == ("90-handover", "hook-exited")


def test_without_a_last_hook(runner: Runner) -> None:
    runner.write("95-more", GOOD)
    assert runner.boot().halted() == ("runner", "hook-failed")


def test_cpu_without_rdrand(runner: Runner) -> None:
    (runner.folder / "proc/cpuinfo").write_text(FLAGS.replace("rdrand", "rdrandom"))
    assert runner.boot().halted() == ("runner", "cpu-no-rdrand")


def test_module_that_does_not_load(runner: Runner) -> None:
    (runner.folder / "unloadable").touch()
    assert runner.boot().halted() == ("runner", "hook-failed")


def test_without_module_list(runner: Runner) -> None:
    (runner.folder / "usr/lib/tinboot/modules").unlink()
    assert runner.boot().halted() == ("runner", "hook-failed")
