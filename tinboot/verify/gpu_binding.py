"""That a report is signed by an endorsed key, is fresh, and speaks of the same GPU as the chain does."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from tinboot.formats.errors import Malformed, Mismatch, Refused, TinbootError, Unavailable
from tinboot.formats.gpureport import Report
from tinboot.verify import gpu_ocsp, p384
from tinboot.verify.certificate import require_valid
from tinboot.verify.checks import Check, Unchecked
from tinboot.verify.gpu_chain import Endorsement
from tinboot.verify.gpu_ocsp import Limits, Response
from tinboot.verify.gpu_policy import Policy

#: Certificates whose status NVIDIA's service knows: boot ROM, provisioner, chip's identity. It answers
#: nothing about the attestation key, whose issuer is inside the GPU, and the root is pinned.
ASKED = (1, 2, 3)

_STATES_FWID = 550  # major version of the first driver whose reports do


class Subject(NamedTuple):
    """What these checks are put to. `responses`: or the error that one of them cannot be read with."""

    report: Report
    architecture: str  # as the evidence says
    endorsement: Endorsement
    policy: Policy
    responses: Sequence[Response] | TinbootError
    limits: Limits

    @property
    def now(self) -> datetime:
        return self.limits.now


class Absent(Unavailable):
    """An answer that the policy demands was not given."""


def report_signature(subject: Subject) -> None:
    """ECDSA with P-384 and SHA-384 over request and response; DSP0274 1.1: r and s, big-endian, no DER."""
    signature = subject.report.signature
    r, s = (
        int.from_bytes(part, "big") for part in (signature[: p384.COORDINATE], signature[p384.COORDINATE :])
    )
    if not (0 < r < p384.ORDER and 0 < s < p384.ORDER):
        raise Malformed("the report's signature has an r or s that is not between 1 and the order of P-384")
    failure = Mismatch(
        "the report is not signed by the key of its certificate", "is it the chain of this GPU?"
    )
    p384.verify(subject.endorsement.key, r, s, subject.report.signed, failure)


def dates(subject: Subject) -> None:
    """Each certificate is valid now. Those of GPUs never end, so a clock that is ahead passes."""
    require_valid(subject.endorsement.chain, subject.now)


def revocation(subject: Subject) -> Unchecked | None:
    """NVIDIA's answers about `ASKED` say "good" and hold now; one each. Any that is given is looked at."""
    responses, chain = subject.responses, subject.endorsement.chain
    if isinstance(responses, TinbootError):
        raise responses
    absent, used = [], 0
    for index, (certificate, issuer) in enumerate(pairwise(chain)):
        found = gpu_ocsp.concerning(responses, certificate, issuer)
        used += len(found)
        if len(found) > 1:
            raise Refused(f"{len(found)} OCSP answers about {certificate.common_name!r}, expected one")
        for response, answer in found:
            gpu_ocsp.good(response, answer, certificate, issuer, subject.limits)
        if not found and index in ASKED:
            absent.append(certificate.common_name)
    if used != sum(len(response.answers) for response in responses):
        raise Mismatch("an OCSP answer that is about none of the certificates of this GPU")
    if not absent:
        return None
    if isinstance(subject.policy.revocation, Unchecked):
        return subject.policy.revocation
    raise Absent(
        f"no OCSP answer about {' and '.join(map(repr, absent))}, and the policy demands it",
        "give NVIDIA's responses along: tinboot gpu verify takes --ocsp FILE, once for each",
    )


def architecture(subject: Subject) -> Unchecked | None:
    """What the evidence says, what the chain is of, and what is demanded are the same."""
    endorsement, stated, demanded = subject.endorsement, subject.architecture, subject.policy.architecture
    if stated != endorsement.architecture:
        raise Mismatch(
            f"evidence of {stated}, the chain is of {endorsement.chip}, {endorsement.architecture}"
        )
    chip = subject.report.opaque.chip_info
    if chip is not None and chip != endorsement.chip:
        raise Mismatch(f"the report is of {chip}, the chain of {endorsement.chip}")
    if isinstance(demanded, Unchecked):
        return demanded
    if demanded != stated:
        raise Refused(f"a GPU of {stated}, expected {demanded}")
    return None


def fwid(subject: Subject) -> Unchecked | None:
    """The firmware that the attestation key was issued for is the one that the report states.

    Drivers before 550 have the GPU state none, whatever its certificate says; then the certificate alone
    says which firmware has the key, and the measurements what it is.
    """
    own, issued = subject.report.opaque.fwid, subject.endorsement.fwid
    if own is None:
        version = subject.report.opaque.driver_version or ""
        major = version.partition(".")[0]
        if not major.isdecimal() or int(major) >= _STATES_FWID:
            raise Mismatch(f"the report states no firmware identity, which driver {version!r} does")
        return Unchecked(f"driver {version} has its GPU state no firmware identity; drivers from 550 on do")
    if issued is None:
        raise Mismatch("the report states its firmware's identity, and the key's certificate none")
    if own != issued:
        raise Mismatch(f"the report is of firmware {own.hex()[:32]}…, the key's of {issued.hex()[:32]}…")
    return None


CHECKS: tuple[Check[Subject], ...] = (
    Check("report-signature", None, "the report is signed by the certificate's key", report_signature),
    Check("dates", None, "every certificate is valid at the time of the appraisal", dates),
    Check("revocation", None, "NVIDIA has revoked none of the certificates, by answers in force", revocation),
    Check("architecture", None, "evidence, chain and report are of the architecture demanded", architecture),
    Check("fwid", None, "the key was issued for the firmware that the report states", fwid),
)
