"""Where the certificates and the revocation list of a report's key come from. Each of them is verified later.

In this order, and the first that is there counts: what the user names; what the document brings along; what
AMD's key distribution service says, through the cache. Offline the third is left out. A revocation list is
AMD's before the document's: one from before a revocation is in force for months, and a host could go on
showing it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from tinboot.client.kds import Kds, Kind
from tinboot.formats import attestationcollateral as collateral
from tinboot.formats import certtable
from tinboot.formats.attestationcollateral import Collateral
from tinboot.formats.errors import Malformed, Mismatch, TinbootError, Unavailable
from tinboot.formats.snpreport import Report
from tinboot.formats.snptcb import GENOA, MILAN, TURIN, Line, decode, line_named, product_of
from tinboot.verify import certificate, chain, identity, roots
from tinboot.verify.appraisal import Endorsements
from tinboot.verify.certificate import Certificate

_VLEK = 1  # SIGNING_KEY, in KEY_INFO: AMD SEV-SNP Firmware ABI Specification (56860) 1.58, table 23


class Given(NamedTuple):
    """What the user names. `table`: as a guest got it; `offered`: issuers; `pinned`: the roots to trust."""

    vek: Certificate | None = None
    table: certtable.Certificates | None = None
    offered: Sequence[Certificate] = ()
    revocations: bytes | None = None
    pinned: Sequence[roots.Root] = roots.AMD


def gather(
    report: Report, given: Given, brought: Iterable[Collateral], kds: Kds | None, *, revocations: bool
) -> Endorsements:
    """`brought`: the document's; `revocations`: whether a list is demanded. Of AMD's own roots one is looked
    at that can be had, too, and a root of tests has none there.

    Raises `Unavailable` where nobody has the certificate of the report's key, or a list that is demanded.
    """
    vek, listed, shown = given.vek, given.revocations, None
    offered = [*given.offered]
    if given.table is not None:
        own = given.table.vlek if _is_vlek(report) else given.table.vcek
        if vek is None and own is not None:
            vek = _one(own)
        for hint in (given.table.ask, given.table.ark):
            with contextlib.suppress(Malformed):  # what a host gave a guest, and may not be needed
                offered += () if hint is None else _read(hint)
    for entry in brought:
        if collateral.CPU not in entry.subjects:
            continue
        if entry.format == collateral.AMD_VCEK:
            own, issuers = _brought(entry)
            offered += issuers
            if vek is None and not (kds is not None and _is_old(_one(own), report)):
                vek = _one(own)
        elif entry.format == collateral.AMD_CRL and listed is None:
            shown = collateral.crl(entry)
    if vek is None:
        if kds is None:
            raise Unavailable(
                "there is no certificate of the report's key",
                "give --vek CERT or --certs TABLE, or let AMD be asked: leave out --offline",
            )
        vek = _asked(report, kds, offered, given.pinned)
    if kds is not None:
        try:
            intermediate = roots.intermediate_of(vek, offered)
        except Unavailable:
            kind: Kind = "vlek" if _is_vlek(report) else "vcek"
            offered += kds.chain(_line(report)[0], kind, lambda found: _issued(found, given.pinned))
            intermediate = roots.intermediate_of(vek, offered)
        if listed is None:
            root = roots.root_of(intermediate, offered)
            if revocations and shown is None:
                listed = kds.revocations(_line_of(root), root)
            elif revocations or root.fingerprint in {known.fingerprint for known in roots.AMD}:
                listed = kds.revocations_or_none(_line_of(root), root)
    return Endorsements(vek, offered, listed or shown, given.pinned)


def _asked(
    report: Report, kds: Kds, offered: Sequence[Certificate], pinned: Sequence[roots.Root]
) -> Certificate:
    if _is_vlek(report):
        raise Unavailable(
            "the report is signed by a provider's key, whose certificate AMD gives to the provider alone",
            "give it: --vek CERT; the guest's own certificate table has it, too",
        )

    def holds(vek: Certificate) -> object:
        return chain.endorse(chain.present(vek, offered, pinned))

    lines = _line(report)
    for line in lines[:-1]:
        try:
            return kds.vcek(report, line, holds)
        except TinbootError:
            continue
    return kds.vcek(report, lines[-1], holds)


def _issued(found: Sequence[Certificate], pinned: Sequence[roots.Root]) -> None:
    """Raises `Mismatch` unless they are a root of `pinned` and what it signed."""
    trusted = {root.fingerprint for root in pinned}
    root = next((one for one in found if one.fingerprint in trusted), None)
    if root is None:
        raise Mismatch("the answer with issuers has no root that is trusted")
    for one in found:
        if one is not root:
            chain.verify_signature(one, root)


@lru_cache(maxsize=64)
def _brought(entry: Collateral) -> tuple[bytes, tuple[Certificate, ...]]:
    """The key's certificate in DER, and its issuers'. A host brings the same each time."""
    found = collateral.vcek(entry)
    return found.vcek, certificate.read(found.chain.encode())


@lru_cache(maxsize=64)
def _read(data: bytes) -> tuple[Certificate, ...]:
    return certificate.read(data)


def _is_old(vek: Certificate, report: Report) -> bool:
    """Whether a host has laid a certificate ready that is of another TCB than its firmware has by now."""
    if _is_vlek(report):
        return False  # nobody can be asked for another one
    for line in _line(report):
        with contextlib.suppress(Malformed):
            return identity.read_identity(vek, line).tcb != decode(line, report.reported_tcb)
    return False


def _is_vlek(report: Report) -> bool:
    return report.key_info >> 2 & 7 == _VLEK


def _line(report: Report) -> tuple[Line, ...]:
    """What the report says, of which product it is. Version 2 names no CPU; Turin's chip id is shorter."""
    if report.cpuid is not None:
        return (product_of(report.cpuid),)
    short = any(report.chip_id) and not any(report.chip_id[TURIN.hwid :])
    return (TURIN,) if short else (MILAN, GENOA)


def _line_of(root: Certificate) -> Line:
    return line_named(root.common_name.removeprefix("ARK-"))


def _one(data: bytes) -> Certificate:
    found = _read(data)
    if len(found) != 1:
        raise Malformed(f"{len(found)} certificates of the report's key, expected one")
    return found[0]
