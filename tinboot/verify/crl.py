"""AMD's revocation lists: signed by the root, they name intermediates. RFC 5280, chapter 5, version 2.

A VCEK or VLEK cannot be on one, as all of them have serial number 0; those are retired by floors of the TCB.
"""

from __future__ import annotations

from datetime import datetime
from typing import final

from tinboot.formats.errors import Malformed, Mismatch
from tinboot.verify.certificate import Certificate, ders, read_extensions
from tinboot.verify.chain import ALGORITHMS, issuer_key, verify_bytes
from tinboot.verify.der import GENERALIZED_TIME, SEQUENCE, UTC_TIME, Der, context, dotted

#: RFC 5280, 5.2: the list's number, and which key signed it. Others may change what an entry means.
_KNOWN = frozenset(bytes.fromhex(x) for x in ("551d14", "551d23"))
_MAX_ENTRIES = 1000

_SEAL = object()


@final
class Revocations:
    """The serial numbers that `root` revoked, and when that was said. `read` alone makes one."""

    __slots__ = ("next_update", "root", "serials", "this_update")

    root: str  # its fingerprint
    serials: frozenset[int]
    this_update: datetime
    next_update: datetime

    def __init__(
        self, seal: object, root: str, serials: frozenset[int], this_update: datetime, next_update: datetime
    ) -> None:
        if seal is not _SEAL:
            raise TypeError("revocations are made by verifying a list")
        for name, value in zip(self.__slots__, (next_update, root, serials, this_update), strict=True):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} of revocations cannot be set")


def read(data: bytes, root: Certificate) -> Revocations:
    """A list in PEM or DER, which `root` signed. Raises `Malformed` and `Mismatch`."""
    blocks = ders(data, "X509 CRL")
    if len(blocks) != 1:
        raise Malformed(f"{len(blocks)} revocation lists, expected one")
    file = Der(blocks[0])
    outer = file.take(SEQUENCE)
    file.done()
    begin = outer.at
    body = outer.take(SEQUENCE)
    signed = blocks[0][begin : body.end]
    outer_algorithm = outer.whole(SEQUENCE)
    signature = outer.bits()
    outer.done()

    if body.integer() != 1:
        raise Malformed("a revocation list that is not of version 2")
    algorithm = body.whole(SEQUENCE)
    issuer = body.whole(SEQUENCE)
    this_update = body.time()
    if not body.next_is(UTC_TIME) and not body.next_is(GENERALIZED_TIME):
        raise Malformed("a revocation list that does not say when the next one comes")
    next_update = body.time()
    serials = _entries(body.take(SEQUENCE)) if body.next_is(SEQUENCE) else frozenset()
    for extension in read_extensions(body.take(context(0))) if body.more else ():
        if extension.oid not in _KNOWN:
            raise Malformed(f"a revocation list with the extension {dotted(extension.oid)}")
    body.done()

    if algorithm not in ALGORITHMS or outer_algorithm != algorithm:
        raise Mismatch("a revocation list that is not signed with RSASSA-PSS, SHA-384 and a salt of 48 bytes")
    if issuer != root.subject:
        raise Mismatch(f"a revocation list of another issuer than {root.common_name!r}")
    verify_bytes(signature, signed, issuer_key(root), f"the revocation list by {root.common_name!r}")
    return Revocations(_SEAL, root.fingerprint, serials, this_update, next_update)


def _entries(listed: Der) -> frozenset[int]:
    serials = set()
    while listed.more:
        entry = listed.take(SEQUENCE)
        serials.add(entry.integer())
        entry.time()
        if entry.more:  # the reason and the like: whatever it is, the serial counts as revoked
            entry.take(SEQUENCE)
        entry.done()
        if len(serials) > _MAX_ENTRIES:
            raise Malformed(f"a revocation list of more than {_MAX_ENTRIES} entries")
    return frozenset(serials)
