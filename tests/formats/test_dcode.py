"""Bytes as host names: known answers, any order, one spelling."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats.dcode import HASH_DOMAIN, HPKE_DOMAIN, MAX_NAMES, decode, encode
from tinboot.formats.errors import Malformed

KEY = bytes(range(32))


def test_known_answers() -> None:
    """base32 of RFC 4648, section 6, in lower case: 45 characters fit before .hpke.tinfoil.sh."""
    assert encode(KEY, HPKE_DOMAIN) == (
        "00aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbw.hpke.tinfoil.sh",
        "01ha5dypq.hpke.tinfoil.sh",
    )
    names = encode(b"00" * 32, HASH_DOMAIN)
    assert [len(name) for name in names] == [63, 63, 31]
    assert [name[:2] for name in names] == ["00", "01", "02"]
    assert encode(b"f", "example.com") == ("00my.example.com",)


@given(st.binary(min_size=1, max_size=400), st.sampled_from([HPKE_DOMAIN, HASH_DOMAIN, "a.b", "example.com"]))
def test_what_is_written_is_read_in_any_order(data: bytes, domain: str) -> None:
    names = list(encode(data, domain))
    assert all(len(name) <= 63 for name in names)
    random.Random(1).shuffle(names)
    assert decode([*names, "localhost", "00aa.other.example"], domain) == data


def test_what_has_no_room() -> None:
    with pytest.raises(ValueError, match="0 bytes make 0 names"):
        encode(b"", "a.b")
    with pytest.raises(ValueError, match=f"expected 1 to {MAX_NAMES}"):
        encode(bytes(4000), "a.b")
    with pytest.raises(ValueError, match="leaves no room"):
        encode(b"x", "a" * 60)


GOOD = encode(KEY, HPKE_DOMAIN)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ((), "0 names below"),
        (("x.example.com",), "0 names below"),
        ((GOOD[1],), "expected 00 and base32"),
        ((GOOD[0], GOOD[0]), "expected 01 and base32"),
        ((*GOOD, GOOD[1]), "expected 02 and base32"),
        (("00.hpke.tinfoil.sh",), "expected 00 and base32"),
        (("00" + "a" * 46 + ".hpke.tinfoil.sh",), "expected 00 and base32"),
        (("xx.hpke.tinfoil.sh",), "expected 00 and base32"),
        (("00a1.hpke.tinfoil.sh",), "not base32"),
        (("00aaa.hpke.tinfoil.sh",), "not base32"),
        (("00ab.a.hpke.tinfoil.sh",), "not base32"),
        (("00mz.hpke.tinfoil.sh",), "not as they are written"),
        (("00MY.hpke.tinfoil.sh",), "not as they are written"),
        (("00my.hpke.tinfoil.sh", "01my.hpke.tinfoil.sh"), "not as they are written|not base32"),
        (tuple(f"{n}a.hpke.tinfoil.sh" for n in range(101)), "101 names"),
    ],
)
def test_anything_else_is_refused(names: tuple[str, ...], told: str) -> None:
    with pytest.raises(Malformed, match=told):
        decode(names, HPKE_DOMAIN)


@given(st.lists(st.text(max_size=50).map(lambda label: f"{label}.a.b"), max_size=3))
def test_any_names_are_one_spelling_or_refused(names: list[str]) -> None:
    try:
        data = decode(names, "a.b")
    except Malformed:
        return
    assert sorted(encode(data, "a.b")) == sorted(names)
