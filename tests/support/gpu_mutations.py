"""GPU evidence and what comes with it, a whole that both verifiers accept, and one place to break it.

    subject = good("HOPPER")
    native(subject), second(subject)            "accepts", "accepts"

The clock is the machine's: NVIDIA's verifier asks no other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import NamedTuple

import stub_gpu_report
import stub_nvidia
import stub_ocsp
from gpu import Gpus
from gpu_faults import FAULTS
from second_verifier import place
from stub_gpu_report import Contents, Kind
from stub_nvidia import Arch, Chain
from stub_ocsp import Answer
from stub_rim import Rim as Document

from tinboot.builder import gpu_pin
from tinboot.formats import gpureference
from tinboot.formats.errors import TinbootError
from tinboot.formats.gpuevidence import GpuEvidence
from tinboot.formats.gpureference import ReferenceValues
from tinboot.guest import nv_claims, nv_verifier
from tinboot.guest.nv_verifier import Confirmed, Installed
from tinboot.verify import gpu_appraisal, gpu_policy, gpu_roots
from tinboot.verify.gpu_appraisal import Collateral
from tinboot.verify.gpu_platform import Versions
from tinboot.verify.gpu_policy import Policy

NOW = datetime.now(UTC).replace(microsecond=0)
NONCE = bytes(range(32))

ACCEPTS = "accepts"

#: Claims in the order in which NVIDIA's verifier comes to them; of several that are not good the first tells.
ORDER = (
    *("arch-check", "attestation-report-parsed", "attestation-report-cert-chain-fwid-match"),
    *("attestation-report-cert-chain.x-nvidia-cert-status",),
    *("attestation-report-cert-chain.x-nvidia-cert-ocsp-status", "attestation-report-nonce-match"),
    *("attestation-report-signature-verified",),
    *(
        f"{rim}-{claim}"
        for rim in ("driver-rim", "vbios-rim")
        for claim in (
            *("fetched", "schema-validated", "cert-chain.x-nvidia-cert-status"),
            *("cert-chain.x-nvidia-cert-ocsp-status", "signature-verified", "version-match"),
            *("measurements-available",),
        )
    ),
    *("vbios-index-no-conflict", "measres"),
)


class Subject(NamedTuple):
    """`rims`: what is pinned, with the file that is there. `root`: PEM. `answers`: None, nobody asks."""

    evidence: GpuEvidence
    installed: Installed
    rims: tuple[tuple[gpureference.Rim, bytes], ...]
    root: bytes
    answers: tuple[bytes, ...] | None = None

    @property
    def reference(self) -> ReferenceValues:
        return ReferenceValues(NOW.replace(year=NOW.year - 1, day=1), tuple(rim for rim, _ in self.rims))

    @property
    def files(self) -> dict[str, bytes]:
        return {rim.id: data for rim, data in self.rims}


def subject(
    contents: Contents | None = None,
    *,
    arch: Arch = "HOPPER",
    chain: Chain | None = None,
    alter: Callable[[bytes], bytes] = bytes,
    key: Chain | None = None,
    installed: tuple[str, str] | None = None,
    rims: Sequence[tuple[gpureference.Rim, bytes]] | None = None,
    answers: Sequence[Answer] | None = None,
) -> Subject:
    """Good but for what is given. `key`: of the chain whose key signs; `installed`: what NVML says."""
    contents = contents or Contents(arch, nonce=NONCE)
    chain = chain or stub_nvidia.chain(contents.arch)
    report = alter(stub_gpu_report.sign(contents.pack(), (key or stub_nvidia.chain(contents.arch)).key))
    evidence = GpuEvidence(contents.arch, chain.pem(), report, NONCE)
    root = stub_nvidia.pem([stub_nvidia.chain(contents.arch).der()[-1]])
    own = (
        tuple(rims) if rims is not None else (pinned("driver", contents.arch), pinned("vbios", contents.arch))
    )
    stated = Installed(*(installed or contents.versions))
    packed = None if answers is None else tuple(answer.pack() for answer in answers)
    return Subject(evidence, stated, own, root, packed)


@cache
def signers(arch: Arch = "HOPPER") -> Chain:
    return stub_nvidia.rim_chain(NOW, stub_nvidia.CHIPS[arch])


@cache
def document(kind: Kind, arch: Arch = "HOPPER") -> Document:
    return Document.of(kind, Contents(arch))


@cache
def pinned(kind: Kind, arch: Arch = "HOPPER") -> tuple[gpureference.Rim, bytes]:
    return pin(kind, document(kind, arch), document(kind, arch).xml(signers(arch)), signers(arch))


def pin(kind: Kind, says: Document, xml: bytes, chain: Chain | None = None) -> tuple[gpureference.Rim, bytes]:
    """As if `tinboot gpu pin` had taken the file, which for most of the broken ones it does not."""
    chain = chain or signers()
    root = hashlib.sha256(chain.der()[-1]).hexdigest()
    digest = hashlib.sha256(xml).hexdigest()
    values = {index: tuple(value.lower() for value in found) for index, found in says.active().items()}
    return gpureference.Rim(
        *(says.id, kind, says.version, says.product, digest, "stub", root, "HCC RIM L4 Signer"),
        min(form.not_after for form in chain.forms[:-1]),
        values,
    ), xml


def answers(chain: Chain | None = None) -> list[Answer]:
    """Good ones about a device's certificates but the leaf."""
    return stub_ocsp.answers(chain or stub_nvidia.chain(), NOW)[1:]


