"""The firmware identity (FWID) in the certificate of a GPU's attestation key: which firmware got that key.

The boot ROM hashes the first mutable firmware and issues the certificate for it, in one of two forms:

    Hopper     2.23.133.5.4.1    TCG DICE, CompositeDeviceID: the issuer's key, and one FWID
    Blackwell  2.23.133.5.4.1.1  TCG DICE Attestation Architecture 1.1, 6.1.1, DiceTcbInfo: a list of FWIDs,
                                 the first is the firmware's (the second is zero in genuine ones)

Strict DER, every byte accounted for. What is not SHA-384 is refused.
"""

from __future__ import annotations

from typing import NamedTuple

from tinboot.formats.errors import Malformed, Mismatch
from tinboot.verify.certificate import Certificate
from tinboot.verify.der import OCTET_STRING, OID, SEQUENCE, Der, context
from tinboot.verify.usage import extension_of

COMPOSITE_DEVICE_ID = bytes.fromhex("678105050401")
TCB_INFO = bytes.fromhex("67810505040101")

_SHA384 = bytes.fromhex("608648016503040202")  # 2.16.840.1.101.3.4.2.2
_SIZE = 48
_MOST = 8  # FWIDs of one certificate; genuine ones have two

_VERSION = 1

#: DiceTcbInfo's members before and behind the FWIDs: [0] vendor, [1] model, [2] version, [3] svn, [4] layer,
#: [5] index; [7] flags, [8] vendorInfo, [9] type, [10] flagsMask. All implicit, all optional, in this order.
_BEFORE, _FWIDS, _BEHIND = range(6), 6, range(7, 11)
_PRIMITIVE = 0x80


class Fwid(NamedTuple):
    """`digest`: 48 bytes. `issuer_key`: the SubjectPublicKeyInfo that Hopper's names beside it."""

    digest: bytes
    issuer_key: bytes | None


def read(certificate: Certificate) -> Fwid | None:
    """None where it states none. Raises `Malformed` for one that cannot be read, `Mismatch` for two."""
    composite = extension_of(certificate, COMPOSITE_DEVICE_ID)
    info = extension_of(certificate, TCB_INFO)
    if composite is not None and info is not None:
        raise Mismatch(f"{certificate.common_name!r} states its firmware twice")
    try:
        if composite is not None:
            return _composite(composite)
        return None if info is None else _tcb_info(info)
    except Malformed as error:
        raise Malformed(f"the firmware identity in {certificate.common_name!r}: {error.message}") from None


def _composite(value: bytes) -> Fwid:
    """SEQUENCE of version 1, SubjectPublicKeyInfo, FWID."""
    outer = Der(value)
    body = outer.take(SEQUENCE)
    outer.done()
    if (version := body.integer()) != _VERSION:
        raise Malformed(f"version {version}, expected {_VERSION}")
    key = body.whole(SEQUENCE)
    digest = _fwid(body)
    body.done()
    return Fwid(digest, key)


def _tcb_info(value: bytes) -> Fwid:
    outer = Der(value)
    body = outer.take(SEQUENCE)
    outer.done()
    for number in _BEFORE:
        _skip(body, number)
    listed = body.take(context(_FWIDS))
    found = [_fwid(listed)]
    while listed.more:
        found.append(_fwid(listed))
        if len(found) > _MOST:
            raise Malformed(f"more than {_MOST} of them")
    for number in _BEHIND:
        _skip(body, number)
    body.done()
    return Fwid(found[0], None)


def _skip(body: Der, number: int) -> None:
    if body.next_is(_PRIMITIVE | number):
        body.content(_PRIMITIVE | number)


def _fwid(within: Der) -> bytes:
    """SEQUENCE of the hash's object identifier and the digest."""
    at = within.at
    pair = within.take(SEQUENCE)
    algorithm, digest = pair.content(OID), pair.content(OCTET_STRING)
    pair.done()
    if algorithm != _SHA384 or len(digest) != _SIZE:
        raise Malformed(f"offset {at:#x}: a digest of {len(digest)} bytes that is not SHA-384")
    return digest
