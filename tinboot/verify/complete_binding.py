"""That the parts of a complete attestation are of one guest, and what its boot sealed is what is shown."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from tinboot.formats import bootreport, gpuevidence
from tinboot.formats.completeattestation import CompleteAttestation
from tinboot.formats.cryptomaterial import CryptoMaterial
from tinboot.formats.errors import Mismatch, Refused
from tinboot.formats.sealedboot import SealedBoot
from tinboot.formats.snpreport import Report
from tinboot.verify import certificate
from tinboot.verify.checks import Check, Unchecked
from tinboot.verify.document_binding import Wanted


class Subject(NamedTuple):
    """`keys`: those that each document's report binds, the v2 document's first. `reports`: likewise, and the
    boot's last.
    """

    complete: CompleteAttestation
    keys: Sequence[CryptoMaterial]
    reports: Sequence[Report]
    sealed: SealedBoot
    gpus: Wanted


def boot_report_data(subject: Subject) -> None:
    """The boot's report binds what the hooks sealed."""
    own, expected = (
        subject.reports[-1].report_data,
        bootreport.report_data(subject.complete.boot.sealed),
    )
    if own != expected:
        raise Mismatch(f"REPORT_DATA of the boot's report is {own.hex()}, expected {expected.hex()}")


def same_guest(subject: Subject) -> None:
    """All reports are of one guest on one chip. ABI, table 23: REPORT_ID is a guest's own, all its life."""
    first, *others = subject.reports
    for report in others:
        for name in ("report_id", "chip_id", "measurement"):
            own, expected = getattr(report, name), getattr(first, name)
            if own != expected:
                raise Mismatch(f"one report has the {name} {own.hex()}, another {expected.hex()}")


def same_keys(subject: Subject) -> Unchecked | None:
    """Both documents' reports bind the same keys."""
    if len(subject.keys) == 1:
        return Unchecked("there is one document only: no nonce was sent")
    first, second = subject.keys
    for name in ("tls", "hpke"):
        own, expected = getattr(second, name), getattr(first, name)
        if own != expected:
            raise Mismatch(f"one document is of the {name} key {own.hex()}, the other of {expected.hex()}")
    return None


def certificate_key(subject: Subject) -> None:
    """The certificate is of the guest's TLS key."""
    found = certificate.read(subject.complete.certificate.encode())[0]
    own, expected = hashlib.sha256(found.key).digest(), subject.keys[0].tls
    if own != expected:
        raise Mismatch(f"the certificate's key has the hash {own.hex()}, the guest's {expected.hex()}")


def published_hpke(subject: Subject) -> None:
    """The HPKE key configuration has the guest's key."""
    own, expected = subject.complete.hpke, subject.keys[0].hpke
    if own != expected:
        raise Mismatch(f"the HPKE key configuration has {own.hex()}, the guest's key is {expected.hex()}")


def config(subject: Subject) -> None:
    """The config is the one that was hashed at boot."""
    own, expected = hashlib.sha256(subject.complete.config).digest(), subject.sealed.config
    if own != expected:
        raise Mismatch(f"the config has the hash {own.hex()}, the boot sealed {expected.hex()}")


def boot_gpus(subject: Subject) -> None:
    """The GPUs' evidence is what the boot's gate verified."""
    shown, sealed = subject.complete.gpus, subject.sealed
    if len(shown) != sealed.gpus:
        raise Mismatch(f"evidence of {len(shown)} GPUs, the boot sealed that of {sealed.gpus}")
    own = hashlib.sha256(gpuevidence.render(shown)).digest()
    if sealed.gpu_evidence is not None and own != sealed.gpu_evidence:
        raise Mismatch(
            f"the GPUs' evidence has the hash {own.hex()}, the boot sealed {sealed.gpu_evidence.hex()}"
        )


def boot_gpus_expected(subject: Subject) -> Unchecked | None:
    """The boot had GPUs just where they are expected."""
    shown = len(subject.complete.gpus)
    if isinstance(subject.gpus, Unchecked):
        return subject.gpus
    if subject.gpus == "none" and shown:
        raise Refused(f"the boot had {shown} GPUs, expected none")
    if subject.gpus == "demanded" and not shown:
        raise Refused("the boot had no GPU, and evidence of some is demanded")
    return None


CHECKS: tuple[Check[Subject], ...] = (
    Check("boot-report-data", None, "the boot's report binds what the hooks sealed", boot_report_data),
    Check("same-guest", None, "all reports are of one guest on one chip", same_guest),
    Check("same-keys", None, "both documents are of the same keys", same_keys),
    Check("certificate-key", None, "the certificate is of the guest's TLS key", certificate_key),
    Check("published-hpke-key", None, "the HPKE key configuration has the guest's key", published_hpke),
    Check("config", None, "the config is the one that was hashed at boot", config),
    Check("boot-gpus", None, "the GPUs' evidence is what the boot's gate verified", boot_gpus),
    Check("boot-gpus-expected", None, "the boot had GPUs just where they are expected", boot_gpus_expected),
)
