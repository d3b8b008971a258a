"""Genuine evidence of H100s, and NVIDIA's own negatives, each as it must come out (vectors' README)."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache

import nvidia_samples
import pytest
import vectors
from fake_gpus import CREATED, failed

from tinboot.builder import gpu_pin
from tinboot.builder.gpu_pin import Source
from tinboot.formats import gpuevidence, gpureference, gpureport
from tinboot.formats.errors import Mismatch, Refused, TinbootError, Unavailable
from tinboot.formats.gpuevidence import GpuEvidence
from tinboot.formats.gpureference import ReferenceValues
from tinboot.verify import gpu_appraisal, gpu_chain
from tinboot.verify.checks import Unchecked
from tinboot.verify.gpu_appraisal import Appraisals, Collateral
from tinboot.verify.gpu_policy import RELYING_PARTY, Policy

NOW = datetime(2026, 6, 1, tzinfo=UTC)
THEN = datetime(2024, 3, 1, tzinfo=UTC)  # when the RIMs in NVIDIA's wheel were valid
NVTRUST = ("gpu/go-nvtrust/attestationReport.txt", "gpu/go-nvtrust/gpuAkCertChain.txt")
SDK = "gpu/nvidia-attestation-sdk/"
HOPPER = (f"{SDK}hopperAttestationReport.txt", f"{SDK}hopperCertChain.txt")
LATE = (f"{SDK}hopperAttestationReportExpired.txt", f"{SDK}hopperCertChainExpired.txt")

NO_VALUES = ReferenceValues(CREATED, ())


def given(report: str, chain: str, arch: str = "HOPPER") -> GpuEvidence:
    raw = bytes.fromhex(vectors.read(report).decode().strip())
    return GpuEvidence(arch, vectors.read(chain), raw, raw[4:36])


@cache
def pinned() -> ReferenceValues:
    """By NVIDIA's RIMs of the driver and the VBIOS of `NVTRUST`, which its wheel has for just this report."""
    sources = [
        Source(name, file, nvidia_samples.sample(f"{file}_test_no_gpu.swidtag"))
        for name, file in (
            ("NV_GPU_DRIVER_GH100_545.00", "Driver_RIM"),
            ("NV_GPU_VBIOS_1010_0200_882_96005E0001", "1010_0200_882_96005E0001"),
        )
    ]
    return gpu_pin.pin(sources, THEN).values


def appraise(item: GpuEvidence, values: ReferenceValues, nonce: bytes | None = None) -> Appraisals:
    policy = Policy("HOPPER", 1, item.nonce if nonce is None else nonce, RELYING_PARTY)
    return gpu_appraisal.appraise_all([item], Collateral(values), policy, NOW)


def test_an_h100_whose_rims_are_at_hand_is_accepted() -> None:
    item = given(*NVTRUST)
    accepted = appraise(item, pinned()).accept()
    gpu = accepted.gpus[0]
    assert gpu.endorsement.hwmodel == "GH100 A01 GSP BROM"
    assert gpu.endorsement.ueid == "460032006552296075780760406069494258829212062021"
    assert sum(len(rim.measurements) for rim in pinned().rims) == 33
    open_ = [v.id for v in gpu.appraisal.verdicts if isinstance(v.outcome, Unchecked)]
    assert open_ == ["revocation", "fwid"]  # driver 545 states no firmware identity


def test_it_is_refused_for_another_nonce() -> None:
    result = appraise(given(*NVTRUST), pinned(), bytes(32))
    assert failed(result) == [(0, "nonce")]


@pytest.mark.parametrize("index", [*range(13), *range(21, 41)])
def test_each_of_its_reference_values_counts(index: int) -> None:
    altered = tuple(
        rim._replace(measurements={**rim.measurements, index: ("5a" * 48,)})
        if index in rim.measurements
        else rim
        for rim in pinned().rims
    )
    result = appraise(given(*NVTRUST), ReferenceValues(pinned().created, altered))
    assert failed(result) == [(0, "measurements")]


