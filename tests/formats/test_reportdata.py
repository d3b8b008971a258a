"""REPORT_DATA of served documents: known answers, and that nothing of another size gets in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats import bootreport, cryptomaterial, deviceevidence, reportdata
from tinboot.formats.cryptomaterial import CryptoMaterial

NONCE = bytes(range(32))

#: From the layout by hand: printf 'https://tinfoil.sh/report-data/v1' and the 96 bytes | sha256sum
KNOWN = {
    (b"crypto", b"device"): "776389f09a04f16783b6958a6a1dcbdf60ac1b47c4919761de008f1169d33b08",
}


@pytest.mark.parametrize("sections", KNOWN)
def test_known_answers(sections: tuple[bytes, bytes]) -> None:
    assert reportdata.v3(NONCE, *sections).hex() == KNOWN[sections] + "00" * 32


def test_a_genuine_document() -> None:
    """One that inference.tinfoil.sh gave out in August 2026, without GPUs: its sections are ours exactly."""
    tls, hpke = (
        "198c3340b8b007efdb5aa9b2bff68eb6776c4710f0731121f195c65e6410c232",
        "4539df144c761e852824083b1e0e23026ab8fec4fa0612ca16b2672a7a45983e",
    )
    keys = cryptomaterial.render(CryptoMaterial(bytes.fromhex(tls), bytes.fromhex(hpke)))
    devices = deviceevidence.render([])
    assert hashlib.sha256(keys).hexdigest() == (
        "161dd32bae638bb575b6f0216526d23f57aa71e0faa8b8e5b486bf9774407b80"
    )
    assert hashlib.sha256(devices).hexdigest() == (
        "5e84f632e01293bff4596cf72c45de0f9e1037e5cda3232b850c478d1a6b592b"
    )
    nonce = bytes.fromhex("7f31a89205a4636f21bebbd1622163c4ce66ee4ba9d83aba6a6f8ab3d9b69c63")
    assert reportdata.v3(nonce, keys, devices).hex() == (
        "27c73cd5018258fd54c59053915cd1d22e2824de00504cf5a69a598a842b719b" + "00" * 32
    )


def test_the_layouts() -> None:
    assert reportdata.v2(b"\1" * 32, b"\2" * 32) == b"\1" * 32 + b"\2" * 32
    one, two = hashlib.sha256(b"1").digest(), hashlib.sha256(b"2").digest()
    digest = hashlib.sha256(b"https://tinfoil.sh/report-data/v1" + NONCE + one + two).digest()
    assert reportdata.v3(NONCE, b"1", b"2") == reportdata.v3_of_hashes(NONCE, one, two) == digest + bytes(32)


@given(st.binary(max_size=99), st.binary(max_size=99))
def test_no_layout_is_another(first: bytes, second: bytes) -> None:
    own = reportdata.v3(NONCE, first, second)
    assert own[32:] == bytes(32)
    assert (own == reportdata.v3(NONCE, second, first)) == (first == second)
    assert bootreport.report_data(first)[32:] != bytes(32)


@pytest.mark.parametrize("size", [0, 31, 33, 64])
@pytest.mark.parametrize(
    "make",
    [
        lambda data: reportdata.v2(data, bytes(32)),
        lambda data: reportdata.v2(bytes(32), data),
        lambda data: reportdata.v3(data, b"", b""),
        lambda data: reportdata.v3_of_hashes(bytes(32), data, bytes(32)),
        lambda data: reportdata.v3_of_hashes(bytes(32), bytes(32), data),
    ],
)
def test_other_sizes(make: Callable[[bytes], bytes], size: int) -> None:
    with pytest.raises(ValueError, match=f"of {size} bytes, expected 32"):
        make(bytes(size))
