"""The paths that the evidence server answers, and what it answers there (docs/service.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tinboot.formats import (
    attestationdocument,
    bootlog,
    bootstages,
    cryptomaterial,
    gpugate,
    hpkekeys,
    workloadstatus,
)
from tinboot.formats.attestationdocument import DocumentV2, DocumentV3
from tinboot.formats.cryptomaterial import CryptoMaterial
from tinboot.formats.servicesettings import Settings
from tinboot.formats.workloadstatus import WorkloadStatus
from tinboot.guest import boot_stages, fresh_evidence, readiness, report
from tinboot.guest.attended import Attendance
from tinboot.guest.boot_stages import Moments
from tinboot.guest.collector import Collector
from tinboot.guest.http_request import Request
from tinboot.guest.http_response import Response, problem

WELL_KNOWN = "/.well-known/"
ATTESTATION = WELL_KNOWN + "tinfoil-attestation"
COMPLETE = WELL_KNOWN + "attestation/complete-attestation.json"

_NONCE = re.compile("nonce=([0-9a-f]{64})")
_METHODS = ("GET", "HEAD")


class Places(NamedTuple):
    """Where things lie in the guest."""

    sealed: Path = Path(bootlog.SEALED)
    report: Path = report.KEPT
    workload: Path = readiness.PATH


class Facts(NamedTuple):
    """What the guest is since it started. `certificate`: PEM. `hpke`: the raw public key."""

    settings: Settings
    tls: bytes
    hpke: bytes
    certificate: str
    document: DocumentV2
    moments: Moments


class Endpoints:
    """The server's handler."""

    def __init__(self, facts: Facts, collector: Collector, places: Places | None = None) -> None:
        self._facts, self._collector = facts, collector
        self._places = places or Places()
        self._material = cryptomaterial.render(CryptoMaterial(facts.tls, facts.hpke))
        self._complete: bytes | None = None  # without a nonce it is always the same
        self._evidence: dict[str, Callable[[bytes | None], Response | int]] = {
            ATTESTATION: self._attestation,
            COMPLETE: self._complete_attestation,
        }
        self._others: dict[str, Callable[[], Response]] = {
            WELL_KNOWN + "tinfoil-certificate": self._certificate,
            WELL_KNOWN + "hpke-keys": self._hpke_keys,
            WELL_KNOWN + "tinfoil-boot-stages": self._boot_stages,
            WELL_KNOWN + "tinfoil-containers": self._containers,
            WELL_KNOWN + "livez": _alive,
            WELL_KNOWN + "readyz": self._ready,
        }

    def __call__(self, request: Request) -> Response | int:
        """A response, or the collector's ticket for one."""
        evidence = self._evidence.get(request.path)
        other = self._others.get(request.path)
        if evidence is not None and not self._facts.settings.publish_attestation:
            evidence = None
        if evidence is None and other is None:
            return problem(404)
        if request.method not in _METHODS:
            return problem(405, Allow=", ".join(_METHODS))
        if evidence is not None and (request.query is None or _NONCE.fullmatch(request.query)):
            nonce = None if request.query is None else bytes.fromhex(request.query.removeprefix("nonce="))
            return evidence(nonce)
        if other is not None and request.query is None:
            return other()
        return problem(400)

    def _attestation(self, nonce: bytes | None) -> Response | int:
        if nonce is None:
            return Response(200, attestationdocument.render_v2(self._facts.document.report))
        return self._collect(nonce, attestationdocument.render_v3)

    def _complete_attestation(self, nonce: bytes | None) -> Response | int:
        if nonce is not None:
            return self._collect(nonce, self._whole)
        if self._complete is None:
            self._complete = self._whole(None)
        return Response(200, self._complete)

    def _collect(self, nonce: bytes, render: Callable[[DocumentV3], bytes]) -> Response | int:
        settings, material = self._facts.settings, self._material
        fresh_evidence.load(settings)

        def work(attendance: Attendance) -> str:
            return render(fresh_evidence.challenged(attendance, settings, material, nonce)).decode()

        return self._collector.ask(work)

    def _whole(self, challenged: DocumentV3 | None) -> bytes:
        from tinboot.formats import bootreport, completeattestation, gpuevidence  # noqa: PLC0415 - few ask

        facts, places = self._facts, self._places
        gpus = places.sealed / gpugate.EVIDENCE_FILE
        kept = report.kept(places.report)
        return completeattestation.render(
            completeattestation.CompleteAttestation(
                (facts.settings.image_version or "unknown").partition("@")[0],
                (places.sealed / bootlog.CONFIG_FILE).read_bytes(),
                facts.certificate,
                facts.hpke,
                facts.document,
                challenged,
                bootreport.BootReport((places.sealed / bootlog.REPORT_FILE).read_bytes(), *kept),
                gpuevidence.parse(gpus.read_bytes()) if facts.settings.gpus else (),
            )
        )

    def _certificate(self) -> Response:
        return Response(200, json.dumps({"certificate": self._facts.certificate}).encode())

    def _hpke_keys(self) -> Response:
        return Response(200, hpkekeys.render(self._facts.hpke), hpkekeys.MEDIA_TYPE)

    def _boot_stages(self) -> Response:
        sealed = (self._places.sealed / bootlog.REPORT_FILE).read_bytes()
        expected = self._facts.settings.workload
        made = boot_stages.stages(sealed, self._facts.moments, self._workload(), expected)
        return Response(200, bootstages.render(made))

    def _containers(self) -> Response:
        return Response(200, workloadstatus.render(self._workload() or WorkloadStatus(False, ())))

    def _ready(self) -> Response:
        lack = readiness.lack(self._workload(), self._facts.settings.workload)
        return problem(503, lack, Retry_After="1") if lack else Response(200, b'{"status":"ready"}')

    def _workload(self) -> WorkloadStatus | None:
        return readiness.read(self._places.workload)


def _alive() -> Response:
    return Response(200, b'{"status":"live"}')
