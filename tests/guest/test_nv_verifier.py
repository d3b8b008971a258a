"""NVIDIA's verifier, asked as the gate asks it: what it says counts only whole, and only for this job."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gpu_mutations
import pytest
import second_verifier
import stub_nvidia
import vectors
from gpu_mutations import Subject

from tinboot.builder import places
from tinboot.formats.errors import Malformed, Mismatch, Refused, TinbootError, Unavailable
from tinboot.formats.gpuevidence import GpuEvidence
from tinboot.formats.gpureference import Kind, Rim
from tinboot.guest import confined, nv_claims, nv_verifier
from tinboot.guest.nv_claims import CHAINS, NotGood
from tinboot.guest.nv_verifier import Confirmed, Installed, Place
from tinboot.verify import certificate

PREFIX = "x-nvidia-gpu-"
GOOD = gpu_mutations.subject()


def test_a_confirmation_says_what_was_confirmed() -> None:
    found = gpu_mutations.confirm(GOOD)
    assert found.evidence is GOOD.evidence
    assert found.rims == ("NV_GPU_DRIVER_GH100_550.90.07", "NV_GPU_VBIOS_G520_0200_885_96009F0001")
    assert found.revocation == frozenset()
    assert found.claims["measres"] == "success"
    assert found.claims["ueid"] == str(stub_nvidia.chain().forms[0].serial)


def test_nothing_else_makes_a_confirmation() -> None:
    with pytest.raises(TypeError, match="by appraising"):
        Confirmed(object(), GOOD.evidence, {}, ("", ""), frozenset())


@pytest.mark.parametrize(
    ("make", "asked"),
    [
        (lambda: gpu_mutations.subject(answers=gpu_mutations.answers()), {nv_claims.DEVICE}),
        (gpu_mutations.all_answered, set(CHAINS)),
    ],
    ids=["device", "all"],
)
def test_revocation_is_looked_at_where_there_are_answers(
    make: Callable[[], Subject], asked: set[str]
) -> None:
    found = gpu_mutations.confirm(make())
    assert found.revocation == asked
    for chain in CHAINS:
        claim = found.claims[f"{PREFIX}{chain}-cert-chain"]
        assert isinstance(claim, dict)
        assert claim["x-nvidia-cert-ocsp-status"] == ("good" if chain in asked else None)


def test_it_sees_rims_of_nothing_but_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    rim, data = GOOD.rims[0]
    other = rim._replace(id="NV_GPU_DRIVER_GH100_550.90.08", version="550.90.08")
    jobs = _record(monkeypatch)
    gpu_mutations.confirm(GOOD._replace(rims=(*GOOD.rims, (other, data))))
    assert set(jobs[0]["rims"]) == {rim.id for rim, _ in GOOD.rims}


def _record(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The jobs that were asked about from here on."""
    jobs: list[dict[str, Any]] = []
    ask = confined.ask

    def recording(python: str, program: list[str], question: bytes, seconds: float) -> bytes:
        jobs.append(json.loads(question))
        return ask(python, program, question, seconds)

    monkeypatch.setattr(confined, "ask", recording)
    return jobs


# --- what is refused before it is asked -----------------------------------------------------------

_DRIVER, _VBIOS = GOOD.rims


def _pin_again(data: bytes) -> tuple[Rim, bytes]:
    return _DRIVER[0]._replace(sha256=hashlib.sha256(data).hexdigest()), data


@pytest.mark.parametrize(
    ("subject", "error", "said"),
    [
        (
            GOOD._replace(installed=Installed("1.2.3", GOOD.installed.vbios_version)),
            Refused,
            "driver '1.2.3'",
        ),
        (GOOD._replace(installed=Installed(GOOD.installed.driver_version, "96")), Refused, "vbios '96'"),
        (GOOD._replace(rims=(_VBIOS,)), Refused, "no reference values of driver"),
        (GOOD._replace(rims=((_DRIVER[0], _DRIVER[1] + b" "), _VBIOS)), Mismatch, "has the SHA-256"),
        (
            GOOD._replace(rims=((_DRIVER[0]._replace(root="00" * 32), _DRIVER[1]), _VBIOS)),
            Refused,
            "different roots",
        ),
        (
            GOOD._replace(rims=tuple((rim._replace(root="00" * 32), data) for rim, data in GOOD.rims)),
            Mismatch,
            "does not end in its pinned root",
        ),
        (GOOD._replace(rims=(_pin_again(b"\xff" + _DRIVER[1]), _VBIOS)), Malformed, "is not UTF-8"),
        (GOOD._replace(root=b"no certificate"), Malformed, "PEM blocks"),
        (GOOD._replace(answers=(b"\x30\x00",)), Malformed, "offset"),
        (GOOD._replace(evidence=GOOD.evidence._replace(certificate=b"")), Malformed, "PEM blocks"),
    ],
    ids=["driver", "vbios", "none", "hash", "roots", "root", "text", "device-root", "answer", "chain"],
)
def test_what_is_not_worth_asking(
    subject: Subject, error: type[TinbootError], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confined, "ask", lambda *_: pytest.fail("it was asked"))
    with pytest.raises(error, match=said):
        gpu_mutations.confirm(subject)


def test_a_rim_that_is_not_in_the_image_is_no_verdict() -> None:
    with pytest.raises(Unavailable, match="only its reference values"):
        _appraise(GOOD, second_verifier.place(), files={_DRIVER[0].id: _DRIVER[1]})


def test_an_image_without_it_gives_no_verdict(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="there is no nv-local-gpu-verifier") as caught:
        _appraise(GOOD, Place(tmp_path))
    assert "gpu-policy" in caught.value.hint


