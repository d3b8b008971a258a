"""Collateral: what is known is read strictly, what is not is kept as it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats.attestationcollateral import (
    AMD_CRL,
    AMD_VCEK,
    MAX_COUNT,
    Collateral,
    Vcek,
    crl,
    members,
    of_crl,
    of_vcek,
    read,
    vcek,
)
from tinboot.formats.errors import Malformed
from tinboot.formats.jsonfields import parse_object

OTHER = Collateral("code", "reference-values", "https://tinfoil.sh/collateral/other/v1", (), b'{"a":[1,{}]}')


def of(entries: object) -> tuple[Collateral, ...]:
    return read(parse_object("it", json.dumps({"c": entries}).encode(), 4 << 20).records("c"))


def entry(**fields: Any) -> dict[str, object]:
    found = members(of_vcek(Vcek(b"der", "pem"))) | fields
    return {name: value for name, value in found.items() if value is not ...}


def test_the_written_form_does_not_change() -> None:
    assert members(of_vcek(Vcek(b"\x30\x00", "-----BEGIN\n"))) == {
        "id": "cpu-endorsement",
        "role": "endorsement",
        "format": "https://tinfoil.sh/collateral/amd-vcek/v1",
        "subjects": ["cpu"],
        "data": {"vcek_der_base64": "MAA=", "cert_chain_pem": "-----BEGIN\n"},
    }
    assert members(of_crl(b"\x30\x00"))["data"] == {"crl_der_base64": "MAA="}
    assert "subjects" not in members(OTHER)


@given(st.binary(min_size=1, max_size=999), st.text("ABC\n-", min_size=1, max_size=99))
def test_what_is_written_is_read(der: bytes, pem: str) -> None:
    made = (of_vcek(Vcek(der, pem)), of_crl(der), OTHER)
    assert of([members(item) for item in made]) == made
    assert vcek(made[0]) == Vcek(der, pem)
    assert crl(made[1]) == der


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ([entry()] * 2, "collateral has 'cpu-endorsement' twice"),
        ([entry(id=str(n)) for n in range(MAX_COUNT + 1)], f"{MAX_COUNT + 1} entries of collateral"),
        ([entry(id=...)], r"c\[0\].id is missing"),
        ([entry(id="")], "id is not one line"),
        ([entry(role="evidence")], "'evidence', expected endorsement or reference-values"),
        ([entry(format=1)], "format is a number"),
        ([entry(subjects="cpu")], "subjects is a string, expected an array"),
        ([entry(subjects=["cpu", "cpu"])], "subjects has an item twice"),
        ([entry(data=...)], "data is missing"),
        ([entry(data=[])], "data is an array, expected an object"),
        ([entry(data={"a": "x" * (513 << 10)})], "expected at most"),
        ([entry(more=1)], "unknown member 'more'"),
    ],
)
def test_entries_are_refused(entries: object, told: str) -> None:
    with pytest.raises(Malformed, match=told):
        of(entries)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"vcek_der_base64": "MAA="}, "collateral x.cert_chain_pem is missing"),
        ({"vcek_der_base64": "MAB=", "cert_chain_pem": "x"}, "not in canonical base64"),
        ({"vcek_der_base64": "", "cert_chain_pem": "x"}, "has 0 bytes"),
        ({"vcek_der_base64": "MAA=", "cert_chain_pem": ""}, "is not text of"),
        ({"vcek_der_base64": "MAA=", "cert_chain_pem": "x", "more": 1}, "unknown member 'more'"),
    ],
)
def test_certificates_are_refused(data: object, told: str) -> None:
    with pytest.raises(Malformed, match=told):
        vcek(Collateral("x", "endorsement", AMD_VCEK, (), json.dumps(data).encode()))


@pytest.mark.parametrize(
    ("data", "told"),
    [({}, "crl_der_base64 is missing"), ({"crl_der_base64": "MAA=", "b": 1}, "unknown member")],
)
def test_lists_are_refused(data: object, told: str) -> None:
    with pytest.raises(Malformed, match=told):
        crl(Collateral("x", "endorsement", AMD_CRL, (), json.dumps(data).encode()))


@given(st.binary(max_size=60))
def test_noise_is_refused(noise: bytes) -> None:
    for look in (vcek, crl):
        with pytest.raises(Malformed):
            look(Collateral("x", "endorsement", AMD_VCEK, (), noise))
