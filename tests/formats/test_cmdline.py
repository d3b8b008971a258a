"""The command line: render and parse are inverse, and nothing else parses."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats.cmdline import FIRMWARE_SUFFIX, FIXED, LIMIT, PARAMETERS, CommandLine, parse, render
from tinboot.formats.halt import Refusal

digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
lines = st.builds(CommandLine, digests, digests, digests, st.integers(1, 1 << 40))
LINE = CommandLine("a" * 64, "b" * 64, "c" * 64, 4096)
TEXT = render(LINE)


@given(lines)
def test_parse_inverts_render(line: CommandLine) -> None:
    text = render(line)
    assert parse(text) == line
    assert parse(text + FIRMWARE_SUFFIX) == line
    assert len(text) + len(FIRMWARE_SUFFIX) + 1 < LIMIT


@given(lines, st.data())
def test_one_changed_character_is_refused_or_another_value(line: CommandLine, data: st.DataObject) -> None:
    text = render(line)
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.characters(max_codepoint=255)) + text[at + 1 :]
    with contextlib.suppress(Refusal):
        assert render(parse(changed)) == changed


@given(st.lists(st.sampled_from([*TEXT.split(" "), "", "init=/bin/sh", "initrd=initrd"]), max_size=12))
def test_words_in_any_order_are_refused_unless_they_are_the_template(words: list[str]) -> None:
    text = " ".join(words)
    with contextlib.suppress(Refusal):
        parse(text)
        assert text in (TEXT, TEXT + FIRMWARE_SUFFIX)


def test_the_template() -> None:
    expected = (
        "console=ttyS0 quiet panic=-1 oops=panic cryptomgr.notests=1 systemd.import_credentials=no"
        f" tinboot.config-hash={'a' * 64} tinboot.root-hash={'b' * 64} tinboot.root-salt={'c' * 64}"
        " tinboot.root-blocks=4096"
    )
    assert expected == TEXT


def without(key: str) -> str:
    return " ".join(word for word in TEXT.split(" ") if not word.startswith(key))


@pytest.mark.parametrize(
    ("text", "reason", "detail"),
    [
        ("", "cmdline-malformed", "word 1 is '', not console=ttyS0"),
        (" " + TEXT, "cmdline-malformed", "word 1 is '', not console=ttyS0"),
        (TEXT + " ", "cmdline-malformed", "word 11 is '', not the end"),
        (TEXT + "\n", "cmdline-malformed", "tinboot.root-blocks is '4096\\n', not a block count"),
        (TEXT.replace(" quiet", "  quiet"), "cmdline-malformed", "word 2 is '', not quiet"),
        (TEXT.replace("quiet", "debug"), "cmdline-malformed", "word 2 is 'debug', not quiet"),
        *(
            (f"{TEXT} {word}", "cmdline-malformed", f"word 11 is '{word}', not the end")
            for word in ("init=/bin/sh", "rdinit=/x", "rd.break", "systemd.unit=x", "modprobe.blacklist=x")
        ),
        (TEXT + " tinboot.debug=1", "cmdline-malformed", "word 11 is 'tinboot.debug=1', not the end"),
        (TEXT + FIRMWARE_SUFFIX + " x", "cmdline-malformed", "word 11 is 'initrd=initrd', not the end"),
        (TEXT + FIRMWARE_SUFFIX * 2, "cmdline-malformed", "word 11 is 'initrd=initrd', not the end"),
        (TEXT + " tinboot.root-hash=" + "d" * 64, "cmdline-duplicate", "tinboot.root-hash stands 2 times"),
        (TEXT + " tinboot.config-hash", "cmdline-duplicate", "tinboot.config-hash stands 2 times"),
        (without("tinboot.root-blocks"), "cmdline-malformed", "tinboot.root-blocks is missing"),
        (without("tinboot.config"), "cmdline-malformed", "word 7 is"),
        (TEXT.replace("a" * 64, "a" * 63), "cmdline-malformed", "tinboot.config-hash is 'aaa"),
        (TEXT.replace("a" * 64, "a" * 65), "cmdline-malformed", "tinboot.config-hash is 'aaa"),
        (TEXT.replace("b" * 64, "B" * 64), "cmdline-malformed", "tinboot.root-hash is 'BBB"),
        (TEXT.replace("c" * 64, "\u0661" * 64), "cmdline-malformed", "tinboot.root-salt is '\\u0661"),
        (TEXT.replace("4096", "04096"), "cmdline-malformed", "tinboot.root-blocks is '04096', not a block"),
        (TEXT.replace("4096", "0"), "cmdline-malformed", "tinboot.root-blocks is '0', not a block count"),
        (TEXT.replace("4096", ""), "cmdline-malformed", "tinboot.root-blocks is '', not a block count"),
        (TEXT.replace("4096", "+1"), "cmdline-malformed", "tinboot.root-blocks is '+1', not a block count"),
        (TEXT.replace("4096", "\u0664"), "cmdline-malformed", "tinboot.root-blocks is '\\u0664', not a"),
        (TEXT.replace("4096", str((1 << 40) + 1)),
         "cmdline-malformed", "tinboot.root-blocks is '1099511627777'"),
        (TEXT + " " + "x" * LIMIT, "cmdline-malformed", f"the command line has {LIMIT} bytes or more"),
        (TEXT + " \udcff", "cmdline-malformed", "word 11 is '\\udcff', not the end"),
    ],
)  # fmt: skip
def test_refuses(text: str, reason: str, detail: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse(text)
    assert refused.value.reason == reason
    assert refused.value.detail.startswith(detail)


@pytest.mark.parametrize("word", [*FIXED, *PARAMETERS])
def test_every_word_is_required(word: str) -> None:
    with pytest.raises(Refusal, match="cmdline-malformed"):
        parse(without(word))


@pytest.mark.parametrize(
    "line",
    [
        LINE._replace(config_hash="A" * 64),
        LINE._replace(root_hash=""),
        LINE._replace(root_salt="c" * 64 + " init=/bin/sh"),
        LINE._replace(root_blocks=0),
        LINE._replace(root_blocks=-1),
        LINE._replace(root_blocks=(1 << 40) + 1),
    ],
)
def test_renders_nothing_that_it_would_refuse(line: CommandLine) -> None:
    with pytest.raises(Refusal, match="cmdline-malformed"):
        render(line)
