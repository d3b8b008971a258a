"""Evidence as NVIDIA's SDK writes it: read strictly, written always alike."""

from __future__ import annotations

import base64
import json

import pytest
import vectors
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats.errors import Malformed
from tinboot.formats.gpuevidence import MAX_COUNT, GpuEvidence, parse, render

ONE = GpuEvidence("HOPPER", b"-----BEGIN", b"\x11\xe0" * 100, bytes(range(32)))
TWO = ONE._replace(arch="BLACKWELL", nonce=bytes(32))


def changed(**members: object) -> bytes:
    (entry,) = json.loads(render([ONE]))
    entry |= members
    return json.dumps([{name: value for name, value in entry.items() if value is not ...}]).encode()


def test_what_is_written_is_read() -> None:
    assert parse(render([ONE, TWO])) == (ONE, TWO)


def test_the_written_form_does_not_change() -> None:
    text = base64.b64encode(ONE.evidence).decode()
    assert render([ONE]).decode() == (
        f'[{{"arch":"HOPPER","certificate":"LS0tLS1CRUdJTg==","evidence":"{text}","nonce":"{ONE.nonce.hex()}"}}]\n'
    )


def test_the_sdk_in_cpp_says_more() -> None:
    """It reads no evidence without all three; who collects for it has asked NVML."""
    stated = ONE._replace(driver_version="590.12", vbios_version="96.00.A5.00.01")
    (entry,) = json.loads(render([stated]))
    assert (entry["version"], entry["driver_version"], entry["vbios_version"]) == ("1.0", *stated[4:])
    assert parse(render([stated, ONE])) == (stated, ONE)
    assert parse(changed(version="1.0")) == (ONE,)
    assert parse(changed(driver_version="590.12")) == (ONE._replace(driver_version="590.12"),)
    only = ONE._replace(vbios_version="96.00.A5.00.01")
    assert parse(render([only])) == (only,)
    assert "version" not in json.loads(render([only]))[0]


def test_the_sdks_own_file_is_read() -> None:
    (found,) = parse(vectors.read("gpu/nvidia-attestation-sdk/hopper_evidence.json"))
    assert found.arch == "HOPPER"
    assert found.evidence[4:36] == found.nonce
    assert found.certificate.startswith(b"-----BEGIN CERTIFICATE-----")


def test_a_nonce_in_capitals_is_the_same() -> None:
    assert parse(changed(nonce=ONE.nonce.hex().upper())) == (ONE,)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"[]", f"evidence of 0 GPUs, expected 1 to {MAX_COUNT}"),
        (b"{}", "evidence is an object, expected an array"),
        (b"[1]", r"evidence\[0\] is a number, expected an object"),
        (b"[" * 100_000, "not strict JSON"),
        (b"\xff", "not strict JSON"),
        (changed(arch=...), r"evidence\[0\].arch is missing"),
        (changed(arch="AMPERE"), "arch is 'AMPERE', expected HOPPER or BLACKWELL"),
        (changed(arch=9), "arch is a number, expected a string"),
        (changed(more=1), "unknown member 'more'"),
        (changed(version="2.0"), r"evidence\[0\].version is '2.0', expected '1.0'"),
        (changed(version=1), "version is a number, expected a string"),
        (changed(driver_version=None), "driver_version is null, expected a string"),
        (changed(vbios_version=""), "vbios_version is not one line of 1 to 80"),
        (changed(evidence=""), "not one line of 1 to"),
        (changed(evidence="AA="), "evidence is not in base64"),
        (changed(certificate="AA\u00e9A"), "certificate is not in base64"),
        (changed(evidence=base64.b64encode(bytes(8193)).decode()), "has 8193 bytes, expected 1 to 8192"),
        (changed(evidence="A" * 20_000), "not one line of 1 to"),
        (changed(nonce="00" * 31), "expected 64 hex digits"),
        (changed(nonce="0x" + "00" * 31), "expected 64 hex digits"),
        (render([ONE] * (MAX_COUNT + 1)), f"evidence of {MAX_COUNT + 1} GPUs"),
        (render([ONE])[:-3] + b',"nonce":""}]', "stands twice"),
    ],
)
def test_anything_else_is_refused_by_its_path(data: bytes, told: str) -> None:
    with pytest.raises(Malformed, match=told):
        parse(data)


def test_no_file_is_too_large_to_refuse() -> None:
    with pytest.raises(Malformed, match="expected at most"):
        parse(b" " * 2_000_000)


@given(st.binary(max_size=60))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(Malformed):
        parse(noise)
