"""Collections for callers: real processes, one at a time, in turn, given up; how many may be asked for."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from tinboot.formats.halt import Refusal
from tinboot.guest.attended import Attendance
from tinboot.guest.collector import Collector, Limits, limits
from tinboot.guest.http_response import Response

MANY = Limits(rate=1000, burst=1000, queue=1000)


class Clock:
    """Stands still but for what tests add."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def saying(text: str) -> Callable[[Attendance], str]:
    return lambda attendance: text


def hanging(attendance: Attendance) -> str:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    with attendance.call("nvmlHang of GPU 1"):
        time.sleep(600)
    return "never"


def ticket(answer: Response | int) -> int:
    assert isinstance(answer, int)
    return answer


def turns(collector: Collector, count: int = 1) -> dict[int, Response]:
    """What the server does until `count` answers are there."""
    found: dict[int, Response] = {}
    for _ in range(2000):
        pipe = collector.descriptor()
        readable = pipe >= 0 and bool(select.select([pipe], [], [], 0.01)[0])
        found |= dict(collector.step(readable))
        if len(found) >= count:
            return found
        time.sleep(0.001)
    raise AssertionError(f"{len(found)} answers of {count}")


def wait_for_word(collector: Collector) -> None:
    """Until the process has begun to say something."""
    turns(collector, 0)
    assert select.select([collector.descriptor()], [], [], 30)[0]
    assert dict(collector.step(True)) == {}


def test_a_document() -> None:
    collector = Collector(MANY)
    number = ticket(collector.ask(saying("{}")))
    assert turns(collector) == {number: Response(200, b"{}")}
    assert collector.descriptor() == -1


def test_in_turn_and_one_at_a_time() -> None:
    """Each process says its own number, so that no two have been one."""
    collector = Collector(MANY)
    numbers = [ticket(collector.ask(lambda attendance: str(os.getpid()))) for _ in range(5)]
    found = turns(collector, 5)
    assert list(found) == numbers
    assert len({response.body for response in found.values()} | {str(os.getpid()).encode()}) == 6


def test_a_long_document() -> None:
    collector = Collector(MANY)
    collector.ask(saying("x" * (1 << 20)))
    (response,) = turns(collector).values()
    assert len(response.body) == 1 << 20


def refusing(attendance: Attendance) -> str:
    raise Refusal("report-mismatch", "another's")


def failing(attendance: Attendance) -> str:
    raise ZeroDivisionError("planted")


def dying(attendance: Attendance) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


def flooding(attendance: Attendance) -> str:
    return "x" * (5 << 20)


def odd(attendance: Attendance) -> object:
    return ["no text"]


@pytest.mark.parametrize(
    ("work", "why"),
    [
        (refusing, "report-mismatch: another's"),
        (failing, "ZeroDivisionError: planted"),
        (dying, "ended without a word"),
        (flooding, "says too much"),
        (odd, "ended without a word"),
    ],
)
def test_without_evidence_there_is_no_document(
    work: Callable[[Attendance], object], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The console learns why; the caller does not."""
    collector = Collector(MANY)
    collector.ask(work)
    (response,) = turns(collector).values()
    assert response.status == 503
    assert dict(response.more)["Retry-After"] == "5"
    assert why in capsys.readouterr().err
    assert why.encode() not in response.body


def test_the_bucket(clock: Clock) -> None:
    collector = Collector(Limits(rate=2, burst=3, queue=100), clock)
    answers = [collector.ask(saying("")) for _ in range(5)]
    assert [isinstance(answer, int) for answer in answers] == [True, True, True, False, False]
    assert isinstance(answers[4], Response)
    assert answers[4].status == 429
    assert dict(answers[4].more) == {"Retry-After": "1"}
    clock.now += 0.6
    assert [isinstance(collector.ask(saying("")), int) for _ in range(2)] == [True, False]
    clock.now += 3600
    assert [isinstance(collector.ask(saying("")), int) for _ in range(4)] == [True] * 3 + [False]


def test_the_queue_is_bounded(clock: Clock) -> None:
    collector = Collector(MANY._replace(queue=3), clock)
    answers = [collector.ask(saying("")) for _ in range(1000)]
    assert sum(isinstance(answer, int) for answer in answers) == 3
    assert {answer.status for answer in answers if isinstance(answer, Response)} == {429}


def test_who_has_gone_is_passed_over() -> None:
    collector = Collector(MANY)
    numbers = [ticket(collector.ask(saying(""))) for _ in range(3)]
    collector.drop(numbers[1])
    assert list(turns(collector, 2)) == [numbers[0], numbers[2]]


@pytest.fixture
def hung(clock: Clock) -> Iterator[tuple[Collector, int]]:
    collector = Collector(MANY, clock)
    number = ticket(collector.ask(hanging))
    wait_for_word(collector)
    yield collector, number
    clock.now += 3600
    assert all(response.status == 503 for _, response in collector.step(False))


def test_a_device_that_hangs_costs_one_deadline(
    hung: tuple[Collector, int], clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    collector, number = hung
    assert collector.due() == clock.now + Limits().deadline
    clock.now += Limits().deadline
    found = dict(collector.step(False))
    assert found[number].status == 503
    assert "nvmlHang of GPU 1 did not come back" in capsys.readouterr().err
    last = ticket(collector.ask(saying("{}")))
    assert turns(collector) == {last: Response(200, b"{}")}


def test_a_process_that_cannot_be_ended_is_the_last(
    hung: tuple[Collector, int], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that hangs in the kernel outlives its SIGKILL: whoever asks then is told so at once."""
    collector, number = hung
    asked = []

    def still_there(process: int, options: int) -> tuple[int, int]:
        asked.append(process)
        return 0, 0

    real = os.waitpid
    monkeypatch.setattr(os, "waitpid", still_there)
    clock.now += Limits().deadline
    assert list(dict(collector.step(False))) == [number]
    waits = ticket(collector.ask(saying("{}")))
    assert dict(collector.step(False)) == {}  # it may go in a moment
    assert collector.due() <= clock.now + 0.1
    clock.now += 5
    assert {n: r.status for n, r in collector.step(False)} == {waits: 503}
    more = ticket(collector.ask(saying("{}")))
    assert {n: r.status for n, r in collector.step(False)} == {more: 503}
    assert collector.descriptor() == -1
    monkeypatch.setattr(os, "waitpid", real)
    os.waitid(os.P_PID, asked[0], os.WEXITED | os.WNOWAIT)
    again = ticket(collector.ask(saying("{}")))
    assert turns(collector) == {again: Response(200, b"{}")}


def test_nobody_waits_for_ever(hung: tuple[Collector, int], clock: Clock) -> None:
    collector, _ = hung
    waits = ticket(collector.ask(saying("{}")))
    clock.now += Limits().patience
    found = dict(collector.step(False))
    assert found[waits].status == 503
    assert collector.due() == float("inf")


def test_what_is_left_when_nothing_is_asked() -> None:
    assert Collector(MANY).due() == float("inf")


def test_deadlines_grow_with_the_gpus() -> None:
    assert limits(8).deadline == limits(0).deadline + 40
    assert limits(8).patience > limits(8).deadline
