"""What the verifier of GPUs takes, of the harness's fake NVIDIA: a whole that passes, places to break it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import fake_nvidia
import stub_nvidia
import stub_ocsp
from fake_nvidia import NONCE, NOW
from stub_gpu_report import Contents, Kind
from stub_nvidia import Arch, Chain
from stub_ocsp import Answer
from stub_rim import Rim as StubRim

from tinboot.formats.errors import TinbootError
from tinboot.formats.gpuevidence import GpuEvidence
from tinboot.formats.gpureference import ReferenceValues, Rim
from tinboot.verify import certificate, gpu_appraisal, gpu_chain
from tinboot.verify.checks import Verdict
from tinboot.verify.gpu_appraisal import Appraisals, Collateral
from tinboot.verify.gpu_chain import Endorsement, Presented
from tinboot.verify.gpu_platform import Versions
from tinboot.verify.gpu_policy import RELYING_PARTY, Policy

CREATED = NOW - timedelta(days=30)
GOOD = Contents(nonce=NONCE)


@cache
def root() -> str:
    """The fake NVIDIA's device root."""
    return hashlib.sha256(fake_nvidia.device_root()).hexdigest()


def presented(chain: Chain, pinned: Sequence[str] | None = None) -> Presented:
    """`chain`, whatever is wrong with it, its own last certificate trusted."""
    found = [certificate.parse(der) for der in chain.der()]
    return Presented(found, (found[-1].fingerprint,) if pinned is None else pinned)


@cache
def endorsement(arch: Arch = "HOPPER", number: int = 0) -> Endorsement:
    return gpu_chain.endorse(presented(stub_nvidia.chain(arch, number)))


def rim(kind: Kind, contents: Contents = GOOD, **fields: Any) -> Rim:
    """Of what `contents` say, none of it altered."""
    made = StubRim.of(kind, contents)
    found = Rim(
        made.id,
        kind,
        made.version,
        made.product,
        hashlib.sha256(made.unsigned()).hexdigest(),
        "stub",
        hashlib.sha256(fake_nvidia.rim_root()).hexdigest(),
        "HCC RIM L4 Signer",
        NOW + timedelta(days=365),
        made.active(),
    )
    return found._replace(**fields)


def reference(*contents: Contents) -> ReferenceValues:
    """That all of `contents` match."""
    found = {}
    for one in contents or (GOOD,):
        for kind in ("driver", "vbios"):
            made = rim("driver" if kind == "driver" else "vbios", one)
            found[made.id] = made
    return ReferenceValues(CREATED, tuple(found.values()))


def evidence(contents: Contents = GOOD, chain: Chain | None = None) -> GpuEvidence:
    made = fake_nvidia.evidence(contents, chain=chain)
    return GpuEvidence(made.arch, made.certificates, made.report, made.nonce)


def gpus(count: int, arch: Arch = "HOPPER") -> list[GpuEvidence]:
    """Of so many different ones."""
    return [evidence(Contents(arch, nonce=NONCE), stub_nvidia.chain(arch, at)) for at in range(count)]


def answers(chain: Chain | None = None) -> list[Answer]:
    """About the three certificates that are asked for."""
    return stub_ocsp.answers(chain or stub_nvidia.chain(), NOW)[1:]


def packed(found: Iterable[Answer]) -> list[bytes]:
    return [answer.pack() for answer in found]


def policy(**fields: Any) -> Policy:
    return Policy("HOPPER", 1, NONCE, RELYING_PARTY)._replace(**fields)


def appraise(
    items: Sequence[GpuEvidence],
    *,
    ocsp: Sequence[bytes] = (),
    now: datetime = NOW,
    values: ReferenceValues | None = None,
    pinned: Sequence[str] | None = None,
    versions: Sequence[Versions] | None = None,
    **demands: Any,
) -> Appraisals:
    """By a policy that demands so many Hoppers, with `NONCE`, and what `demands` change of it."""
    wanted = policy(gpus=len(items))._replace(**demands)
    collateral = Collateral(values or reference(), ocsp, (root(),) if pinned is None else pinned)
    return gpu_appraisal.appraise_all(items, collateral, wanted, now, versions)


def failures(verdicts: Iterable[Verdict]) -> dict[str, TinbootError]:
    return {v.id: v.outcome for v in verdicts if isinstance(v.outcome, TinbootError)}


def failed(result: Appraisals) -> list[tuple[int, str]]:
    """Number of the GPU, or -1, and check."""
    found = [(at, name) for at, gpu in enumerate(result.gpus) for name in failures(gpu.verdicts)]
    return found + [(-1, name) for name in failures(result.verdicts)]