def _appraise(subject: Subject, place: Place, files: dict[str, bytes] | None = None) -> Confirmed:
    return nv_verifier.appraise(
        *(subject.evidence, subject.installed, subject.reference, files or subject.files, subject.root),
        *(subject.answers, place),
    )


# --- a child that fails ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "child",
    [
        "raise SystemExit(1)",
        "import os; os.write(3, b'{}')",
        "",
        "import sys; sys.path.insert(0, sys.argv[1]); import verifier.nothing",
    ],
    ids=["status", "nothing", "silence", "import"],
)
def test_a_child_that_fails_says_nothing(child: str) -> None:
    folder = second_verifier.folder()
    (folder / "child.py").write_text(child)
    (folder / "site").symlink_to(second_verifier.place().folder / "site")
    with pytest.raises(Unavailable):
        _appraise(GOOD, second_verifier.place()._replace(folder=folder))


# --- real evidence --------------------------------------------------------------------------------

#: When the RIMs in the wheel were valid; the report is of then, too.
_THEN = datetime(2024, 3, 1, tzinfo=UTC)

_SET_CLOCK = f"""
import runpy, sys
sys.path.insert(0, sys.argv[1])
from datetime import datetime
from OpenSSL import crypto
class Context(crypto.X509StoreContext):
    def __init__(self, store, *rest):
        store.set_time(datetime({_THEN.year}, {_THEN.month}, {_THEN.day}))
        super().__init__(store, *rest)
crypto.X509StoreContext = Context
sys.argv[0] = {{child!r}}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def _at_that_time(place: Place) -> Place:
    """The same verifier, whose certificates are verified at `_THEN`."""
    folder = second_verifier.folder()
    (folder / "child.py").write_text(_SET_CLOCK.format(child=str(place.folder / "child.py")))
    (folder / "site").symlink_to(place.folder / "site")
    return place._replace(folder=folder)


def _sample(name: str) -> bytes:
    """Of the wheel, of which the image holds none."""
    second_verifier.place()
    (wheel,) = (places.build_folder() / "packages/wheels").glob("nv_local_gpu_verifier-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(f"verifier/samples/{name}")


def _real() -> Subject:
    """An H100's report and its two RIMs, genuine all."""
    evidence = GpuEvidence(
        "HOPPER",
        vectors.read("gpu/go-nvtrust/gpuAkCertChain.txt"),
        bytes.fromhex(vectors.read("gpu/go-nvtrust/attestationReport.txt").decode().strip()),
        bytes.fromhex("4cff7f5380ead8fad8ec2c531c110aca4302a88f603792801a8ca29ee151af2e"),
    )
    rims = (
        _pin(
            *("NV_GPU_DRIVER_GH100_545.00", "driver", "545.00", "Driver_RIM_test_no_gpu"),
            datetime(2025, 6, 26, 6, 10, 12, tzinfo=UTC),
        ),
        _pin(
            *("NV_GPU_VBIOS_1010_0200_882_96005E0001", "vbios", "96.00.5E.00.01"),
            *("1010_0200_882_96005E0001_test_no_gpu", datetime(2025, 6, 22, 9, 38, 54, tzinfo=UTC)),
        ),
    )
    root = (second_verifier.place().folder / "site/verifier/certs/verifier_device_root.pem").read_bytes()
    return Subject(evidence, Installed("545.00", "96.00.5E.00.01"), rims, root)


def _pin(identifier: str, kind: Kind, version: str, sample: str, ends: datetime) -> tuple[Rim, bytes]:
    """The root is NVIDIA's, from the package; `ends` as openssl shows it of the signer."""
    data = _sample(f"{sample}.swidtag")
    root = (second_verifier.place().folder / "site/verifier/certs/verifier_RIM_root.pem").read_bytes()
    fingerprint = hashlib.sha256(_der(root)).hexdigest()
    digest = hashlib.sha256(data).hexdigest()
    return Rim(identifier, kind, version, "GH100", digest, "wheel", fingerprint, "", ends, {}), data


def _der(pem: bytes) -> bytes:
    return certificate.ders(pem, "CERTIFICATE")[0]


def test_real_evidence_is_confirmed_while_its_rims_are_valid() -> None:
    found = _appraise(_real(), _at_that_time(second_verifier.place()))
    assert found.claims["hwmodel"] == "GH100 A01 GSP BROM"
    assert found.claims[f"{PREFIX}driver-version"] == "545.00"


def test_real_evidence_is_refused_once_they_have_expired() -> None:
    """Nothing else has changed: this verifier has no way to be told that a RIM was verified in time."""
    with pytest.raises(NotGood, match=r'driver-rim-cert-chain\.x-nvidia-cert-status is "expired"'):
        _appraise(_real(), second_verifier.place())


def test_a_bit_of_real_evidence() -> None:
    subject = _real()
    report = bytearray(subject.evidence.evidence)
    report[1000] ^= 1
    altered = subject._replace(evidence=subject.evidence._replace(evidence=bytes(report)))
    with pytest.raises(NotGood, match="signature-verified is false"):
        _appraise(altered, _at_that_time(second_verifier.place()))


def test_another_chain_than_the_real_one() -> None:
    subject = _real()
    chain = vectors.read("gpu/go-nvtrust/invalidCertChain.txt")
    altered = subject._replace(evidence=subject.evidence._replace(certificate=chain))
    with pytest.raises((NotGood, Malformed)):
        _appraise(altered, _at_that_time(second_verifier.place()))
