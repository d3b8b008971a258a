"""Words that go through Quadlet and systemd: as they were, or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit_files import command

from tinboot.formats.errors import Refused
from tinboot.guest.quadlet_words import word, words

#: What the config lets through (config_readers.block), with what is of use to an attacker more often.
CHARACTERS = st.characters(
    blacklist_categories=["Cs"],
    blacklist_characters=[chr(c) for c in (*range(32), *range(127, 160)) if chr(c) not in "\n\t"],
)
TEXTS = st.text(st.one_of(CHARACTERS, st.sampled_from("\\\"'%$; \n\t{}#=nx"))).filter(
    lambda text: text not in ("", ";")
)


@given(st.lists(TEXTS, max_size=6))
def test_systemd_reads_what_was_meant(texts: list[str]) -> None:
    line = words(texts)
    assert "\n" not in line
    assert command(line) == texts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", '"plain"'),
        ('a "b" \\', '"a \\"b\\" \\\\"'),
        ("two\nlines\tand", '"two\\nlines\\tand"'),
        ("100 %n $HOME ${X}", '"100 %%n $$HOME $${X}"'),
        ("; reboot", '"; reboot"'),
        ("ä", '"ä"'),
    ],
)
def test_is_quoted_once(text: str, expected: str) -> None:
    assert word(text) == expected


@pytest.mark.parametrize("text", ["", ";"])
def test_words_that_quadlet_loses_are_refused(text: str) -> None:
    with pytest.raises(Refused, match="argument of its own"):
        word(text)


@pytest.mark.parametrize("text", ["a\0b", "\x1b[0m", "\x7f", "\x85", "a\rb"])
def test_control_characters_are_refused(text: str) -> None:
    with pytest.raises(Refused, match="control characters"):
        word(text)
