"""The fake NVIDIA's certificates: a second opinion verifies them, and real ones have the same form."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
import stub_nvidia
import vectors
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID, NameOID
from stub_nvidia import FWID, MARK, Arch, Chain

ARCHS: tuple[Arch, ...] = ("HOPPER", "BLACKWELL")
NOW = datetime(2026, 6, 1, tzinfo=UTC)

CHAINS = {"HOPPER": stub_nvidia.chain("HOPPER"), "BLACKWELL": stub_nvidia.chain("BLACKWELL", 3)}
CHAINS |= {"RIM": stub_nvidia.rim_chain(NOW)}


@pytest.mark.parametrize("name", CHAINS)
def test_openssl_accepts_the_chain(tmp_path: Path, name: str) -> None:
    leaf, *issuers = CHAINS[name].der()
    for file, listed in (("leaf", [leaf]), ("issuers", issuers[:-1]), ("root", issuers[-1:])):
        (tmp_path / file).write_bytes(stub_nvidia.pem(listed))
    words = ["openssl", "verify", "-x509_strict", "-attime", str(int(NOW.timestamp()))]
    words += ["-CAfile", "root", "-untrusted", "issuers", "leaf"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("leaf: OK\n", 0), done.stderr


@pytest.mark.parametrize("name", CHAINS)
def test_every_certificate_is_marked(name: str) -> None:
    for certificate in map(x509.load_der_x509_certificate, CHAINS[name].der()):
        assert [a.value for a in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)] == [
            MARK
        ]
        key = certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert key.curve.name == "secp384r1"


def form(certificate: x509.Certificate) -> list[object]:
    """What does not differ between two GPUs of one kind."""
    fields: list[object] = [certificate.version, certificate.signature_algorithm_oid.dotted_string]
    fields += [certificate.not_valid_before_utc, certificate.not_valid_after_utc]
    fields += [[attribute.oid.dotted_string for attribute in certificate.subject]]
    own = {NameOID.ORGANIZATION_NAME, NameOID.SERIAL_NUMBER}
    fields += [[a.value for a in certificate.subject if a.oid not in own]]
    fields += [len(hex(certificate.serial_number))]
    keys = {ExtensionOID.SUBJECT_KEY_IDENTIFIER, ExtensionOID.AUTHORITY_KEY_IDENTIFIER}
    for extension in certificate.extensions:
        fields += [extension.oid.dotted_string, extension.critical]
        value = extension.value.public_bytes()
        alike = extension.oid not in keys and not isinstance(
            extension.value, x509.SubjectAlternativeName | x509.UnrecognizedExtension
        )
        fields += [value if alike else len(value)]
    return fields


def test_a_hopper_is_as_real_ones_are() -> None:
    real = x509.load_pem_x509_certificates(vectors.read("gpu/nvidia-attestation-sdk/hopperCertChain.txt"))
    ours = [x509.load_der_x509_certificate(der) for der in CHAINS["HOPPER"].der()]
    assert [form(certificate) for certificate in ours] == [form(certificate) for certificate in real]


@pytest.mark.parametrize(("arch", "at"), [("HOPPER", slice(-48, None)), ("BLACKWELL", slice(56, 104))])
def test_where_the_fwid_lies(arch: Arch, at: slice) -> None:
    value = stub_nvidia.fwid_extension(arch, FWID, stub_nvidia.key("any"))
    assert value[at] == FWID
    assert len(value) == {"HOPPER": 189, "BLACKWELL": 180}[arch]


@pytest.mark.parametrize("arch", ARCHS)
def test_it_fits_in_what_nvml_has_room_for(arch: Arch) -> None:
    assert len(stub_nvidia.chain(arch, 7).pem()) <= 0x1400


def test_the_same_in_every_process() -> None:
    """No certificate of a chain follows from chance or from the time."""
    stub_nvidia.key.cache_clear()
    assert stub_nvidia.chain("HOPPER").der() == CHAINS["HOPPER"].der()


def test_gpus_differ_below_one_provisioner() -> None:
    first, second = stub_nvidia.chain("HOPPER", 0).der(), stub_nvidia.chain("HOPPER", 1).der()
    assert [a == b for a, b in zip(first, second, strict=True)] == [False, False, True, True, True]


def test_one_root_for_both_architectures() -> None:
    assert stub_nvidia.chain("HOPPER").der()[-1] == stub_nvidia.chain("BLACKWELL").der()[-1]
    assert stub_nvidia.rim_chain(NOW).der()[-1] == stub_nvidia.rim_chain(NOW, "GB100").der()[-1]
    assert stub_nvidia.chain("HOPPER", realm="another").der()[-1] != stub_nvidia.chain("HOPPER").der()[-1]


def test_a_part_is_replaced_and_signed_all_the_same() -> None:
    ends = datetime(2024, 1, 1, tzinfo=UTC)
    changed: Chain = CHAINS["HOPPER"].replace(1, not_after=ends)
    found = [x509.load_der_x509_certificate(der) for der in changed.der()]
    assert found[1].not_valid_after_utc == ends
    found[0].verify_directly_issued_by(found[1])
    found[1].verify_directly_issued_by(found[2])