def test_another_boards_vbios_does_not_do() -> None:
    rims = tuple(rim for rim in pinned().rims if not rim.id.endswith("96005E0001"))
    result = appraise(given(*NVTRUST), ReferenceValues(pinned().created, rims))
    assert failed(result) == [(0, "vbios-version")]
    with pytest.raises(Unavailable, match=r"no reference values for VBIOS 96\.00\.5E\.00\.01"):
        result.accept()


@pytest.mark.parametrize("names", [HOPPER, LATE], ids=["535", "570"])
def test_genuine_reports_hold_but_for_reference_values(names: tuple[str, str]) -> None:
    """Signature, chain and firmware; those of 535 and 570 have no RIM here."""
    result = appraise(given(*names), NO_VALUES)
    assert failed(result) == [(0, "driver-version"), (0, "vbios-version")]
    with pytest.raises(Unavailable, match=r"no reference values for driver 5[37][05]"):
        result.accept()


def test_a_production_vbios_equals_its_rim() -> None:
    """Of the report with driver 535; NVIDIA gives no RIM of that driver that holds."""
    name = "1010_0200_882_96005E0001"
    source = Source(f"NV_GPU_VBIOS_{name}", name, nvidia_samples.sample(f"{name}_PROD.swidtag"))
    (vbios,) = gpu_pin.pin([source], THEN).values.rims
    report = gpureport.parse(given(*HOPPER).evidence)
    for index, allowed in vbios.measurements.items():
        assert report.measurements[index].hex() in allowed
    assert failed(appraise(given(*HOPPER), ReferenceValues(CREATED, (vbios,)))) == [(0, "driver-version")]


def test_evidence_as_the_sdk_writes_it() -> None:
    """It is of a machine with protected PCIe, which is refused by name; all else holds."""
    (item,) = gpuevidence.parse(vectors.read(f"{SDK}hopper_evidence.json"))
    result = appraise(item, NO_VALUES)
    assert failed(result) == [(0, "driver-version"), (0, "vbios-version"), (0, "single-gpu")]
    with pytest.raises(Refused, match="single-gpu: the GPU is in protected PCIe mode"):
        result.accept()


def test_a_report_that_nvidia_signed_wrongly_on_purpose() -> None:
    name = f"{SDK}hopperAttestationReportInvalidSignature.txt"
    for chain in (HOPPER[1], LATE[1], NVTRUST[1]):
        result = appraise(given(name, chain), NO_VALUES)
        assert (0, "report-signature") in failed(result)
        with pytest.raises(Mismatch, match=r"not signed by the key|firmware"):
            result.accept()


def test_a_report_with_another_gpus_chain() -> None:
    result = appraise(given(NVTRUST[0], HOPPER[1]), pinned())
    assert failed(result) == [(0, "report-signature")]


def test_a_chain_with_a_gap() -> None:
    result = appraise(given(NVTRUST[0], "gpu/go-nvtrust/invalidCertChain.txt"), pinned())
    names = {name for _, name in failed(result)}
    assert {"chain-length", "certificate-roles", "certificate-signatures"} <= names
    with pytest.raises(Mismatch, match="chain-length: a chain of 4 certificates, expected 5"):
        result.accept()


@pytest.mark.parametrize("name", ["535.86.09_measurement_mismatch", "570.124.03_expired"])
def test_rims_that_must_not_be_pinned(name: str) -> None:
    data = vectors.read(f"{SDK}rims/NV_GPU_DRIVER_GH100_{name}.xml")
    with pytest.raises(TinbootError):
        gpu_pin.pin([Source(f"NV_GPU_DRIVER_GH100_{name.partition('_')[0]}", name, data)], NOW)


@pytest.mark.parametrize("names", [NVTRUST, HOPPER, LATE], ids=["545", "535", "570"])
def test_genuine_chains_endorse_and_name_their_issuers_key(names: tuple[str, str]) -> None:
    found = gpu_chain.endorse(gpu_chain.present(vectors.read(names[1])))
    assert found.fwid is not None
    stated = gpureport.parse(bytes.fromhex(vectors.read(names[0]).decode().strip())).opaque.fwid
    assert stated in {None, found.fwid}


def test_values_survive_their_file() -> None:
    again = gpureference.parse(gpureference.render(pinned()))
    appraise(given(*NVTRUST), again).accept()
