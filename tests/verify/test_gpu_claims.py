"""Claims in NVIDIA's names: its own verifier's are the measure of names, nesting and values."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import zipfile
from datetime import timedelta
from typing import Any

import nvidia_samples
import pytest
import stub_nvidia
from fake_gpus import GOOD, answers, appraise, evidence, gpus, packed, reference, rim
from fake_nvidia import NONCE, NOW

from tinboot.formats.gpuevidence import GpuEvidence
from tinboot.formats.gpureference import ReferenceValues
from tinboot.verify import gpu_claims
from tinboot.verify.checks import Unchecked
from tinboot.verify.gpu_appraisal import Appraisals
from tinboot.verify.gpu_claims import Claims
from tinboot.verify.gpu_platform import Versions

CERTIFICATES = {
    "x-nvidia-cert-expiration-date",
    "x-nvidia-cert-status",
    "x-nvidia-cert-ocsp-status",
    "x-nvidia-cert-revocation-reason",
}
P = "x-nvidia-gpu-"
CHAIN = f"{P}attestation-report-cert-chain"
RIMS = ("driver-rim", "vbios-rim")


def only(result: Appraisals) -> Claims:
    """Of the one GPU, without a token's times."""
    return gpu_claims.gpu(result.gpus[0], NOW)


def of(item: GpuEvidence, **rest: Any) -> Claims:
    return only(appraise([item], **rest))


def chain(claims: Claims, name: str = CHAIN) -> tuple[object, ...]:
    """Status, OCSP status, reason."""
    found = claims[name]
    assert isinstance(found, dict)
    assert found.keys() == CERTIFICATES
    return tuple(found[f"x-nvidia-cert-{part}"] for part in ("status", "ocsp-status", "revocation-reason"))


def test_every_claim_of_a_good_gpu() -> None:
    nvmls = Versions("550.90.07", "96.00.9f.00.01")
    claims = of(evidence(), ocsp=packed(answers()), revocation="ocsp", versions=[nvmls])
    cert = dict.fromkeys(CERTIFICATES)
    year = "2027-06-01T12:00:00"
    ours = cert | {"x-nvidia-cert-expiration-date": year, "x-nvidia-cert-status": "valid"}
    expected: Claims = {
        "measres": "success",
        f"{P}arch-check": True,
        f"{P}driver-version": "550.90.07",
        f"{P}vbios-version": "96.00.9F.00.01",
        CHAIN: cert
        | {
            "x-nvidia-cert-expiration-date": "9999-12-31T23:59:59",
            "x-nvidia-cert-status": "valid",
            "x-nvidia-cert-ocsp-status": "good",
        },
        f"{CHAIN}-fwid-match": True,
        f"{P}attestation-report-parsed": True,
        f"{P}attestation-report-nonce-match": True,
        f"{P}attestation-report-signature-verified": True,
        f"{P}vbios-index-no-conflict": True,
        "secboot": True,
        "dbgstat": "disabled",
        "eat_nonce": NONCE.hex(),
        "hwmodel": "GH100 A01 GSP BROM",
        "ueid": str(stub_nvidia.chain().forms[0].serial),
        "oemid": "5703",
        "iss": "LOCAL_GPU_VERIFIER",
    }
    for name in RIMS:
        expected |= {
            f"{P}{name}-fetched": True,
            f"{P}{name}-schema-validated": True,
            f"{P}{name}-cert-chain": ours,
            f"{P}{name}-signature-verified": True,
            f"{P}{name}-version-match": True,
            f"{P}{name}-measurements-available": True,
        }
    assert claims == expected


def source() -> str:
    """NVIDIA's own file, which makes the claims."""
    nvidia_samples.rims() or pytest.skip("nv-local-gpu-verifier was not fetched: tinboot setup does it")
    with nvidia_samples._wheel() as wheel:
        assert isinstance(wheel, zipfile.ZipFile)
        return wheel.read("verifier/utils/claims_utils.py").decode()


