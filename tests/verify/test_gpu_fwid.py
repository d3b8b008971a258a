"""The firmware identity in a key's certificate: both forms are read, and nothing that is nearly one is."""

from __future__ import annotations

import pytest
import stub_der as der
import stub_nvidia
from hypothesis import given, settings
from hypothesis import strategies as st
from stub_chain import spki
from stub_nvidia import FWID_OIDS, HOPPER_FWID, TCB_INFO, Arch

from tinboot.formats.errors import Malformed, Mismatch, TinbootError
from tinboot.verify import certificate, gpu_fwid
from tinboot.verify.gpu_fwid import Fwid

KEY = stub_nvidia.key("a boot ROM")
SPKI = spki(KEY.public_key())
DIGEST = bytes(range(48))
SHA384, SHA256 = der.oid(stub_nvidia.SHA384), der.oid("2.16.840.1.101.3.4.2.1")
PAIR = der.sequence(SHA384, der.octets(DIGEST))


def read(oid: str, value: bytes) -> Fwid | None:
    """Of a leaf with that extension in the place of its own."""
    form = stub_nvidia.chain().forms[0].without_extension(HOPPER_FWID)
    return gpu_fwid.read(certificate.parse(form.with_extension(oid, value).issue()))


@pytest.mark.parametrize("arch", FWID_OIDS)
def test_both_forms(arch: Arch) -> None:
    found = read(FWID_OIDS[arch], stub_nvidia.fwid_extension(arch, DIGEST, KEY))
    assert found == Fwid(DIGEST, SPKI if arch == "HOPPER" else None)


def test_none() -> None:
    form = stub_nvidia.chain().forms[0].without_extension(HOPPER_FWID)
    assert gpu_fwid.read(certificate.parse(form.issue())) is None


def test_of_several_the_first_counts_and_members_may_be_left_out() -> None:
    other = der.sequence(SHA384, der.octets(bytes(48)))
    value = der.sequence(der.element(0x83, b"\x03"), der.element(0xA6, PAIR + other))
    assert read(TCB_INFO, value) == Fwid(DIGEST, None)


def test_both_forms_at_once_are_none() -> None:
    form = stub_nvidia.chain().forms[0]
    form = form.with_extension(TCB_INFO, stub_nvidia.fwid_extension("BLACKWELL", DIGEST, KEY))
    with pytest.raises(Mismatch, match="states its firmware twice"):
        gpu_fwid.read(certificate.parse(form.issue()))


@pytest.mark.parametrize(
    ("oid", "value", "message"),
    [
        (HOPPER_FWID, der.sequence(der.integer(2), SPKI, PAIR), "version 2, expected 1"),
        (HOPPER_FWID, der.sequence(der.integer(1), SPKI, PAIR, PAIR), "bytes too many"),
        (HOPPER_FWID, der.sequence(der.integer(1), PAIR), "offset"),
        (HOPPER_FWID, der.sequence(der.integer(1), SPKI, PAIR) + b"\0", "1 bytes too many"),
        (
            HOPPER_FWID,
            der.sequence(der.integer(1), SPKI, der.sequence(SHA256, der.octets(DIGEST))),
            "SHA-384",
        ),
        (
            HOPPER_FWID,
            der.sequence(der.integer(1), SPKI, der.sequence(SHA384, der.octets(bytes(32)))),
            "of 32",
        ),
        (HOPPER_FWID, b"", "offset"),
        (TCB_INFO, der.sequence(), "offset"),
        (TCB_INFO, der.sequence(der.element(0xA6, b"")), "offset"),
        (TCB_INFO, der.sequence(der.element(0xA6, PAIR * 9)), "more than 8"),
        (TCB_INFO, der.sequence(der.element(0xA6, PAIR), der.element(0xA6, PAIR)), "too many"),
        (TCB_INFO, der.sequence(der.element(0x87, b"\0"), der.element(0xA6, PAIR)), "offset"),
        (TCB_INFO, der.sequence(der.element(0xA6, PAIR), der.element(0x80, b"NVIDIA")), "too many"),
        (TCB_INFO, der.sequence(der.element(0xA6, PAIR), der.element(0x8B, b"")), "too many"),
    ],
)
def test_what_is_none(oid: str, value: bytes, message: str) -> None:
    with pytest.raises(Malformed, match=f"firmware identity in 'GH100 A01 GSP FMC LF': .*{message}"):
        read(oid, value)


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(sorted(FWID_OIDS)),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255))),
    st.data(),
)
def test_a_change_is_refused_or_leaves_a_digest(
    arch: Arch, changes: list[tuple[int, int]], data: st.DataObject
) -> None:
    value = bytearray(stub_nvidia.fwid_extension(arch, DIGEST, KEY))
    for at, byte in changes:
        value[at % len(value)] = byte
    cut = data.draw(st.integers(0, len(value)))
    for whole in (bytes(value), bytes(value[:cut])):
        try:
            found = read(FWID_OIDS[arch], whole)
        except TinbootError:
            continue
        assert found is not None
        assert len(found.digest) == 48
        assert found.digest in whole
