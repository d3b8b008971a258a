"""The halt line: back and forth, closed, and one line whatever the detail."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats.halt import PREFIX, REASONS, Halt, Refusal, line, parse

reasons = st.sampled_from(sorted(REASONS))


@given(st.text(max_size=30), reasons, st.text(max_size=500))
def test_parse_inverts_line(hook: str, reason: str, detail: str) -> None:
    assert parse(line(Halt(hook, reason, detail))) == Halt(hook, reason, detail[:400])


@given(st.text(max_size=30), reasons, st.text(max_size=500))
def test_one_line_of_ascii(hook: str, reason: str, detail: str) -> None:
    text = line(Halt(hook, reason, detail))
    assert text.isascii()
    assert text.isprintable()


def test_the_line_itself() -> None:
    told = line(Halt("20-root", "root-hash-mismatch", 'a "b"\n'))
    assert told == 'tinboot-halt {"hook":"20-root","reason":"root-hash-mismatch","detail":"a \\"b\\"\\n"}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a halt line"),
        ('{"hook":"a","reason":"root-missing","detail":""}', "not a halt line"),
        (" " + PREFIX + "{}", "not a halt line"),
        (PREFIX + "[]", "a halt line has hook, reason and detail"),
        (PREFIX + '{"hook":"a","reason":"root-missing"}', "a halt line has hook, reason and detail"),
        (PREFIX + '{"hook":"a","reason":"root-missing","detail":"","more":1}', "a halt line has hook"),
        (PREFIX + '{"hook":"a","reason":"made-up","detail":""}', "unknown halt reason 'made-up'"),
        (PREFIX + "{", "Expecting"),
        (PREFIX + '{"hook":"a","reason":"root-missing","detail":""} x', "Extra data"),
    ],
)
def test_parse_refuses(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_a_refusal_carries_reason_and_detail() -> None:
    refusal = Refusal("root-missing", "no disk")
    assert (refusal.reason, refusal.detail, str(refusal)) == (
        "root-missing",
        "no disk",
        "root-missing: no disk",
    )


def test_an_undeclared_reason_is_a_failed_hook() -> None:
    refusal = Refusal("made-up", "why")
    assert (refusal.reason, refusal.detail) == ("hook-failed", "undeclared reason made-up: why")


def test_reasons_are_short_words_with_one_line_each() -> None:
    for reason, meaning in REASONS.items():
        assert set(reason) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        assert 10 < len(meaning) <= 110
        assert meaning.isascii()