def test_names_are_those_of_nvidias_verifier() -> None:
    """Read from its source: the first table of claims is version 3's."""
    text = source()
    table = re.search(r'CLAIMS_VERSION == "3\.0":\s+claims = (\{.*?\})\s+elif', text, re.DOTALL)
    assert table is not None
    tree = ast.parse(table[1], mode="eval").body
    assert isinstance(tree, ast.Dict)
    theirs = {key.value for key in tree.keys if isinstance(key, ast.Constant)}
    nested = {
        inner.value
        for value in tree.values
        if isinstance(value, ast.Dict)
        for inner in value.keys
        if isinstance(inner, ast.Constant)
    }
    assert nested == CERTIFICATES
    added = set(re.findall(r'gpu_claims\["([a-z_-]+)"\]|[^_]claims\["([a-z_-]+)"\]', text))
    names = {name for pair in added for name in pair if name} - {"x-nvidia-attestation-warning"}
    _, each = gpu_claims.platform(appraise([evidence()]))
    assert each["GPU-0"].keys() == theirs | names


def test_names_of_the_machines_claims_are_too() -> None:
    theirs = set(re.findall(r'overallAttestationToken\["([a-z_-]+)"\]', source()))
    overall, _ = gpu_claims.platform(appraise([evidence()]))
    assert overall.keys() == theirs


def test_the_machines_claims() -> None:
    overall, each = gpu_claims.platform(appraise(gpus(2)))
    assert overall["sub"] == "NVIDIA-PLATFORM-ATTESTATION"
    assert (overall["x-nvidia-ver"], overall["x-nvidia-overall-att-result"]) == ("3.0", True)
    assert overall["eat_nonce"] == NONCE.hex()
    assert list(each) == ["GPU-0", "GPU-1"]
    digests = overall["submods"]
    assert isinstance(digests, dict)
    times = {"nbf", "exp", "iat", "jti"}
    for name, claims in each.items():
        said = json.dumps({key: value for key, value in claims.items() if key not in times})
        assert digests[name] == ["DIGEST", ["SHA256", hashlib.sha256(said.encode()).hexdigest()]]
    assert each["GPU-0"]["ueid"] != each["GPU-1"]["ueid"]
    at = int(NOW.timestamp())
    for claims in (overall, *each.values()):
        assert (claims["nbf"], claims["iat"], claims["exp"]) == (at - 120, at, at + 3600)
    assert len({str(claims["jti"]) for claims in (overall, *each.values())}) == 3


def test_of_a_refused_machine_the_result_is_false() -> None:
    bad = evidence(GOOD._replace(nonce=bytes(32)), stub_nvidia.chain(number=1))
    overall, each = gpu_claims.platform(appraise([evidence(), bad]))
    assert overall["x-nvidia-overall-att-result"] is False
    name = f"{P}attestation-report-nonce-match"
    assert (each["GPU-0"][name], each["GPU-1"][name]) == (True, False)
    twice, _ = gpu_claims.platform(appraise([evidence(), evidence()]))
    assert twice["x-nvidia-overall-att-result"] is False
    none, each = gpu_claims.platform(appraise([], gpus=1))
    assert (none["x-nvidia-overall-att-result"], none["eat_nonce"], each) == (False, None, {})


@pytest.mark.parametrize("given", [0, 1, 2])
def test_revocation_that_nobody_checked_is_never_good(given: int) -> None:
    claims = of(evidence(), ocsp=packed(answers()[:given]))
    assert chain(claims) == ("valid", None, None)
    for name in RIMS:
        assert chain(claims, f"{P}{name}-cert-chain") == ("valid", None, None)


def test_nor_is_that_which_could_not_be_checked() -> None:
    assert chain(of(evidence(), revocation="ocsp")) == ("valid", None, None)
    late = of(evidence(), revocation="ocsp", ocsp=[*packed(answers()[1:]), b"x"])
    assert chain(late) == ("valid", None, None)


def test_revocation() -> None:
    bad = answers()[2]._replace(status="revoked", reason=6)
    assert chain(of(evidence(), ocsp=packed([*answers()[:2], bad]))) == (
        "valid",
        "revoked",
        "certificate_hold",
    )
    unknown = answers()[2]._replace(status="unknown")
    assert chain(of(evidence(), ocsp=packed([*answers()[:2], unknown]))) == ("valid", "unknown", None)


