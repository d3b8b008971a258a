"""Revocation lists: signed by the root, complete, and nothing in them passed over."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import fake_amd
import pytest
import stub_chain
import stub_der as der
from fake_amd import NOW
from hypothesis import given, settings
from hypothesis import strategies as st
from stub_chain import Extension, pss

from tinboot.formats.errors import Malformed, Mismatch, TinbootError
from tinboot.verify import crl
from tinboot.verify.crl import Revocations

AMD = fake_amd.authority()
ROOT = fake_amd.endorsement().chain[2]
LIST = AMD.revoke(AMD.revocations(1, 0x10001))


def test_what_it_says() -> None:
    found = crl.read(LIST, ROOT)
    assert found.serials == {1, 0x10001}
    assert (found.this_update, found.next_update) == (NOW - timedelta(days=1), NOW + timedelta(days=30))
    assert found.root == ROOT.fingerprint


def test_pem_and_an_empty_list() -> None:
    empty = AMD.revoke(AMD.revocations())
    assert crl.read(stub_chain.pem([empty], "X509 CRL"), ROOT).serials == frozenset()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"signer": "ask"}, Mismatch, "the signature of the revocation list by 'ARK-Genoa' does not hold"),
        ({"issuer": "ARK-Milan"}, Mismatch, "of another issuer than 'ARK-Genoa'"),
        ({"issuer": "SEV-Genoa"}, Mismatch, "of another issuer than 'ARK-Genoa'"),
        ({"algorithm": pss(32)}, Mismatch, "not signed with RSASSA-PSS"),
        ({"next_update": None}, Malformed, "does not say when the next one comes"),
        ({"extensions": (Extension("2.5.29.28", der.sequence(), critical=True),)}, Malformed, "2.5.29.28"),
        ({"extensions": (Extension("2.5.29.27", der.integer(1)),)}, Malformed, "2.5.29.27"),
        ({"serials": tuple(range(1002))}, Malformed, "more than 1000 entries"),
    ],
)
def test_what_is_refused(change: dict[str, Any], error: type[TinbootError], message: str) -> None:
    data = AMD.revoke(AMD.revocations()._replace(**change))
    with pytest.raises(error, match=message):
        crl.read(data, ROOT)


def test_two_lists_and_no_list() -> None:
    with pytest.raises(Malformed, match="2 revocation lists, expected one"):
        crl.read(stub_chain.pem([LIST, LIST], "X509 CRL"), ROOT)
    with pytest.raises(Malformed, match="a CERTIFICATE, expected a X509 CRL"):
        crl.read(stub_chain.pem([ROOT.der]), ROOT)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, len(LIST) * 8 - 1))
def test_any_flipped_bit_is_refused(bit: int) -> None:
    altered = bytearray(LIST)
    altered[bit // 8] ^= 1 << bit % 8
    with pytest.raises(TinbootError):
        crl.read(bytes(altered), ROOT)


def test_nothing_else_makes_one() -> None:
    with pytest.raises(TypeError, match="made by verifying"):
        Revocations(object(), ROOT.fingerprint, frozenset(), NOW, NOW)
    with pytest.raises(AttributeError):
        crl.read(LIST, ROOT).serials = frozenset()