def all_answered() -> Subject:
    """A good one, with answers about RIMs' signers, too: NVIDIA's verifier is left without a question."""
    return subject(answers=[*answers(), *stub_ocsp.answers(signers(), NOW)])


def native(subject: Subject) -> str:
    """`ACCEPTS`, or the check that decides."""
    revocation = gpu_policy.revocation("relying-party" if subject.answers is None else "ocsp")
    policy = Policy(subject.evidence.arch, 1, NONCE, revocation)
    pinned_root = gpu_roots.one_root(subject.root).fingerprint
    collateral = Collateral(subject.reference, subject.answers or (), (pinned_root,))
    versions = [Versions(*subject.installed)]
    found = gpu_appraisal.appraise_all([subject.evidence], collateral, policy, NOW, versions)
    if found.decisive is not None:
        return found.decisive.id
    found.accept()
    return ACCEPTS


def takes(subject: Subject) -> str:
    """Of `tinboot gpu pin`, which sees the RIMs: `ACCEPTS`, or the error."""
    root = hashlib.sha256(signers().der()[-1]).hexdigest()
    sources = [gpu_pin.Source(rim.id, "stub", data) for rim, data in subject.rims]
    try:
        gpu_pin.pin(sources, NOW, {root})
    except TinbootError as error:
        return type(error).__name__
    return ACCEPTS


def second(subject: Subject) -> str:
    """`ACCEPTS`, the first claim that is not good, or the error where it did not come to claims."""
    try:
        confirm(subject)
    except nv_claims.NotGood as error:
        names = {name.removeprefix("x-nvidia-gpu-") for name in error.claims}
        return next((name for name in ORDER if name in names), error.claims[0])
    except TinbootError as error:
        return type(error).__name__
    return ACCEPTS


def confirm(subject: Subject) -> Confirmed:
    return nv_verifier.appraise(
        *(subject.evidence, subject.installed, subject.reference, subject.files, subject.root),
        *(subject.answers, place()),
    )


def of_fault(name: str) -> list[Subject]:
    """What the stub GPUs give where that of gpu_faults.py is wrong; NVML's versions are theirs."""
    faults = FAULTS[name]
    found = []
    with Gpus(faults) as gpus:
        for at, gpu in enumerate(faults.gpus):
            report, shown = gpus.report(at, NONCE), gpus.certificates(at).pem()
            evidence = GpuEvidence(gpu.contents.arch, shown, report, NONCE)
            driver, vbios = gpu.contents.versions
            installed = Installed(faults.driver or driver, gpu.vbios or vbios)
            whole = subject(arch=gpu.contents.arch)
            found.append(whole._replace(evidence=evidence, installed=installed))
    return found


def native_of_machine(subjects: Sequence[Subject]) -> str:
    """As `native`, of two Hoppers together."""
    policy = Policy("HOPPER", 2, NONCE, gpu_policy.RELYING_PARTY)
    collateral = Collateral(subject().reference, (), (gpu_roots.one_root(subject().root).fingerprint,))
    found = gpu_appraisal.appraise_all(
        [one.evidence for one in subjects],
        *(collateral, policy, NOW, [Versions(*one.installed) for one in subjects]),
    )
    return ACCEPTS if found.decisive is None else found.decisive.id


def second_of_machine(subjects: Sequence[Subject]) -> str:
    """The first that it does not accept; each bundle of equal bytes is asked about once."""
    verdicts = (_second_once(one) for one in subjects)
    return next((verdict for verdict in verdicts if verdict != ACCEPTS), ACCEPTS)


_known: dict[GpuEvidence, dict[Installed, str]] = {}


def _second_once(one: Subject) -> str:
    known = _known.setdefault(one.evidence, {})
    if one.installed not in known:
        known[one.installed] = second(one)
    return known[one.installed]
