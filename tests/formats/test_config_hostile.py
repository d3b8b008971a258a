"""Hostile configs: `load` gives a Config or raises Refusal, and its work is bounded by the input's length."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinboot.formats.config import Config, load
from tinboot.formats.halt import Refusal
from tinboot.formats.yamlevents import BYTES, Events

PAGE = (Path(__file__).parents[2] / "docs/config.md").read_text(encoding="utf-8")
WHOLE = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.M | re.S)[-1].encode()
REASONS = {
    f"config-{end}" for end in ("not-utf8", "malformed", "too-complex", "too-large", "unknown-key", "invalid")
}

#: What a mutation puts in: YAML's indicators, line breaks, escapes, long runs, words of other types.
PIECES = [
    *(b"\n", b"\r\n", b"\r", b" ", b"\t", b"  - ", b"- ", b"? ", b": ", b":", b"#", b" # ", b","),
    *(b"[", b"]", b"{", b"}", b"&a ", b"*a", b"!!str ", b"! ", b"|\n", b">-\n", b"|9\n", b"%YAML 1.1\n"),
    *(b"---\n", b"...\n", b"@", b"`", b"'", b'"', b'"\\', b"\\x", b"\\u12", b"\\UFFFFFFFF", b"\0", b"\xff"),
    *(b"\xc3", "\u2028".encode(), b"\xef\xbb\xbf", b"<<: ", b"~", b"no", b"0x1", b"1:30", b"-1"),
    *(b"[" * 70, b"{a: " * 70, b"- " * 70, b"? " * 70, b"a" * 1100, b" " * 1100),
]  # fmt: skip


def outcome(document: bytes) -> str:
    """Anything but a Config or a Refusal with one of its reasons fails the test."""
    try:
        config = load(document)
    except Refusal as refused:
        reason, detail = refused.reason, refused.detail
    else:
        assert isinstance(config, Config)
        return "loaded"
    assert reason in REASONS
    assert reason == "config-too-large" or detail.startswith("line ")
    return reason


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """The whole example with pieces put in, taken out or doubled, at any byte."""
    document = bytearray(WHOLE)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(document)))
        end = min(len(document), at + draw(st.integers(0, 40)))
        replacement = draw(st.sampled_from([b"", bytes(document[at:end]) * 2, *PIECES]))
        document[at : end if draw(st.booleans()) else at] = replacement
    return bytes(document)


@given(mutations())
@settings(max_examples=400, deadline=None)
def test_a_mutated_config_loads_or_is_refused(document: bytes) -> None:
    outcome(document)


@given(st.lists(st.sampled_from(PIECES) | st.sampled_from([b"a", b"cpus", b"1"]), max_size=25).map(b"".join))
@settings(max_examples=400, deadline=None)
def test_any_run_of_indicators_loads_or_is_refused(document: bytes) -> None:
    assert outcome(document) != "loaded"


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(document: bytes) -> None:
    assert outcome(document) != "loaded"


@given(st.text(max_size=60))
def test_any_text_is_refused(text: str) -> None:
    assert outcome(text.encode(errors="surrogatepass")) != "loaded"


keys = st.sampled_from(sorted(set(re.findall(r"^[ -]*([a-z_-]+):", WHOLE.decode(), re.M))))
values = st.recursive(
    st.sampled_from(
        ["1", "0", "true", "no", "all", "''", "a", "64", "1.5", "8g", "~", "'0,1'", "/a", "a:/b", "x@y"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(keys, inner, max_size=4).map(
            lambda items: "{" + ", ".join(f"{key}: {value}" for key, value in items.items()) + "}"
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(keys, values, max_size=6))
@settings(max_examples=400, deadline=None)
def test_well_formed_nonsense_loads_or_is_refused(config: dict[str, str]) -> None:
    config = {"cpus": "1", "memory": "64"} | config
    outcome("".join(f"{key}: {value}\n" for key, value in config.items()).encode())


def repeated(piece: bytes, before: bytes = b"") -> bytes:
    return (before + piece * (BYTES // len(piece)))[:BYTES]


HOSTILE: dict[str, bytes] = {
    "flow lists": repeated(b"["),
    "flow mappings": repeated(b"{"),
    "flow mappings with keys": repeated(b"{a: "),
    "flow lists over lines": repeated(b"[\n"),
    "block lists": repeated(b"- "),
    "explicit keys": repeated(b"? "),
    "empty values": repeated(b": "),
    "commas": repeated(b",", b"["),
    "empty lists": repeated(b"[],", b"["),
    "one plain scalar": repeated(b"a"),
    "words": repeated(b"a "),
    "plain scalar over lines": repeated(b"a\n"),
    "plain scalar in a flow": repeated(b"a ", b"["),
    "long possible key": repeated(b"a", b"a: b\n'"),
    "quoted scalar": repeated(b"x", b'a: "'),
    "escapes": repeated(b"\\x41", b'a: "'),
    "folded quotes": repeated(b"x\n\n", b'a: "'),
    "doubled quotes": repeated(b"''", b"a: '"),
    "literal block": repeated(b" x\n", b"a: |\n"),
    "folded block": repeated(b" x\n\n", b"a: >\n"),
    "empty block lines": repeated(b"\n", b"a: |\n"),
    "comments": repeated(b"#\n"),
    "one comment": repeated(b"#"),
    "blank lines": repeated(b"\n"),
    "spaces": repeated(b" "),
    "document ends": repeated(b"...\n", b"a: b\n"),
    "document starts": repeated(b"---\n"),
    "directives": repeated(b"%a\n"),
    "anchors": repeated(b"&a ", b"a: "),
    "tags": repeated(b"!a ", b"a: "),
    "aliases": repeated(b"*a, ", b"a: ["),
    "pairs": repeated(b"a: b\n"),
    "pairs in a flow": repeated(b"a: b, ", b"{"),
    "items": repeated(b"- a\n"),
    "quotes": repeated(b"'' "),
    "brackets closed": repeated(b"]"),
    "lists in a mapping": repeated(b"- a\n", b"models:\n"),
    "wide keys": repeated(b"k" * 1000 + b"? "),
    "stairs": b"".join(b" " * level + b"a:\n" for level in range(1400))[:BYTES],
    "not UTF-8 at the end": repeated(b"a")[:-1] + b"\xff",
}  # fmt: skip


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """[characters looked at, turns of the loop over possible keys], summed over the test."""
    counts = [0, 0]

    def counting(method: str, cost: Callable[[int], int]) -> None:
        original = getattr(Events, method)

        def wrapped(self: Events, number: int = method != "peek") -> object:
            counts[0] += cost(number)
            return original(self, number)

        monkeypatch.setattr(Events, method, wrapped)

    counting("peek", lambda _: 1)
    counting("prefix", lambda number: number)
    counting("forward", lambda number: number)
    stale = Events.stale_possible_simple_keys

    def walking(self: Events) -> None:
        counts[1] += len(self.possible_simple_keys)
        stale(self)

    monkeypatch.setattr(Events, "stale_possible_simple_keys", walking)
    return counts


@pytest.mark.parametrize("name", HOSTILE)
def test_work_is_linear_in_the_input(name: str, counted: list[int]) -> None:
    """By characters looked at, not by time. A megabyte of each; the scanner looks at one about ten times."""
    assert outcome(HOSTILE[name]) != "loaded"
    assert counted[0] <= 16 * BYTES
    assert counted[1] <= 4 * BYTES
