"""The HPKE key configuration: 41 bytes, one suite."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats.errors import Malformed
from tinboot.formats.hpkekeys import SIZE, parse, render

KEY = bytes(range(32))


def test_the_written_form_does_not_change() -> None:
    assert SIZE == 41
    assert render(KEY).hex() == "000020" + KEY.hex() + "000400010002"


@given(st.binary(min_size=32, max_size=32))
def test_what_is_written_is_read(key: bytes) -> None:
    assert parse(render(key)) == key


@pytest.mark.parametrize("size", [0, 31, 33])
def test_no_other_key_is_written(size: int) -> None:
    with pytest.raises(ValueError, match=f"of {size} bytes, expected 32"):
        render(bytes(size))


@pytest.mark.parametrize("at", [*range(3), *range(35, 41)])
def test_another_suite(at: int) -> None:
    data = bytearray(render(KEY))
    data[at] ^= 1
    with pytest.raises(Malformed, match="X25519, HKDF-SHA256, AES-256-GCM"):
        parse(bytes(data))


@given(st.binary(max_size=120).filter(lambda data: len(data) != SIZE))
def test_another_length(data: bytes) -> None:
    """With RFC 9458's length before it, or two configurations, among others."""
    with pytest.raises(Malformed, match=f"of {len(data)} bytes, expected 41"):
        parse(data)
    with pytest.raises(Malformed):
        parse(b"\0\x29" + render(KEY))
    with pytest.raises(Malformed):
        parse(render(KEY) * 2)
