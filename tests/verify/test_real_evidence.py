"""Genuine reports, with their own certificates and AMD's roots; and genuine certificates, altered."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import vectors
from fake_amd import Subject, failures
from hypothesis import given, settings
from hypothesis import strategies as st

from tinboot.formats import certtable, snpreport
from tinboot.formats.errors import TinbootError
from tinboot.formats.snptcb import GENOA, MILAN, Line
from tinboot.verify import amd_certificates, roots
from tinboot.verify.binding import CHECKS
from tinboot.verify.certificate import Certificate, read
from tinboot.verify.chain import Kind, endorse, examine, present
from tinboot.verify.checks import ask, require

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def milan_hex() -> bytes:
    return bytes.fromhex("".join(vectors.read("snp/virtee-sev/report_milan.hex").decode().split()))


def from_table() -> bytes:
    found = certtable.parse(vectors.read("snp/veraison/auxblob.bin")).vcek
    assert found is not None
    return found


def file(name: str) -> Callable[[], bytes]:
    return lambda: vectors.read(f"snp/{name}")


GENUINE = {
    "go-sev-guest": (
        file("go-sev-guest/attestation.bin"),
        file("go-sev-guest/vcek.testcer"),
        MILAN,
        "VCEK",
        2,
    ),
    "virtee-sev": (milan_hex, file("virtee-sev/vcek_milan.der"), MILAN, "VCEK", 2),
    "trustee": (file("trustee/test-vlek-report.bin"), file("trustee/test-vlek.der"), MILAN, "VLEK", 3),
    "veraison": (file("veraison/outblob.bin"), from_table, GENOA, "VCEK", 3),
    "oak-oc": (
        file("oak/milan_oc_release.report.bin"),
        file("oak/milan_oc_release.vcek.der"),
        MILAN,
        "VCEK",
        3,
    ),
    "oak-rk": (
        file("oak/milan_rk_release.report.bin"),
        file("oak/milan_rk_release.vcek.der"),
        MILAN,
        "VCEK",
        3,
    ),
}


@pytest.mark.parametrize(("report", "vek", "line", "kind", "version"), GENUINE.values(), ids=GENUINE)
def test_genuine_reports_hold(
    report: Callable[[], bytes], vek: Callable[[], bytes], line: Line, kind: Kind, version: int
) -> None:
    found = snpreport.parse(report())
    endorsement = endorse(present(read(vek())[0]))
    assert (endorsement.line, endorsement.kind, found.version) == (line, kind, version)
    # AWS issues VLEKs for a year; this one's ended in December 2025
    now = NOW if kind == "VCEK" else datetime(2025, 6, 1, tzinfo=UTC)
    require(ask(CHECKS, Subject(found, endorsement, now)))


def test_a_vlek_that_ended() -> None:
    report = snpreport.parse(vectors.read("snp/trustee/test-vlek-report.bin"))
    endorsement = endorse(present(read(vectors.read("snp/trustee/test-vlek.der"))[0]))
    refused = failures(ask(CHECKS, Subject(report, endorsement, NOW)))
    assert list(refused) == ["dates"]
    assert "'SEV-VLEK' is valid from 2024-12-10 22:14 to 2025-12-10 22:14" in refused["dates"].message


@pytest.mark.parametrize("name", ["test-vcek-invalid-new.der", "test-vcek-invalid-legacy.der"])
def test_altered_certificates(name: str) -> None:
    refused = failures(examine(present(read(vectors.read(f"snp/trustee/{name}"))[0])).verdicts)
    assert list(refused) == ["certificate-signatures"]
    assert refused["certificate-signatures"].exit_code == 4


def test_another_chips_certificate() -> None:
    report = snpreport.parse(vectors.read("snp/oak/milan_oc_release.report.bin"))
    endorsement = endorse(present(read(vectors.read("snp/oak/milan_rk_release.vcek.der"))[0]))
    refused = failures(ask(CHECKS, Subject(report, endorsement, NOW)))
    assert set(refused) == {"report-signature", "chip-id"}


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_flipped_bit_of_a_genuine_certificate_is_refused(data: st.DataObject) -> None:
    genuine = vectors.read("snp/oak/milan_oc_release.vcek.der")
    bit = data.draw(st.integers(0, len(genuine) * 8 - 1))
    altered = bytearray(genuine)
    altered[bit // 8] ^= 1 << bit % 8
    with pytest.raises(TinbootError):
        endorse(present(read(bytes(altered))[0]))


@pytest.mark.parametrize(
    "name",
    [
        *("ask_ark_milan", "ask_ark_milan_vlek", "ask_ark_genoa", "ask_ark_genoa_vlek"),
        *("ask_ark_turin_vcek", "ask_ark_turin_vlek"),
    ],
)
def test_shipped_certificates_are_the_published_ones(name: str) -> None:
    intermediate, root = read(vectors.read(f"snp/chains/{name}.pem"))
    line = root.common_name.removeprefix("ARK-")
    assert read(amd_certificates.ROOTS[line]) == (root,)
    assert roots.root_of(intermediate, ()) == root
    shipped = amd_certificates.INTERMEDIATES.get(intermediate.common_name)
    if shipped is None:
        assert intermediate.common_name in {"SEV-VLEK-Genoa", "SEV-VLEK-Turin"}
    else:
        assert read(shipped) == (intermediate,)


def test_a_chain_in_any_order() -> None:
    chain: tuple[Certificate, ...] = read(vectors.read("snp/chains/ask_ark_milan.pem"))
    vek = read(vectors.read("snp/oak/milan_oc_release.vcek.der"))[0]
    for offered in (chain, chain[::-1], chain[:1], chain[1:], ()):
        assert endorse(present(vek, offered)).chain == (vek, *chain)
