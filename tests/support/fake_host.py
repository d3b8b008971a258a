"""Documents of the fake AMD and NVIDIA, as the verifier's tests use them: a whole, and places to break it.

demands(), seen(), v3()            everything good
v3(report_data=bytes(64))          a report that binds something else, signed all the same
v3(gpus=gpus(1))                   evidence of fewer GPUs, bound as it should be
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from typing import Any

import fake_amd
import fake_gpus
import stub_nvidia
import stub_report
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from fake_nvidia import NONCE, NOW
from stub_gpu_report import Contents as GpuContents
from stub_report import Contents

from tinboot.formats import (
    attestationdocument,
    bootreport,
    cryptomaterial,
    deviceevidence,
    gpuevidence,
    reportdata,
)
from tinboot.formats.attestationdocument import DocumentV2, DocumentV3
from tinboot.formats.bootreport import BootReport
from tinboot.formats.completeattestation import CompleteAttestation
from tinboot.formats.cryptomaterial import CryptoMaterial, Key
from tinboot.formats.errors import TinbootError
from tinboot.formats.gpuevidence import GpuEvidence
from tinboot.formats.snptcb import GENOA
from tinboot.verify import advisories, policy
from tinboot.verify.appraisal import Endorsements
from tinboot.verify.checks import Unchecked
from tinboot.verify.document import Appraisal, Demands, GpuDemands, Seen
from tinboot.verify.gpu_appraisal import Collateral

KEYS = CryptoMaterial(b"\xaa" * 32, b"\xbb" * 32, (Key("release", b"\x30\x03\x02\x01\x05"),))
MEASUREMENT = bytes(range(48))
NOT_ASKED = Unchecked("nobody asks in this test")


def report(report_data: bytes, **contents: Any) -> bytes:
    """1184 bytes, signed by the stub's chip."""
    made = Contents(GENOA, report_data=report_data, measurement=MEASUREMENT)._replace(**contents)
    return stub_report.sign(made.pack(), fake_amd.KEY)


def gpus(count: int, nonce: bytes = NONCE) -> list[GpuEvidence]:
    """Of so many different ones, asked with `nonce`."""
    return [
        fake_gpus.evidence(GpuContents("HOPPER", nonce=nonce), stub_nvidia.chain("HOPPER", at))
        for at in range(count)
    ]


def v2(keys: CryptoMaterial = KEYS, *, report_data: bytes | None = None, **contents: Any) -> DocumentV2:
    own = reportdata.v2(keys.tls, keys.hpke) if report_data is None else report_data
    return attestationdocument.compose_v2(report(own, **contents))


def v3(
    keys: CryptoMaterial = KEYS,
    *,
    nonce: bytes = NONCE,
    gpus: Sequence[GpuEvidence] = (),
    report_data: bytes | None = None,
    **contents: Any,
) -> DocumentV3:
    sections = cryptomaterial.render(keys), deviceevidence.render(gpus)
    own = reportdata.v3(nonce, *sections) if report_data is None else report_data
    return attestationdocument.compose_v3(nonce, report(own, **contents), *sections)


@cache
def certificate() -> x509.Certificate:
    """Of a TLS key as a guest has it."""
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "guest")])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW, NOW + timedelta(days=9))
    return made.sign(key, hashes.SHA384())


def tls() -> bytes:
    """SHA-256 of its SubjectPublicKeyInfo."""
    spki = certificate().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).digest()


CONFIG = b"cpus: 2\n"


def sealed(gpus: Sequence[GpuEvidence] = (), **found: Any) -> bytes:
    """What the hooks sealed; `found`: of the config's hook."""
    config = {"config_hash": hashlib.sha256(CONFIG).hexdigest(), "models": 0, "gpus": len(gpus)} | found
    gate: dict[str, Any] = {"gpus": len(gpus)}
    if gpus:
        digest = hashlib.sha256(gpuevidence.render(gpus)).hexdigest()
        gate |= {"driver": "550.90.07", "sha256": {"gpu-evidence.json": digest, "gpu-claims.json": "00" * 32}}
    hooks = [
        {"hook": "10-config", "ms": 1, "found": config},
        {"hook": "20-root", "ms": 2, "found": {"blocks": 3}},
        {"hook": "40-gpu", "ms": 4, "found": gate},
    ]
    return json.dumps({"cmdline": "readonly=on", "hooks": hooks, "ms": 9}, indent=1).encode() + b"\n"


def complete(
    boot_gpus: Sequence[GpuEvidence] = (), *, challenged: DocumentV3 | None = None, boot: bytes | None = None
) -> CompleteAttestation:
    """All of one guest, whose TLS key is that of `certificate`; `boot`: other than what is sealed."""
    keys = KEYS._replace(tls=tls())
    pem = certificate().public_bytes(Encoding.PEM).decode()
    own = sealed(boot_gpus)
    found = report(bootreport.report_data(own if boot is None else boot))
    return CompleteAttestation(
        "1.2.0",
        CONFIG,
        pem,
        keys.hpke,
        v2(keys),
        challenged,
        BootReport(own, "sev-guest", found, b""),
        tuple(boot_gpus),
    )


def endorsements(**fields: Any) -> Endorsements:
    made = fake_amd.presented()
    return Endorsements(made.vek, (made.intermediate, made.root), None, made.pinned)._replace(**fields)


def gpu_demands(count: int = 2, **fields: Any) -> GpuDemands:
    """So many Hoppers; the policy's own nonce is none that anybody sent."""
    collateral = Collateral(fake_gpus.reference(), (), (fake_gpus.root(),))
    return GpuDemands(collateral, fake_gpus.policy(gpus=count, nonce=b"\xff" * 32))._replace(**fields)


def demands(**fields: Any) -> Demands:
    """Pinned to `MEASUREMENT`, `NONCE` was sent, no GPU is expected."""
    wanted = policy.shipped("baseline").pinned(measurement=MEASUREMENT)
    return Demands(endorsements(), wanted, advisories.shipped(), NONCE, None)._replace(**fields)


def seen(**fields: Any) -> Seen:
    """The guest's own keys."""
    return Seen(KEYS.tls, KEYS.hpke)._replace(**fields)


def failed(result: Appraisal) -> set[str]:
    """Checks of the document, of the report with `cpu:`, of the GPUs with `gpu:` before them."""
    found = {v.id for v in result.verdicts if isinstance(v.outcome, TinbootError)}
    if result.cpu is not None:
        found |= {f"cpu:{v.id}" for v in result.cpu.verdicts if isinstance(v.outcome, TinbootError)}
    if result.gpus is not None:
        found |= {f"gpu:{name}" for _, name in fake_gpus.failed(result.gpus)}
    return found
