"""All that a guest can say for itself, in one JSON: /.well-known/attestation/complete-attestation.json.

    {"format":"tinboot/complete-attestation/v1",
     "image_version":"1.2.0",
     "config":"<base64: the config's bytes, as hashed at boot>",
     "certificate":"<PEM: of the TLS key>",
     "hpke_keys":"<base64: hpkekeys.py>",
     "attestation":{...v2 document...},
     "challenged":{...v3 document...} or null,         with `?nonce=`
     "boot":{"provider":"configfs-tsm","report":"<base64>","certificates":"<base64>","sealed":"<base64>"},
     "gpu_evidence":[...]}                             of the boot, as gpuevidence.py

`boot` is the report that every boot begins with (bootreport.py). `sealed`, which it binds, has the hash of
the config and of the GPUs' evidence, so that with it all of this hangs together.
"""

from __future__ import annotations

import base64
import json
from typing import NamedTuple

from tinboot.formats import attestationdocument, certtable, configdisk, gpuevidence, hpkekeys, snpreport
from tinboot.formats.attestationdocument import DocumentV2, DocumentV3
from tinboot.formats.bootreport import BootReport
from tinboot.formats.gpuevidence import GpuEvidence
from tinboot.formats.jsonfields import Fields, parse_object

FORMAT = "tinboot/complete-attestation/v1"

MAX_SIZE = 12 << 20  # bytes: config, v3 document and the boot's evidence at their largest, in base64
MAX_SEALED = 1 << 20
_MAX_CERTIFICATE = 64 << 10  # characters of PEM: a certificate with a hundred names has 12,000


class CompleteAttestation(NamedTuple):
    """`certificate`: PEM. `hpke`: the raw public key. `challenged`: None where nobody gave a nonce.

    `gpus`: what the boot's gate verified, with a nonce of its own; empty without GPUs.
    """

    image_version: str
    config: bytes
    certificate: str
    hpke: bytes
    document: DocumentV2
    challenged: DocumentV3 | None
    boot: BootReport
    gpus: tuple[GpuEvidence, ...]


def render(complete: CompleteAttestation) -> bytes:
    """One line, members in order."""
    challenged = complete.challenged
    boot = complete.boot
    members = {
        "format": FORMAT,
        "image_version": complete.image_version,
        "config": _base64(complete.config),
        "certificate": complete.certificate,
        "hpke_keys": _base64(hpkekeys.render(complete.hpke)),
        "attestation": attestationdocument.members_v2(complete.document),
        "challenged": None if challenged is None else attestationdocument.members_v3(challenged),
        "boot": {
            "provider": boot.provider,
            "report": _base64(boot.report),
            "certificates": _base64(boot.certificates),
            "sealed": _base64(boot.sealed),
        },
        "gpu_evidence": [gpuevidence.members(gpu) for gpu in complete.gpus],
    }
    return json.dumps(members, separators=(",", ":")).encode()


def parse(data: bytes) -> CompleteAttestation:
    """The inverse; raises `Malformed` with the member's path. What the boot sealed is not looked into."""
    fields = parse_object("complete attestation", data, MAX_SIZE)
    fields.one_of("format", (FORMAT,))
    found = CompleteAttestation(
        fields.text("image_version", 64),
        fields.base64("config", configdisk.LIMIT),
        fields.lines("certificate", _MAX_CERTIFICATE),
        hpkekeys.parse(fields.base64("hpke_keys", hpkekeys.SIZE)),
        attestationdocument.read_v2(fields.record("attestation")),
        None if fields.is_null("challenged") else attestationdocument.read_v3(fields.record("challenged")),
        _boot(fields.record("boot")),
        gpuevidence.read(fields.records("gpu_evidence"), least=0),
    )
    fields.end()
    return found


def _boot(fields: Fields) -> BootReport:
    found = BootReport(
        fields.base64("sealed", MAX_SEALED),
        fields.text("provider", 64),
        fields.base64("report", snpreport.SIZE, snpreport.SIZE),
        fields.base64("certificates", certtable.MAX_SIZE, 0),
    )
    fields.end()
    return found


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
