"""That a report is signed by an endorsed key, and that the two speak of the same chip, TCB and product."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from tinboot.formats.errors import Malformed, Mismatch, Refused, TinbootError, Unavailable
from tinboot.formats.snpreport import NUMBER, SIGNATURE_R, SIGNATURE_RESERVED, SIGNATURE_S, Report
from tinboot.formats.snptcb import GENOA, LINES, MILAN, TURIN, decode, product_of
from tinboot.verify import p384
from tinboot.verify.certificate import require_valid
from tinboot.verify.chain import Endorsement
from tinboot.verify.checks import Check, Unchecked
from tinboot.verify.crl import Revocations

#: KEY_INFO, 56860 1.58, table 23: bit 1 MASK_CHIP_KEY, bits 4:2 SIGNING_KEY.
_MASK_CHIP_KEY = 1 << 1
_SIGNING_KEYS = {"VCEK": 0, "VLEK": 1}

_RESERVED = {line.name: line.reserved for line in LINES}

_PADDING = (
    range(SIGNATURE_R + p384.COORDINATE, SIGNATURE_R + NUMBER),
    range(SIGNATURE_S + p384.COORDINATE, SIGNATURE_S + NUMBER),
    SIGNATURE_RESERVED,
)


class Subject(Protocol):
    """What the checks of a report are put to. `now` has a time zone."""

    @property
    def report(self) -> Report: ...
    @property
    def endorsement(self) -> Endorsement: ...
    @property
    def now(self) -> datetime: ...
    @property
    def revocations(self) -> Revocations | TinbootError | Unchecked:
        """The list of the endorsement's root; or why there is none: an error where one was wanted."""
        ...


def signature_padding(subject: Subject) -> None:
    """Outside of r and s the signature is zero, and both are numbers of P-384. ABI, chapter 10."""
    report = subject.report
    for part in _PADDING:
        if report.raw[part.start : part.stop].strip(b"\0"):
            at = next(at for at in part if report.raw[at])
            raise Malformed(
                f"offset {at:#x}: {report.raw[at]:#04x} in the signature's padding, expected zero"
            )
    for name, number in (("r", report.signature_r), ("s", report.signature_s)):
        if not 0 < number < p384.ORDER:
            raise Malformed(f"the signature's {name} is not between 1 and the order of P-384")


def report_signature(subject: Subject) -> None:
    """ECDSA with P-384 and SHA-384 over the first 672 bytes."""
    report, endorsement = subject.report, subject.endorsement
    failure = Mismatch(
        f"the report is not signed by the key of the {endorsement.kind}",
        "is it the certificate of this chip, at the TCB that the report states?",
    )
    p384.verify(endorsement.key, report.signature_r, report.signature_s, report.signed, failure)


def dates(subject: Subject) -> None:
    """Each certificate is valid now."""
    require_valid(subject.endorsement.chain, subject.now)


def revocation(subject: Subject) -> Unchecked | None:
    """AMD's root has not revoked the intermediate, by a list that is in force."""
    revocations, now = subject.revocations, subject.now
    if isinstance(revocations, Unchecked):
        return revocations
    if isinstance(revocations, TinbootError):
        raise revocations
    _, intermediate, root = subject.endorsement.chain
    if revocations.root != root.fingerprint:
        raise Unavailable(f"the revocation list is not of {root.common_name!r}, the root of this report")
    if intermediate.serial in revocations.serials:  # whatever the time: nothing is taken back from a list
        raise Mismatch(
            f"AMD has revoked {intermediate.common_name!r}, serial number {intermediate.serial:#x}"
        )
    if not revocations.this_update <= now <= revocations.next_update:
        raise Unavailable(
            f"the revocation list holds from {revocations.this_update:%Y-%m-%d %H:%M} to "
            f"{revocations.next_update:%Y-%m-%d %H:%M}, and now is {now:%Y-%m-%d %H:%M}",
            "fetch the current one",
        )
    return None


