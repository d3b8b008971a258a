"""The serial log's lines and events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serial_log import Lines, Outcome, clean, read_event

from tinboot.formats import halt


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6))
def test_lines_do_not_depend_on_how_the_bytes_come(data: bytes, cuts: list[int]) -> None:
    whole = Lines()
    expected = whole.feed(data)
    pieces = Lines()
    found = []
    at = 0
    for cut in [*sorted(cuts), len(data)]:
        found += pieces.feed(data[at:cut])
        at = max(at, cut)
    assert (found, pieces.partial) == (expected, whole.partial)
    assert expected == [clean(line) for line in data.split(b"\n")[:-1]]


def test_a_line_without_end_is_cut() -> None:
    lines = Lines()
    assert [len(line) for line in lines.feed(b"x" * 200_000)] == [65536] * 3
    assert len(lines.partial) == 200_000 - 3 * 65536


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"plain\r", "plain"),
        (b"\x1b[2J\x1b[01;01H\x1b[=3hBdsDxe: x", "BdsDxe: x"),
        (b"[\x1b[0;32m  OK  \x1b[0m] Started", "[  OK  ] Started"),
        (b"\0\x07\x08a\tb\x7f", "a\tb"),
        (b"caf\xc3\xa9 \xff", "caf\u00e9 \ufffd"),
    ],
)
def test_clean(line: bytes, text: str) -> None:
    assert clean(line) == text


reasons = st.sampled_from(sorted(halt.REASONS))


@given(st.builds(halt.Halt, st.text(max_size=20), reasons, st.text(max_size=100)), st.booleans())
def test_halt_lines(refusal: halt.Halt, from_kmsg: bool) -> None:
    event = read_event(("[   12.345678] " if from_kmsg else "") + halt.line(refusal))
    assert event is not None
    assert (event.outcome, event.halt) == (Outcome.HALTED, refusal)


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        ('tinboot-up {"uptime_ms":1}', Outcome.UP),
        ('[    1.000000] tinboot-up {"uptime_ms":1}', Outcome.UP),
        ("tinboot-up []", Outcome.GARBLED),
        ("tinboot-up {", Outcome.GARBLED),
        ('tinboot-halt {"hook":"a","reason":"made-up","detail":""}', Outcome.GARBLED),
        ('tinboot-halt {"hook":"a","reason":"root-mount","detail":"', Outcome.GARBLED),
        ("tinboot-halt [1]", Outcome.GARBLED),
        ("[    1.0] Kernel panic - not syncing: Attempted to kill init!", Outcome.PANICKED),
        ("Kernel panic - not syncing: x", Outcome.PANICKED),
        ("error: tinboot-up {}", None),
        ('bash: tinboot-halt {"hook":"a","reason":"root-mount","detail":""}', None),
        ("---[ end Kernel panic - not syncing ]---", None),
        ("", None),
        ("tinboot-up", None),
    ],
)
def test_events(line: str, outcome: Outcome | None) -> None:
    event = read_event(line)
    assert (event and event.outcome) == outcome


def test_a_refusal_that_quotes_a_hand_over_is_a_refusal() -> None:
    quoted = halt.Halt("10-config", "config-unknown-key", 'tinboot-up {"a":1}\ntinboot-up {}')
    line = halt.line(quoted)
    assert "\n" not in line
    event = read_event(line)
    assert event is not None
    assert event.halt == quoted
