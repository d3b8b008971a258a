"""The section of keys: written always alike, read strictly."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats import cryptomaterial
from tinboot.formats.cryptomaterial import MAX_KEYS, CryptoMaterial, Key, parse, render
from tinboot.formats.errors import Malformed

ONE = CryptoMaterial(b"\xaa" * 32, b"\xbb" * 32)
TWO = ONE._replace(keys=(Key("release", b"\x30\x00"), Key("b", bytes(1024))))

KEYS = st.lists(
    st.builds(
        Key,
        st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=64).filter(
            lambda name: name not in {"tls", "hpke"}
        ),
        st.binary(min_size=1, max_size=200),
    ),
    max_size=MAX_KEYS,
    unique_by=lambda key: key.id,
)


def changed(at: int, **members: object) -> bytes:
    """`TWO` with members of one item replaced; `...` takes one out."""
    section = json.loads(render(TWO))
    item = section["items"][at] | members
    section["items"][at] = {name: value for name, value in item.items() if value is not ...}
    return json.dumps(section).encode()


def section(**members: Any) -> bytes:
    found = json.loads(render(ONE)) | members
    return json.dumps({name: value for name, value in found.items() if value is not ...}).encode()


def test_the_written_form_does_not_change() -> None:
    assert render(ONE).decode() == (
        '{"format":"https://tinfoil.sh/crypto-material/v1","items":['
        '{"id":"tls","format":"https://tinfoil.sh/key/spki-fp-sha256/v1","data":"' + "aa" * 32 + '"},'
        '{"id":"hpke","format":"https://tinfoil.sh/key/x25519-hpke/v1","data":"' + "bb" * 32 + '"}]}'
    )


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), KEYS)
def test_what_is_written_is_read(tls: bytes, hpke: bytes, keys: list[Key]) -> None:
    made = CryptoMaterial(tls, hpke, tuple(keys))
    assert parse(render(made)) == made


def test_the_order_is_free() -> None:
    items = json.loads(render(TWO))["items"]
    assert parse(section(items=items[::-1])) == TWO._replace(keys=TWO.keys[::-1])


ITEMS = json.loads(render(ONE))["items"]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"[]", "crypto_material is an array"),
        (b"\xff", "not strict JSON"),
        (section(format=...), "format is missing"),
        (section(format="https://tinfoil.sh/crypto-material/v2"), "v2', expected https"),
        (section(more=1), "unknown member 'more'"),
        (section(items=...), "items is missing"),
        (section(items={}), "items is an object, expected an array"),
        (section(items=[1]), r"items\[0\] is a number, expected an object"),
        (section(items=[]), "has no 'tls'"),
        (section(items=ITEMS[:1]), "has no 'hpke'"),
        (section(items=ITEMS[1:]), "has no 'tls'"),
        (section(items=[*ITEMS, ITEMS[0]]), "has 'tls' twice"),
        (section(items=ITEMS * 10), "has 20 items, expected at most 18"),
        (changed(0, id=...), r"items\[0\].id is missing"),
        (changed(0, id="TLS"), "format is .*spki-fp-sha256/v1', expected https://tinfoil.sh/key/spki/v1"),
        (changed(0, format=cryptomaterial.SPKI), "expected https://tinfoil.sh/key/spki-fp-sha256/v1"),
        (
            changed(1, format=cryptomaterial.SPKI_FINGERPRINT),
            "expected https://tinfoil.sh/key/x25519-hpke/v1",
        ),
        (changed(2, format="https://tinfoil.sh/key/other/v1"), "expected https://tinfoil.sh/key/spki/v1"),
        (changed(0, more=1), "unknown member 'more'"),
        (changed(0, data="AA" * 32), "expected 64 lower-case hex digits"),
        (changed(0, data="aa" * 31), "expected 64 lower-case hex digits"),
        (changed(1, data=1), "a number, expected a string"),
        (changed(2, data="aaa"), "expected lower-case hex digits"),
        (changed(2, data="AA"), "expected lower-case hex digits"),
        (changed(2, data="aa" * 1025), "not one line of 1 to 2048"),
        (render(ONE)[:-2] + b',"items":[]}', "not strict JSON|stands twice"),
        (render(ONE) + b"x", "not strict JSON"),
        (b" " * 70_000, "expected at most"),
    ],
)
def test_anything_else_is_refused_by_its_path(data: bytes, told: str) -> None:
    with pytest.raises(Malformed, match=told):
        parse(data)


@given(st.data())
def test_mutations_are_refused_or_read_as_something_else(data: st.DataObject) -> None:
    """A byte less, more or other never reads as the same keys under other bytes but where JSON allows it."""
    good = render(TWO)
    at = data.draw(st.integers(0, len(good) - 1))
    mutant = good[:at] + data.draw(st.binary(max_size=2)) + good[at + 1 :]
    try:
        found = parse(mutant)
    except Malformed:
        return
    assert parse(render(found)) == found
    if found == TWO:
        assert json.loads(mutant) == json.loads(good)


@given(st.binary(max_size=60))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(Malformed):
        parse(noise)