def reported_tcb(subject: Subject) -> None:
    """The TCB that the report is signed for is the one that the key was issued for."""
    endorsement = subject.endorsement
    own = decode(endorsement.line, subject.report.reported_tcb)
    if own != endorsement.tcb:
        raise Mismatch(f"the report states the TCB {own}, the certificate {endorsement.tcb}")


def chip_id(subject: Subject) -> Unchecked | None:
    """The report is of the chip that the VCEK was issued for."""
    hwid, own = subject.endorsement.hwid, subject.report.chip_id
    if hwid is None:
        return Unchecked("a VLEK is of a provider, not of a chip")
    if not any(own):
        return Unchecked("the report states no chip; see chip-id-masked")
    if own[: len(hwid)] != hwid:
        raise Mismatch(f"the report is of chip {own[: len(hwid)].hex()}, the certificate of {hwid.hex()}")
    return None


def signing_key(subject: Subject) -> None:
    """The report says that it is signed by a key of the certificate's kind."""
    field = subject.report.key_info >> 2 & 7
    if field != _SIGNING_KEYS[subject.endorsement.kind]:
        names = {0: "a VCEK", 1: "a VLEK", 7: "nothing"}
        raise Mismatch(
            f"the report says that it is signed by {names.get(field, f'key {field}')}, "
            f"the certificate is a {subject.endorsement.kind}"
        )


def product(subject: Subject) -> None:
    """The CPU that the report names belongs to the product line of the certificate and its issuers.

    Version 2 names none. There a chip id of eight bytes tells Turin; the issuer tells Milan from Genoa.
    """
    report, line = subject.report, subject.endorsement.line
    if report.cpuid is not None:
        own = product_of(report.cpuid)
        if own is not line:
            raise Mismatch(f"the report is of {own.name} ({report.cpuid}), the certificate of {line.name}")
        return
    short = any(report.chip_id) and not any(report.chip_id[TURIN.hwid :])
    if any(report.chip_id) and short != (line is TURIN):
        expected = TURIN.name if short else f"{MILAN.name} or {GENOA.name}"
        raise Mismatch(f"the report's chip id is one of {expected}, the certificate of {line.name}")


def tcb_layout(subject: Subject) -> None:
    """TCB versions and chip id are as long as the line's: what it reserves is zero. Turin's differ."""
    report, line = subject.report, subject.endorsement.line
    reserved = _RESERVED[line.name]
    for name in ("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"):
        raw: bytes = getattr(report, name)
        for at in reserved:
            if raw[at]:
                raise Malformed(f"byte {at} of {name} is {raw[at]:#04x}, which {line.name} reserves")
    if any(report.chip_id[line.hwid :]):
        raise Malformed(f"the chip id has more than the {line.hwid} bytes of {line.name}")


def chip_id_masked(subject: Subject) -> None:
    """The host hides neither the chip's key, without which nothing is signed, nor which chip it is."""
    report = subject.report
    if report.key_info & _MASK_CHIP_KEY:
        raise Refused("MASK_CHIP_KEY is set: the host has the chip's key hidden")
    if subject.endorsement.hwid is not None and not any(report.chip_id):
        raise Refused("the host has the chip's id masked, so that no VCEK can be told to be this chip's")


CHECKS: tuple[Check[Subject], ...] = (
    Check("signature-padding", 4, "the signature's padding is zero, r and s are in range", signature_padding),
    Check("report-signature", None, "the report is signed by the certificate's key", report_signature),
    Check("dates", 7, "every certificate is valid at the time of the appraisal", dates),
    Check("revocation", 8, "no intermediate is revoked by a list in force", revocation),
    Check("reported-tcb", 11, "the certificate's TCB is the reported one", reported_tcb),
    Check("chip-id", 12, "the certificate's chip is the reported one", chip_id),
    Check("signing-key", 14, "the report names the certificate's kind of key", signing_key),
    Check("product", 15, "CPU, product and issuer are of one line", product),
    Check("tcb-layout", 16, "TCB versions and chip id are laid out as the line's", tcb_layout),
    Check("chip-id-masked", 18, "the chip is neither masked nor unsigned", chip_id_masked),
)
