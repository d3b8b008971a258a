"""OCSP answers as NVIDIA's responder gives them (RFC 6960 4.2), every part of them free to be wrong.

good = Answer.of(chain.forms[1], chain.forms[2], key, now)
good._replace(status="revoked").pack()
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

import stub_der as der
from stub_nvidia import ECDSA_SHA384, Chain, Form, Key, name, responder, sign

_HASHES = {"sha1": "1.3.14.3.2.26", "sha256": "2.16.840.1.101.3.4.2.1", "sha384": "2.16.840.1.101.3.4.2.2"}
_NONCE = "1.3.6.1.5.5.7.48.1.2"

Status = Literal["good", "revoked", "unknown"]
HOLD = 6  # certificateHold, RFC 5280 5.3.1


class Answer(NamedTuple):
    """About the certificate `serial` of `issuer`. `hash`: of the certificate id.

    `signer`: the responder's certificates as they are shown, and the key that signs. `failure`: the response
    status, and where it is not 0 nothing follows.
    """

    issuer: Form
    serial: int
    signer: Chain
    this_update: datetime
    next_update: datetime | None
    produced_at: datetime
    status: Status = "good"
    reason: int | None = None
    revoked_at: datetime | None = None
    hash: Literal["sha1", "sha256", "sha384"] = "sha384"
    nonce: bytes | None = None
    failure: int = 0

    @classmethod
    def of(cls, form: Form, issuer: Form, issuer_key: Key, now: datetime) -> Answer:
        """A good one about `form`, of an hour ago and for a day."""
        began = now - timedelta(hours=1)
        return cls(
            issuer, form.serial, responder(issuer, issuer_key, now), began, began + timedelta(days=1), began
        )

    def pack(self) -> bytes:
        """The OCSPResponse, DER."""
        status = der.element(0x0A, bytes((self.failure,)))
        if self.failure:
            return der.sequence(status)
        data = self._data()
        signature = der.bits(sign(self.signer.key, data))
        certificates = der.context(0, der.sequence(*self.signer.der()))
        basic = der.sequence(data, ECDSA_SHA384, signature, certificates)
        return der.sequence(
            status, der.context(0, der.sequence(der.oid("1.3.6.1.5.5.7.48.1.1"), der.octets(basic)))
        )

    def _data(self) -> bytes:
        next_update = () if self.next_update is None else (der.context(0, moment(self.next_update)),)
        single = der.sequence(self._id(), self._status(), moment(self.this_update), *next_update)
        nonce = b""
        if self.nonce is not None:
            value = der.octets(der.octets(self.nonce))  # RFC 8954 2.1: itself an OCTET STRING
            nonce = der.context(1, der.sequence(der.sequence(der.oid(_NONCE), value)))
        subject = self.signer.forms[0].subject
        return der.sequence(
            der.context(1, name(subject)), moment(self.produced_at), der.sequence(single), nonce
        )

    def _id(self) -> bytes:
        algorithm = der.sequence(der.oid(_HASHES[self.hash]), der.null())
        values = (name(self.issuer.subject), self.issuer.key[-97:])
        digests = (der.octets(hashlib.new(self.hash, value).digest()) for value in values)
        return der.sequence(algorithm, *digests, der.integer(self.serial))

    def _status(self) -> bytes:
        if self.status == "revoked":
            reason = b"" if self.reason is None else der.context(0, der.element(0x0A, bytes((self.reason,))))
            return der.element(0xA1, moment(self.revoked_at or self.this_update) + reason)
        return der.element(0x80 if self.status == "good" else 0x82, b"")


def answers(chain: Chain, now: datetime) -> list[Answer]:
    """Good ones about each certificate of `chain` but the root."""
    pairs = zip(chain.forms, chain.forms[1:], strict=False)
    return [Answer.of(form, issuer, form.signer, now) for form, issuer in pairs]


def moment(at: datetime) -> bytes:
    """GeneralizedTime, which OCSP uses for every year."""
    return der.element(der.GENERALIZED_TIME, at.astimezone(UTC).strftime("%Y%m%d%H%M%SZ").encode())
