"""The harness's fake NVIDIA, as the verifier's tests use it: a whole that passes, and one place to break it.

The time is `NOW` for everybody.

    evidence(contents=Contents(altered={7: bytes(48)}))
    evidence(chain=device_chain().replace(1, not_after=NOW))
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import NamedTuple

import stub_gpu_report
import stub_nvidia
import stub_ocsp
from stub_gpu_report import Contents, Kind
from stub_nvidia import Arch, Chain
from stub_ocsp import Answer
from stub_rim import Rim

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
NONCE = bytes(range(32))


class Evidence(NamedTuple):
    """What NVML gives of one GPU, and what it was asked with. `certificates`: PEM, leaf first."""

    arch: Arch
    report: bytes
    certificates: bytes
    nonce: bytes
    driver: str
    vbios: str


def device_chain(arch: Arch = "HOPPER", number: int = 0) -> Chain:
    return stub_nvidia.chain(arch, number)


def device_root(arch: Arch = "HOPPER") -> bytes:
    """DER; one root for both."""
    return device_chain(arch).der()[-1]


@cache
def rim_chain(arch: Arch = "HOPPER") -> Chain:
    return stub_nvidia.rim_chain(NOW, stub_nvidia.CHIPS[arch])


def rim_root() -> bytes:
    """DER."""
    return rim_chain().der()[-1]


def evidence(contents: Contents | None = None, *, chain: Chain | None = None) -> Evidence:
    """Good unless `contents` or `chain` is not; the nonce is `NONCE` where `contents` is left out."""
    contents = contents or Contents(nonce=NONCE)
    chain = chain or device_chain(contents.arch)
    report = stub_gpu_report.sign(contents.pack(), chain.key)
    return Evidence(contents.arch, report, chain.pem(), contents.nonce, *contents.versions)


@cache
def rim(kind: Kind, arch: Arch = "HOPPER") -> bytes:
    """The signed RIM, XML, that `evidence()` of that architecture matches."""
    return Rim.of(kind, Contents(arch)).xml(rim_chain(arch))


def ocsp(chain: Chain | None = None) -> list[Answer]:
    """Good answers about every certificate of a device's chain but the root, leaf first."""
    return stub_ocsp.answers(chain or device_chain(), NOW)
