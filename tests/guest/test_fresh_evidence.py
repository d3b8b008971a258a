"""Documents for a nonce, from a stub PSP: what they bind; and none where a device misbehaves."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache

import fake_amd
import fake_nvidia
import pytest
import stub_chain
from stub_report import Contents, sign

from tinboot.formats import attestationcollateral, attestationdocument, certtable, deviceevidence, reportdata
from tinboot.formats.certtable import Certificates
from tinboot.formats.cryptomaterial import CryptoMaterial, render
from tinboot.formats.halt import Refusal
from tinboot.formats.servicesettings import Settings
from tinboot.guest import fresh_evidence, nvml, report
from tinboot.guest.attended import Attendance
from tinboot.guest.evidence import Busy, Evidence
from tinboot.guest.nvml import Collected, Gpu
from tinboot.verify import certificate

KEY = stub_chain.chip_key()
NONCE = bytes(range(32))
MATERIAL = render(CryptoMaterial(b"t" * 32, b"h" * 32))
_GOOD = Contents()
NO_GPU = Settings(0, "hopper", True, True)


@pytest.fixture
def attendance() -> Attendance:
    return Attendance(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))


@pytest.fixture
def psp(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes it answer so, with the REPORT_DATA that it was given or another."""

    def answer(contents: Contents = _GOOD, *, echo: bool = True) -> None:
        def collect(report_data: bytes) -> Evidence:
            filled = contents._replace(report_data=report_data) if echo else contents
            return Evidence("sev-guest", sign(filled.pack(), KEY), b"")

        monkeypatch.setattr(report, "collect", collect)

    return answer


def test_binds_nonce_keys_and_devices(attendance: Attendance, psp: Callable[..., None]) -> None:
    psp()
    found = fresh_evidence.challenged(attendance, NO_GPU, MATERIAL, NONCE)
    read = attestationdocument.parse_v3(attestationdocument.render_v3(found))
    assert read == found
    assert read.nonce == NONCE
    assert read.crypto_material == MATERIAL
    assert deviceevidence.parse(read.device_evidence) == ()
    assert read.report_data == reportdata.v3(NONCE, MATERIAL, read.device_evidence)
    assert read.report[0x50:0x90] == read.report_data
    assert read.collateral == ()


def test_gpus_are_asked_with_the_same_nonce(
    attendance: Attendance, psp: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And told to be ready, as they have been since the gate."""
    psp()
    asked = []

    def collect(calls: object, gpus: int, architecture: str, nonce: bytes, *, ready: bool) -> Collected:
        asked.append((gpus, architecture, nonce, ready))
        return Collected("1", tuple(Gpu(f"GPU-{n}", "v", fake_nvidia.device_root(), b"r") for n in range(2)))

    monkeypatch.setattr(nvml, "collect", collect)
    settings = Settings(2, "blackwell", True, True)
    fresh_evidence.load(settings)
    found = fresh_evidence.challenged(attendance, settings, MATERIAL, NONCE)
    assert asked == [(2, "blackwell", NONCE, True)]
    gpus = deviceevidence.parse(found.device_evidence)
    assert [(gpu.arch, gpu.nonce, gpu.evidence) for gpu in gpus] == [("BLACKWELL", NONCE, b"r")] * 2


@pytest.mark.parametrize(
    ("contents", "echo", "reason"),
    [(_GOOD, False, "report-mismatch"), (_GOOD._replace(vmpl=1), True, "report-policy")],
)
def test_another_report_is_no_evidence(
    attendance: Attendance, psp: Callable[..., None], contents: Contents, echo: bool, reason: str
) -> None:
    psp(contents, echo=echo)
    with pytest.raises(Refusal) as refused:
        fresh_evidence.challenged(attendance, NO_GPU, MATERIAL, NONCE)
    assert refused.value.reason == reason


def test_a_busy_host(attendance: Attendance, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(report_data: bytes) -> Evidence:
        raise Busy("later")

    monkeypatch.setattr(report, "collect", busy)
    with pytest.raises(Busy):
        fresh_evidence.challenged(attendance, NO_GPU, MATERIAL, NONCE)


@cache
def ders() -> tuple[bytes, bytes, bytes]:
    """VCEK, ASK and ARK of the fake AMD."""
    authority = fake_amd.authority()
    return authority.issue(fake_amd.vek_form()), *authority.chain()


def given(form: Callable[[bytes], bytes] = bytes) -> Certificates:
    vcek, ask, ark = map(form, ders())
    return Certificates(vcek=vcek, ask=ask, ark=ark)


def pem(der: bytes) -> bytes:
    return stub_chain.pem([der])


@pytest.mark.parametrize("form", [bytes, pem])
def test_the_hosts_certificates_are_handed_on(form: Callable[[bytes], bytes]) -> None:
    (entry,) = fresh_evidence.endorsement(certtable.pack(given(form)))
    found = attestationcollateral.vcek(entry)
    vcek, *chain = ders()
    assert found.vcek == vcek
    assert list(certificate.ders(found.chain.encode(), "CERTIFICATE")) == chain


@pytest.mark.parametrize(
    "missing",
    [
        Certificates(),
        given()._replace(vcek=None),
        given()._replace(ask=None),
        given()._replace(ark=None),
        given()._replace(ask=b"no certificate"),
    ],
    ids=["all", "vcek", "ask", "ark", "unreadable"],
)
def test_or_left_out_where_some_are_missing(missing: Certificates) -> None:
    assert fresh_evidence.endorsement(certtable.pack(missing)) == ()
    assert fresh_evidence.endorsement(b"") == ()
