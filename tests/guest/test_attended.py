"""Work that can be given up: its result, its refusal, and every way of not coming back."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from tinboot.formats.halt import Refusal
from tinboot.guest.attended import Attendance, Broken, Overdue, attend


def short(_: str) -> float:
    return 0.3


def test_the_result_comes_back() -> None:
    def work(attendance: Attendance) -> object:
        with attendance.call("one"):
            return {"pid": os.getpid()}

    result = attend(work, short)
    assert isinstance(result, dict)
    assert result["pid"] != os.getpid()


def test_a_large_result_comes_back_whole() -> None:
    assert attend(lambda _: "x" * 500_000, short) == "x" * 500_000


def test_meanwhile_something_else_is_done_here() -> None:
    done: list[int] = []
    assert attend(lambda _: os.getpid(), short, meanwhile=lambda: done.append(os.getpid())) != os.getpid()
    assert done == [os.getpid()]


def test_work_ends_where_what_is_done_meanwhile_fails(tmp_path: Path) -> None:
    def work(_: Attendance) -> object:
        (tmp_path / "new").write_text(str(os.getpid()))
        (tmp_path / "new").rename(tmp_path / "pid")
        time.sleep(60)
        return None

    def fail() -> None:
        while not (tmp_path / "pid").exists():
            time.sleep(0.01)
        raise ImportError("no such module")

    with pytest.raises(ImportError):
        attend(work, short, meanwhile=fail)
    pid = int((tmp_path / "pid").read_text())
    with contextlib.suppress(ChildProcessError):  # it may have been reaped already
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL


def test_a_refusal_is_raised_again() -> None:
    def work(attendance: Attendance) -> object:
        with attendance.call("one"):
            raise Refusal("gpu-count", "there are none")

    with pytest.raises(Refusal, match="there are none") as caught:
        attend(work, short)
    assert caught.value.reason == "gpu-count"


def test_a_bug_is_told_by_name() -> None:
    with pytest.raises(Broken, match=r"ZeroDivisionError: .*by zero"):
        attend(lambda _: 1 // 0, short)


def test_a_call_that_hangs_is_named() -> None:
    def work(attendance: Attendance) -> object:
        with attendance.call("first"):
            pass
        with attendance.call("second"):
            time.sleep(60)
        return None

    with pytest.raises(Overdue, match=r"second did not come back within 0\.3 s"):
        attend(work, short)


def test_one_thread_that_hangs_among_others_is_named() -> None:
    def call(attendance: Attendance, number: int) -> None:
        with attendance.call(f"call {number}"):
            time.sleep(60 if number == 2 else 0)

    def work(attendance: Attendance) -> object:
        threads = [threading.Thread(target=call, args=(attendance, number)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return None

    with pytest.raises(Overdue) as caught:
        attend(work, short)
    assert caught.value.name == "call 2"


def test_silence_between_calls_has_a_deadline() -> None:
    with pytest.raises(Overdue, match="the next call"):
        attend(lambda _: time.sleep(60), short, between=0.3)


def test_each_call_has_the_time_of_its_name() -> None:
    def work(attendance: Attendance) -> object:
        for name in ("long", "short"):
            with attendance.call(name):
                time.sleep(0.4)
        return None

    with pytest.raises(Overdue) as caught:
        attend(work, lambda name: 20 if name == "long" else 0.2)
    assert caught.value.name == "short"


@pytest.mark.parametrize("signal", [9, 15])
def test_a_process_that_dies_has_no_result(signal: int) -> None:
    def work(attendance: Attendance) -> object:
        with attendance.call("one"):
            os.kill(os.getpid(), signal)
        return None

    with pytest.raises(Broken, match="ended without a result"):
        attend(work, short)


def test_an_exit_is_no_result() -> None:
    with pytest.raises(Broken, match="SystemExit"):
        attend(lambda _: sys.exit(0), short)


def test_a_flood_is_cut_off() -> None:
    def work(attendance: Attendance) -> object:
        with attendance.call("one"):
            while True:
                attendance.say({"end": -1, "noise": "x" * 10_000})

    with pytest.raises(Broken, match="it says too much"):
        attend(work, short)


def test_nothing_is_left_of_it() -> None:
    def work(attendance: Attendance) -> object:
        attendance.say({"result": os.getpid()})
        time.sleep(60)
        return None

    pid = attend(work, short)
    assert isinstance(pid, int)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            done, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return
        if done:
            assert status == 9
            return
    pytest.fail("the process is still there")


def test_it_has_no_descriptor_of_its_callers() -> None:
    """Above all not the gate's, on which the outcome goes to the initrd."""
    kept = fcntl.fcntl(0, fcntl.F_DUPFD, 100)  # above what the listing itself opens
    try:
        listed = attend(lambda _: [path.name for path in Path("/proc/self/fd").iterdir()], short)
    finally:
        os.close(kept)
    assert isinstance(listed, list)
    assert str(kept) not in listed
    assert {"0", "1", "2"} <= set(listed)
