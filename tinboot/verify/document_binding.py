"""That a document hangs together: what its report binds, and whose connection, keys and nonce that is.

A report that is genuine says nothing of what stands around it. These checks say which of that it vouches
for; whether it is genuine is asked by appraisal.py.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from tinboot.formats import reportdata
from tinboot.formats.attestationdocument import DocumentV3
from tinboot.formats.cryptomaterial import CryptoMaterial
from tinboot.formats.errors import Mismatch, Refused, Unavailable
from tinboot.formats.snpreport import Report
from tinboot.verify.checks import Check, Unchecked

#: Whether evidence of GPUs has to be there.
Wanted = Literal["demanded", "none"] | Unchecked

_RELAYED = "something stands between you and the guest, or it has been started anew"


class SubjectV2(NamedTuple):
    """`keys`: as the report's own REPORT_DATA has them. `tls`: SHA-256 of the SubjectPublicKeyInfo of the
    connection's key; `hpke`: what the host gives out as its key; `nonce`: what was sent.
    """

    report: Report
    keys: CryptoMaterial
    gpus: Wanted
    tls: bytes | Unchecked
    hpke: bytes | Unchecked
    nonce: bytes | Unchecked


class SubjectV3(NamedTuple):
    """The same, of a document that states its keys. `evidence`: of how many GPUs.

    `hashes`: SHA-256 of its sections, as transmitted: crypto_material, device_evidence.
    """

    report: Report
    keys: CryptoMaterial
    gpus: Wanted
    tls: bytes | Unchecked
    hpke: bytes | Unchecked
    nonce: bytes | Unchecked
    document: DocumentV3
    evidence: int
    hashes: tuple[bytes, bytes]


Subject = SubjectV2 | SubjectV3


def report_data_v2(subject: SubjectV2) -> None:
    """REPORT_DATA has two keys, and is not what a v3 document binds."""
    if not any(subject.keys.tls) or not any(subject.keys.hpke):
        raise Mismatch(
            f"REPORT_DATA is {subject.report.report_data.hex()}, expected a TLS key's hash and an HPKE key",
            "is it the report of another document?",
        )


def report_data_v3(subject: SubjectV3) -> None:
    """REPORT_DATA is that of this nonce and these sections, as they were transmitted, and zeros behind it."""
    expected = reportdata.v3_of_hashes(subject.document.nonce, *subject.hashes)
    if subject.report.report_data != expected:
        raise Mismatch(
            f"REPORT_DATA is {subject.report.report_data.hex()}, expected {expected.hex()}",
            "the report was made for another nonce, for other keys or for other GPUs",
        )


def endorsed_hashes(subject: SubjectV3) -> None:
    """The hashes that the document states are those of its sections."""
    document = subject.document
    stated_ones = (document.crypto_material_hash, document.device_evidence_hash)
    for name, own, stated in zip(
        ("crypto_material", "device_evidence"), subject.hashes, stated_ones, strict=True
    ):
        if own != stated:
            raise Mismatch(f"{name} has the hash {own.hex()}, the document states {stated.hex()}")


def stated_report_data(subject: SubjectV3) -> None:
    """The REPORT_DATA that the document states is the report's."""
    own, stated = subject.report.report_data, subject.document.report_data
    if own != stated:
        raise Mismatch(f"the document states the REPORT_DATA {stated.hex()}, the report has {own.hex()}")


def nonce_v2(subject: SubjectV2) -> Unchecked:
    """Whoever sent a nonce gets a document that answers it."""
    if isinstance(subject.nonce, Unchecked):
        return Unchecked(f"a v2 document has no nonce, and may be an old one: {subject.nonce.reason}")
    raise Refused(
        f"a nonce was sent, {subject.nonce.hex()}, and the document is of v2, which answers none",
        "it may be an old one; ask for a v3 document",
    )


def nonce_v3(subject: SubjectV3) -> Unchecked | None:
    """The document answers the nonce that was sent."""
    if isinstance(subject.nonce, Unchecked):
        return subject.nonce
    if subject.document.nonce != subject.nonce:
        raise Refused(
            f"the document answers the nonce {subject.document.nonce.hex()}, expected {subject.nonce.hex()}",
            "is it an old document?",
        )
    return None


def tls_key(subject: Subject) -> Unchecked | None:
    """The TLS key of this very connection is the guest's."""
    if isinstance(subject.tls, Unchecked):
        return subject.tls
    if subject.tls != subject.keys.tls:
        raise Mismatch(
            f"the connection's TLS key has hash {subject.tls.hex()}, the guest's {subject.keys.tls.hex()}",
            _RELAYED,
        )
    return None


def hpke_key(subject: Subject) -> Unchecked | None:
    """The HPKE key that the host gives out is the guest's."""
    if isinstance(subject.hpke, Unchecked):
        return subject.hpke
    if subject.hpke != subject.keys.hpke:
        raise Mismatch(
            f"the host gives out the HPKE key {subject.hpke.hex()}, the guest's is {subject.keys.hpke.hex()}",
            _RELAYED,
        )
    return None


def gpu_evidence_v2(subject: SubjectV2) -> Unchecked:
    """A v2 document says nothing of GPUs."""
    if isinstance(subject.gpus, Unchecked):
        return subject.gpus
    if subject.gpus == "none":
        return Unchecked("a v2 document says nothing of GPUs, not even that there are none")
    raise Unavailable("a v2 document has no evidence of GPUs", "send a nonce: a v3 document has it")


def gpu_evidence_v3(subject: SubjectV3) -> Unchecked | None:
    """There is evidence of GPUs where they are demanded, and none where none is expected."""
    if isinstance(subject.gpus, Unchecked):
        return subject.gpus
    if subject.gpus == "none" and subject.evidence:
        raise Refused(f"evidence of {subject.evidence} GPUs, expected none")
    if subject.gpus == "demanded" and not subject.evidence:
        raise Refused("there is no evidence of any GPU, and it is demanded")
    return None


_TLS = "the connection's TLS key is the guest's"
_HPKE = "the HPKE key that the host gives out is the guest's"
_NONCE = "the document answers the nonce that was sent"
_GPUS = "there is evidence of GPUs just where they are expected"

CHECKS_V2: tuple[Check[SubjectV2], ...] = (
    Check("report-data", None, "the report binds a TLS key and an HPKE key", report_data_v2),
    Check("nonce", None, _NONCE, nonce_v2),
    Check("tls-key", None, _TLS, tls_key),
    Check("hpke-key", None, _HPKE, hpke_key),
    Check("gpu-evidence", None, _GPUS, gpu_evidence_v2),
)

CHECKS_V3: tuple[Check[SubjectV3], ...] = (
    Check("report-data", None, "the report binds nonce, keys and devices", report_data_v3),
    Check("endorsed-hashes", None, "the stated hashes are those of the sections", endorsed_hashes),
    Check("stated-report-data", None, "the stated REPORT_DATA is the report's", stated_report_data),
    Check("nonce", None, _NONCE, nonce_v3),
    Check("tls-key", None, _TLS, tls_key),
    Check("hpke-key", None, _HPKE, hpke_key),
    Check("gpu-evidence", None, _GPUS, gpu_evidence_v3),
)
