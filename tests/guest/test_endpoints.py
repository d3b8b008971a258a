"""What stands at which path, and that nothing else does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import fake_gpus
import pytest
import stub_chain
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stub_report import Contents, sign

from tinboot.formats import (
    attestationdocument,
    bootreport,
    bootstages,
    completeattestation,
    deviceevidence,
    gpuevidence,
    hpkekeys,
    reportdata,
    workloadstatus,
)
from tinboot.formats.attestationdocument import DocumentV3
from tinboot.formats.servicesettings import Settings
from tinboot.formats.workloadstatus import Container, WorkloadStatus
from tinboot.guest import fresh_evidence, report
from tinboot.guest.attended import Attendance, Work
from tinboot.guest.boot_stages import Moments
from tinboot.guest.collector import Collector, Limits
from tinboot.guest.endpoints import ATTESTATION, COMPLETE, WELL_KNOWN, Endpoints, Facts, Places
from tinboot.guest.evidence import Evidence
from tinboot.guest.http_request import Request
from tinboot.guest.http_response import Response

TLS, HPKE, NONCE = b"t" * 32, b"h" * 32, "0123456789abcdef" * 4
SEALED = b'{"cmdline": "x", "hooks": [{"hook": "10-config", "ms": 3, "found": {}}], "ms": 9}\n'
KEY = stub_chain.chip_key()
REPORT = sign(Contents(report_data=reportdata.v2(TLS, HPKE)).pack(), KEY)
BOOT = Evidence("configfs-tsm", sign(Contents(report_data=bootreport.report_data(SEALED)).pack(), KEY), b"")
FACTS = Facts(
    Settings(0, "hopper", True, True, "1.2.3@sha256:" + "0" * 64),
    TLS,
    HPKE,
    "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    attestationdocument.compose_v2(REPORT),
    Moments(1e9, 9, 20, 30),
)
RUNNING = WorkloadStatus(True, (Container("embed", "running", "", 40),))

EVIDENCE = (ATTESTATION, COMPLETE)
OTHERS = tuple(
    WELL_KNOWN + name
    for name in (
        *("tinfoil-certificate", "hpke-keys", "tinfoil-boot-stages"),
        *("tinfoil-containers", "livez", "readyz"),
    )
)


class Asked(Collector):
    """Takes whatever is asked for, and starts nothing."""

    def __init__(self) -> None:
        super().__init__(Limits())
        self.works: list[Work] = []

    def ask(self, work: Work) -> Response | int:
        self.works.append(work)
        return len(self.works)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    found = Places(tmp_path / "sealed", tmp_path / "report", tmp_path / "status.json")
    found.sealed.mkdir()
    found.report.mkdir()
    (found.sealed / "boot.json").write_bytes(SEALED)
    (found.sealed / "config.yml").write_bytes(b"cpus: 1\n")
    report.keep(BOOT, found.report)
    found.workload.write_bytes(workloadstatus.render(RUNNING))
    return found


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def served(places: Places, asked: Asked) -> Endpoints:
    return Endpoints(FACTS, asked, places)


def get(path: str, query: str | None = None, method: str = "GET") -> Request:
    return Request(method, path, query, False)


def answered(served: Endpoints, path: str, query: str | None = None, method: str = "GET") -> Response:
    found = served(get(path, query, method))
    assert isinstance(found, Response)
    return found


def test_the_document_without_a_nonce(served: Endpoints, asked: Asked) -> None:
    found = answered(served, ATTESTATION)
    assert (found.status, found.media_type) == (200, "application/json")
    assert attestationdocument.parse_v2(found.body).report == REPORT
    assert not asked.works


def challenge(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """Makes the PSP answer."""
    seen: list[tuple[object, ...]] = []

    def challenged(attendance: Attendance, settings: Settings, material: bytes, nonce: bytes) -> DocumentV3:
        seen.append((settings, material, nonce))
        device = deviceevidence.render(())
        signed = sign(Contents(report_data=reportdata.v3(nonce, material, device)).pack(), KEY)
        return attestationdocument.compose_v3(nonce, signed, material, device)

    monkeypatch.setattr(fresh_evidence, "challenged", challenged)
    return seen


def test_the_document_with_a_nonce(served: Endpoints, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = challenge(monkeypatch)
    assert served(get(ATTESTATION, f"nonce={NONCE}")) == 1
    text = asked.works[0](Attendance(-1))
    assert isinstance(text, str)
    assert attestationdocument.parse_v3(text.encode()).nonce.hex() == NONCE
    assert seen[0][0] == FACTS.settings
    assert seen[0][2] == bytes.fromhex(NONCE)


def test_all_of_it(served: Endpoints, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    found = completeattestation.parse(answered(served, COMPLETE).body)
    assert found.image_version == "1.2.3"
    assert found.config == b"cpus: 1\n"
    assert (found.certificate, found.hpke, found.document) == (FACTS.certificate, HPKE, FACTS.document)
    assert found.challenged is None
    assert found.boot == bootreport.BootReport(SEALED, *BOOT)
    assert found.gpus == ()
    assert answered(served, COMPLETE).body is answered(served, COMPLETE).body
    challenge(monkeypatch)
    assert served(get(COMPLETE, f"nonce={NONCE}")) == 1
    text = asked.works[0](Attendance(-1))
    assert isinstance(text, str)
    whole = completeattestation.parse(text.encode())
    assert whole.challenged is not None
    assert whole.challenged.nonce.hex() == NONCE
    assert whole._replace(challenged=None) == found


def test_with_the_gpus_of_the_boot(places: Places, asked: Asked) -> None:
    gpus = [fake_gpus.evidence()]
    (places.sealed / "gpu-evidence.json").write_bytes(gpuevidence.render(gpus))
    served = Endpoints(FACTS._replace(settings=Settings(1, "hopper", True, True)), asked, places)
    found = completeattestation.parse(answered(served, COMPLETE).body)
    assert list(found.gpus) == gpus
    assert found.image_version == "unknown"


def test_keys(served: Endpoints) -> None:
    found = answered(served, WELL_KNOWN + "hpke-keys")
    assert found.media_type == "application/ohttp-keys"
    assert hpkekeys.parse(found.body) == HPKE
    certificate = answered(served, WELL_KNOWN + "tinfoil-certificate")
    assert json.loads(certificate.body) == {"certificate": FACTS.certificate}


def test_boot_stages(served: Endpoints) -> None:
    found = bootstages.parse(answered(served, WELL_KNOWN + "tinfoil-boot-stages").body)
    assert [stage.name for stage in found.stages] == ["kernel", "10-config", "units", "identity", "workload"]
    assert found.completed is not None


def test_readiness_follows_the_workload(served: Endpoints, places: Places) -> None:
    """Each time anew; and it is not liveness."""
    assert answered(served, WELL_KNOWN + "readyz").status == 200
    assert workloadstatus.parse(answered(served, WELL_KNOWN + "tinfoil-containers").body) == RUNNING
    gone = WorkloadStatus(False, (Container("embed", "exited", "status 3", 50),))
    places.workload.write_bytes(workloadstatus.render(gone))
    found = answered(served, WELL_KNOWN + "readyz")
    assert found.status == 503
    assert json.loads(found.body)["detail"] == "embed is exited"
    assert workloadstatus.parse(answered(served, WELL_KNOWN + "tinfoil-containers").body) == gone
    places.workload.unlink()
    assert answered(served, WELL_KNOWN + "readyz").status == 503
    nothing = answered(served, WELL_KNOWN + "tinfoil-containers")
    assert workloadstatus.parse(nothing.body) == WorkloadStatus(False, ())
    assert answered(served, WELL_KNOWN + "livez").status == 200


@pytest.mark.parametrize("path", [*EVIDENCE, *OTHERS])
def test_methods(served: Endpoints, path: str) -> None:
    assert answered(served, path, method="HEAD").status == 200
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "get", "BREW"):
        found = answered(served, path, method=method)
        assert (found.status, dict(found.more)["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/embeddings",
        WELL_KNOWN,
        ATTESTATION + "/",
        ATTESTATION.upper(),
        "/" + ATTESTATION,
        "/a/.." + ATTESTATION,
        "/%2ewell-known/tinfoil-attestation",
        WELL_KNOWN + "metrics",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nothing_else(served: Endpoints, path: str, method: str) -> None:
    assert answered(served, path, method=method).status == 404


@pytest.mark.parametrize(
    "query",
    [
        "",
        "nonce",
        "nonce=",
        f"nonce={NONCE[1:]}",
        f"nonce={NONCE}0",
        f"nonce={NONCE.upper()}",
        f"nonce={NONCE}\n",
        f"nonce={NONCE}&",
        f"nonce={NONCE}&nonce={NONCE}",
        f"a=b&nonce={NONCE}",
        f"Nonce={NONCE}",
        f"nonce=%30{NONCE[1:]}",
        "nonce=" + "\uff10" * 64,
    ],
)
def test_odd_queries(served: Endpoints, asked: Asked, query: str) -> None:
    for path in (*EVIDENCE, *OTHERS):
        assert answered(served, path, query).status == 400
    assert not asked.works


@pytest.mark.parametrize("path", OTHERS)
def test_a_nonce_where_none_is_taken(served: Endpoints, path: str) -> None:
    assert answered(served, path, f"nonce={NONCE}").status == 400


@pytest.mark.parametrize("query", [None, f"nonce={NONCE}", "odd"])
def test_evidence_that_is_not_published(places: Places, asked: Asked, query: str | None) -> None:
    settings = FACTS.settings._replace(publish_attestation=False)
    served = Endpoints(FACTS._replace(settings=settings), asked, places)
    for path in EVIDENCE:
        assert answered(served, path, query).status == 404
        assert answered(served, path, query, "POST").status == 404
    assert not asked.works
    assert answered(served, WELL_KNOWN + "readyz").status == 200


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(max_size=40).map(WELL_KNOWN.__add__) | st.text(max_size=40), st.none() | st.text(max_size=80))
def test_fuzz(served: Endpoints, path: str, query: str | None) -> None:
    found = served(get(path, query))
    assert isinstance(found, Response)
    assert found.status in {200, 400, 404}
    assert (found.status == 404) == (path not in (*EVIDENCE, *OTHERS))


def test_every_path_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs/service.md").read_text("utf-8")
    rows = re.findall(r"^\| `(/\.well-known/[^`]*)` \|", page, re.MULTILINE)
    assert sorted(rows) == sorted((*EVIDENCE, *OTHERS))
