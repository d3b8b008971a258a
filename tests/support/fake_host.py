"""Documents of the fake AMD and NVIDIA, as the verifier's tests use them: a whole, and places to break it.

demands(), seen(), v3()            everything good
v3(report_data=bytes(64))          a report that binds something else, signed all the same
v3(gpus=gpus(1))                   evidence of fewer GPUs, bound as it should be
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fake_amd
import fake_gpus
import stub_nvidia
import stub_report
from fake_nvidia import NONCE
from stub_gpu_report import Contents as GpuContents
from stub_report import Contents

from tinboot.formats import attestationdocument, cryptomaterial, deviceevidence, reportdata
from tinboot.formats.attestationdocument import DocumentV2, DocumentV3
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
