"""The stub's reports are laid out as genuine ones, to the byte."""

from __future__ import annotations

from typing import Any

import pytest
import stub_chain
import stub_report
import vectors
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from stub_report import Contents

from tinboot.formats import snpreport
from tinboot.formats.snpreport import SIGNED, SIZE, VERSIONS
from tinboot.formats.snptcb import LINES, Line, decode

KEY = stub_chain.chip_key()


@pytest.mark.parametrize(
    "name",
    [
        *("go-sev-guest/attestation.bin", "trustee/test-vlek-report.bin", "veraison/outblob.bin"),
        *("oak/milan_oc_release.report.bin", "oak/milan_rk_release.report.bin"),
    ],
)
def test_a_genuine_report_is_made_again_from_its_fields(name: str) -> None:
    raw = vectors.read(f"snp/{name}")
    fields: dict[str, Any] = {
        name: value
        for name, value in snpreport.parse(raw)._asdict().items()
        if name in Contents._fields and value is not None
    }
    assert Contents(**fields).pack() == raw[:SIGNED]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_every_line_and_version(line: Line, version: int) -> None:
    raw = stub_report.sign(Contents(line, version).pack(), KEY)
    assert len(raw) == SIZE
    found = snpreport.parse(raw)
    tcbs = (found.current_tcb, found.reported_tcb, found.committed_tcb, found.launch_tcb)
    assert {decode(line, tcb) for tcb in tcbs} == {stub_report.TCBS[line]}
    assert found.cpuid == (stub_report.CPUS[line] if version >= 3 else None)
    for part in snpreport.reserved(version):
        assert not any(raw[part.start : part.stop])
    signature = encode_dss_signature(found.signature_r, found.signature_s)
    KEY.public_key().verify(signature, found.signed, ec.ECDSA(hashes.SHA384()))


def test_fields_that_are_replaced() -> None:
    found = snpreport.parse(stub_report.sign(Contents(version=5, vmpl=3, current_mitigations=9).pack(), KEY))
    assert (found.vmpl, found.launch_mitigations, found.current_mitigations) == (3, 1, 9)
    raw = stub_report.sign(Contents().pack(), KEY, r=5, s=1 << 575, tail=b"\1" * 368)
    assert stub_report.signature(raw) == (5, 1 << 575)
    assert raw.endswith(b"\1" * 368)
    assert stub_report.patched(b"abcd", 1, b"xy") == b"axyd"
