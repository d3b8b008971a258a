"""Strict JSON: what each reader takes, and that nothing else gets past."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats.errors import Malformed
from tinboot.formats.jsonfields import MAX_DEPTH, Fields, parse_array, parse_object


def of(value: object) -> Fields:
    return parse_object("it", json.dumps({"a": value}).encode(), 1 << 20)


def nested(depth: int) -> bytes:
    """An object with arrays in it, `depth` in all."""
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


def test_depth() -> None:
    parse_object("it", nested(MAX_DEPTH), 1000)
    for depth in (MAX_DEPTH + 1, 500):
        with pytest.raises(Malformed, match="it is nested deeper than 32"):
            parse_object("it", nested(depth), 2000)
    with pytest.raises(Malformed, match="it is n"):  # too deep for the decoder, or for us
        parse_object("it", nested(1 << 17), 1 << 20)
    with pytest.raises(Malformed, match="nested deeper"):
        parse_object("it", b'{"a":' * 100 + b"1" + b"}" * 100, 2000)
    with pytest.raises(Malformed, match="nested deeper"):
        parse_array("it", b"[" * 100 + b"]" * 100, 2000)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"{}}",
        b"{} x",
        b"\xef\xbb\xbf{}",
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":1}}',
        b'{"a":1.0}',
        b'{"a":1e3}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":01}',
        b"{'a':1}",
        b'{"a":1,}',
        b'{"a":"\n"}',
        b'{"a":"\xff"}',
        b'{"a":' + b"9" * 5000 + b"}",
        '{"a":1}'.encode("utf-16"),
    ],
)
def test_what_is_not_strict(data: bytes) -> None:
    with pytest.raises(Malformed, match="it is not strict JSON"):
        parse_object("it", data, 10_000)


def test_size_is_looked_at_first() -> None:
    parse_object("it", b"{}" + b" " * 8, 10)
    with pytest.raises(Malformed, match="it has 11 bytes, expected at most 10"):
        parse_object("it", b"{}" + b" " * 9, 10)


Read = Callable[[Fields], Any]


@pytest.mark.parametrize(
    ("read", "good", "result"),
    [
        (lambda f: f.text("a"), "x", "x"),
        (lambda f: f.text("a", 3, 0), "", ""),
        (lambda f: f.lines("a", 9), "a\nb\n", "a\nb\n"),
        (lambda f: f.boolean("a"), True, True),
        (lambda f: f.integer("a", 0, 9), 9, 9),
        (lambda f: f.one_of("a", ("x", "y")), "y", "y"),
        (lambda f: f.base64("a", 3), "AAEC", b"\0\1\2"),
        (lambda f: f.base64("a", 3, 0), "", b""),
        (lambda f: f.hexadecimal("a", 4), "00af", "00af"),
        (lambda f: f.opaque("a", 20), {"b": ["é"]}, b'{"b":["\\u00e9"]}'),
        (lambda f: f.is_null("a"), None, True),
    ],
)
def test_readers(read: Read, good: object, result: object) -> None:
    fields = of(good)
    assert read(fields) == result
    fields.end()


@pytest.mark.parametrize(
    ("read", "bad", "told"),
    [
        (lambda f: f.text("a"), "", "not one line of 1 to 256"),
        (lambda f: f.text("a"), "a\nb", "not one line"),
        (lambda f: f.text("a"), "\ud800", "not one line"),
        (lambda f: f.text("a", 3), "abcd", "not one line of 1 to 3"),
        (lambda f: f.lines("a", 9), "", "not text of 1 to 9"),
        (lambda f: f.lines("a", 9), "\r\n", "not text"),
        (lambda f: f.lines("a", 9), "é", "not text"),
        (lambda f: f.lines("a", 9), "a" * 10, "not text"),
        (lambda f: f.lines("a", 9), 1, "a number, expected a string"),
        (lambda f: f.boolean("a"), 1, "a number, expected true or false"),
        (lambda f: f.integer("a", 0, 9), True, "true, expected a whole number"),
        (lambda f: f.integer("a", 0, 9), 10, "10, expected 0 to 9"),
        (lambda f: f.one_of("a", ("x", "y")), "X", "'X', expected x or y"),
        (lambda f: f.base64("a", 3), 1, "a number, expected a string"),
        (lambda f: f.base64("a", 3), "", "has 0 bytes, expected 1 to 3"),
        (lambda f: f.base64("a", 3), "AAECAA==", "has 4 bytes, expected 1 to 3"),
        (lambda f: f.base64("a", 3), "A" * 12, "has 12 characters, expected base64 of at most 3"),
        (lambda f: f.base64("a", 3), "AAE", "not in base64"),
        (lambda f: f.base64("a", 3), "AA E", "not in base64"),
        (lambda f: f.base64("a", 3), "AAE\n", "not in base64"),
        (lambda f: f.base64("a", 3), "__8=", "not in base64"),
        (lambda f: f.base64("a", 3), "é", "not in base64"),
        (lambda f: f.base64("a", 3), "AB==", "not in canonical base64"),
        (lambda f: f.base64("a", 3), "AAF=", "not in canonical base64"),
        (lambda f: f.hexadecimal("a", 4), "00AF", "expected 4 lower-case hex digits"),
        (lambda f: f.hexadecimal("a", 4), "00a", "expected 4 lower-case hex digits"),
        (lambda f: f.hexadecimal("a", 4), "\u0660" * 4, "expected 4 lower-case hex digits"),
        (lambda f: f.opaque("a", 20), [], "an array, expected an object"),
        (lambda f: f.opaque("a", 5), {"b": 1}, "has 7 bytes, expected at most 5"),
        (lambda f: f.text("b"), 1, "it.b is missing"),
        (lambda f: f.end(), 1, "unknown member 'a'"),
        (lambda f: f.record("a").end(), {"b": 1}, "it.a has the unknown member 'b'"),
    ],
)
def test_readers_refuse(read: Read, bad: object, told: str) -> None:
    with pytest.raises(Malformed, match=told):
        read(of(bad))


def test_what_is_only_looked_at_stays() -> None:
    fields = of(1)
    assert fields.has("a")
    assert not fields.has("b")
    assert not fields.is_null("a")
    assert not fields.is_null("b")
    with pytest.raises(Malformed, match="unknown member"):
        fields.end()


@given(st.binary(min_size=1, max_size=64))
def test_base64_has_one_spelling(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    assert of(text).base64("a", 64) == data


@given(st.text(max_size=12) | st.text("AQgw/+=B\n", max_size=12))
def test_any_text_is_that_spelling_or_refused(text: str) -> None:
    try:
        data = of(text).base64("a", 9, 0)
    except Malformed:
        return
    assert base64.b64encode(data).decode() == text
