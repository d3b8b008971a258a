"""All evidence in one JSON: every part is read by its own reader, and every member has to be there."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinboot.formats import attestationdocument, cryptomaterial, deviceevidence
from tinboot.formats.bootreport import BootReport
from tinboot.formats.completeattestation import CompleteAttestation, parse, render
from tinboot.formats.cryptomaterial import CryptoMaterial
from tinboot.formats.errors import Malformed
from tinboot.formats.gpuevidence import GpuEvidence

REPORT = bytes(range(256)) * 4 + bytes(160)
NONCE = bytes(range(32))
GPU = GpuEvidence("HOPPER", b"chain", b"report", NONCE, "590.12", "96.00")
PEM = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"
PLAIN = CompleteAttestation(
    "1.2.0",
    b"cpus: 2\n",
    PEM,
    b"\xbb" * 32,
    attestationdocument.compose_v2(REPORT),
    None,
    BootReport(b'{"cmdline":""}\n', "configfs-tsm", REPORT, b""),
    (),
)
CHALLENGED = PLAIN._replace(
    challenged=attestationdocument.compose_v3(
        NONCE,
        REPORT,
        cryptomaterial.render(CryptoMaterial(b"\xaa" * 32, b"\xbb" * 32)),
        deviceevidence.render([GPU]),
    ),
    gpus=(GPU,),
)


def changed(path: str, value: object, complete: CompleteAttestation = CHALLENGED) -> bytes:
    found = json.loads(render(complete))
    where = found
    *folders, name = path.split(".")
    for folder in folders:
        where = where[folder]
    if value is ...:
        del where[name]
    else:
        where[name] = value
    return json.dumps(found).encode()


@pytest.mark.parametrize("complete", [PLAIN, CHALLENGED], ids=["plain", "challenged"])
def test_what_is_written_is_read(complete: CompleteAttestation) -> None:
    assert parse(render(complete)) == complete


def test_the_written_form_does_not_change() -> None:
    report = base64.b64encode(REPORT).decode()
    assert render(PLAIN).decode() == (
        '{"format":"tinboot/complete-attestation/v1","image_version":"1.2.0","config":"Y3B1czogMgo=",'
        f'"certificate":{json.dumps(PEM)},"hpke_keys":"AAAg'
        + base64.b64encode(b"\xbb" * 32 + bytes.fromhex("000400010002")).decode()
        + f'","attestation":{attestationdocument.render_v2(REPORT).decode()},"challenged":null,'
        f'"boot":{{"provider":"configfs-tsm","report":"{report}","certificates":"",'
        '"sealed":"eyJjbWRsaW5lIjoiIn0K"},"gpu_evidence":[]}'
    )


MEMBERS = [
    *("format", "image_version", "config", "certificate", "hpke_keys", "attestation", "challenged", "boot"),
    *("gpu_evidence", "boot.provider", "boot.report", "boot.certificates", "boot.sealed", "attestation.body"),
    *("challenged.challenge", "challenged.collateral"),
]


@pytest.mark.parametrize("path", MEMBERS)
def test_every_member_has_to_be_there(path: str) -> None:
    with pytest.raises(Malformed, match=f"{path.rsplit('.', maxsplit=1)[-1]} is missing"):
        parse(changed(path, ...))


@pytest.mark.parametrize("path", MEMBERS)
@pytest.mark.parametrize("value", [1, True, "\r", [1]], ids=repr)
def test_every_member_has_its_kind(path: str, value: object) -> None:
    with pytest.raises(Malformed):
        parse(changed(path, value))


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("format", "tinboot/complete-attestation/v2", "expected tinboot/complete-attestation/v1"),
        ("more", 1, "unknown member 'more'"),
        ("boot.more", 1, "boot has the unknown member 'more'"),
        ("attestation.more", 1, "unknown member 'more'"),
        ("challenged.more", 1, "unknown member 'more'"),
        ("config", "", "has 0 bytes"),
        ("config", "AB==", "not in canonical base64"),
        ("config", "A" * 1_500_000, "has 1500000 characters"),
        ("hpke_keys", "AAAA", "of 3 bytes, expected 41"),
        ("boot.report", "AAAA", "has 3 bytes, expected 1184"),
        ("gpu_evidence", [{}] * 17, "evidence of 17 GPUs, expected 0 to 16"),
        ("certificate", "x" * 70_000, "is not text of"),
    ],
)
def test_anything_else_is_refused_by_its_path(path: str, value: object, told: str) -> None:
    with pytest.raises(Malformed, match=told):
        parse(changed(path, value))


def test_a_member_twice() -> None:
    with pytest.raises(Malformed, match="stands twice"):
        parse(render(PLAIN)[:-1] + b',"format":""}')


def test_none_is_too_large_to_refuse() -> None:
    with pytest.raises(Malformed, match="expected at most"):
        parse(b" " * (13 << 20))


@settings(deadline=None)
@given(st.data())
def test_mutations_are_refused_or_read_as_something_else(data: st.DataObject) -> None:
    good = render(CHALLENGED)
    at = data.draw(st.integers(0, len(good) - 1))
    mutant: Any = good[:at] + data.draw(st.binary(max_size=2)) + good[at + 1 :]
    try:
        found = parse(mutant)
    except Malformed:
        return
    if found == CHALLENGED:
        assert json.loads(mutant) == json.loads(good)


@given(st.binary(max_size=60))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(Malformed):
        parse(noise)