def test_what_becomes_of_a_chain() -> None:
    whole = stub_nvidia.chain()
    expired = whole.replace(1, not_after=NOW - timedelta(days=1))
    assert chain(of(evidence(chain=expired)))[0] == "expired"
    early = whole.replace(1, not_before=NOW + timedelta(days=1))
    assert chain(of(evidence(chain=early)))[0] == "invalid"
    forged = of(evidence(chain=whole.replace(0, signer=stub_nvidia.key("x"))))
    assert chain(forged) == ("invalid", None, None)
    assert forged[f"{P}attestation-report-signature-verified"] is None
    assert forged[f"{P}arch-check"] is None
    assert (forged["hwmodel"], forged["ueid"]) == (None, "")


@pytest.mark.parametrize(
    ("item", "name", "value"),
    [
        (evidence(GOOD._replace(altered={30: b"\1" * 48})), "measres", "fail"),
        (evidence(GOOD._replace(altered={50: b"\1" * 48})), "measres", "fail"),
        (evidence(GOOD._replace(fwid=b"\1" * 48)), f"{CHAIN}-fwid-match", False),
        (evidence()._replace(nonce=bytes(32)), f"{P}attestation-report-nonce-match", False),
        (evidence()._replace(arch="BLACKWELL"), f"{P}arch-check", False),
        (evidence()._replace(evidence=b""), f"{P}attestation-report-parsed", None),
        (evidence()._replace(evidence=b""), f"{P}driver-version", None),
        (evidence(GOOD._replace(project="G999")), f"{P}vbios-rim-fetched", False),
        (evidence(GOOD._replace(project="G999")), f"{P}vbios-rim-signature-verified", None),
        (evidence(GOOD._replace(project="G999")), "measres", None),
        (evidence(GOOD._replace(project="G999")), f"{P}vbios-index-no-conflict", None),
    ],
)
def test_what_is_wrong_is_said(item: GpuEvidence, name: str, value: object) -> None:
    claims = of(item)
    assert claims[name] is value or claims[name] == value
    assert (claims.get("secboot") is None) == (claims["measres"] != "success")
    assert ("dbgstat" in claims) == ("secboot" in claims)


def test_where_nvml_was_not_asked_versions_are_the_reports() -> None:
    claims = of(evidence())
    assert claims[f"{P}driver-version"] == "550.90.07"
    assert claims[f"{P}vbios-version"] == "96.00.9F.00.01"


def test_two_rims_of_one_index() -> None:
    driver = rim("driver")
    both = driver._replace(measurements={**driver.measurements, 0: ("00" * 48,)})
    claims = of(evidence(), values=ReferenceValues(reference().created, (both, rim("vbios"))))
    assert claims[f"{P}vbios-index-no-conflict"] is False
    assert claims["measres"] == "fail"


def test_a_rim_that_has_expired_is_said_to_have() -> None:
    old = rim("driver", not_after=NOW - timedelta(days=1))
    result = appraise([evidence()], values=ReferenceValues(reference().created, (old, rim("vbios"))))
    result.accept()
    assert chain(only(result), f"{P}driver-rim-cert-chain") == ("expired", None, None)


def test_what_an_old_driver_does_not_state_did_not_match() -> None:
    contents = GOOD._replace(driver="545.00", fwid=b"")
    assert of(evidence(contents), values=reference(contents))[f"{CHAIN}-fwid-match"] is None


def test_without_demands_the_evidence_is_still_compared_with_itself() -> None:
    claims = of(evidence(), nonce=Unchecked("x"), architecture=Unchecked("x"))
    assert claims[f"{P}attestation-report-nonce-match"] is claims[f"{P}arch-check"] is True


def test_the_same_appraisal_says_the_same() -> None:
    accepted = appraise([evidence()]).accept()
    assert gpu_claims.of(accepted) == [*gpu_claims.platform(appraise([evidence()]))]
