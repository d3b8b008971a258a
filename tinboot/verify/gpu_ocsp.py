"""OCSP responses (RFC 6960) that somebody supplies: what NVIDIA said, and when, of one certificate each.

`read` takes a response apart and believes nothing; `good` says of one certificate that its issuer vouches for
it now, or raises. Nothing is fetched, so there is no nonce to compare; one that is there is passed over.

A response proves no more than "not revoked at thisUpdate". NVIDIA's service answers "good" for serial numbers
that it never issued, too: a deny-list, not a list of members.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from cryptography.hazmat.primitives import hashes

from tinboot.formats.errors import Malformed, Mismatch, Unavailable
from tinboot.verify import certificate, gpu_chain
from tinboot.verify.certificate import Certificate, Extension, read_extensions
from tinboot.verify.der import ENUMERATED, OCTET_STRING, OID, SEQUENCE, Der, context
from tinboot.verify.usage import extension_of

MAX_SIZE = 16 << 10  # bytes; NVIDIA's have about 2,000, with the responder's certificate
MAX_ANSWERS = 8  # of one response
MAX_CERTIFICATES = 4

Status = Literal["good", "revoked", "unknown"]

#: RFC 6960, 4.2.1: id-pkix-ocsp-basic; 4.2.2.2: id-kp-OCSPSigning, in the extended key usage.
_BASIC = bytes.fromhex("2b0601050507300101")
_OCSP_SIGNING = bytes.fromhex("2b06010505070309")
_EXTENDED_KEY_USAGE = bytes.fromhex("551d25")

#: RFC 6960, 4.2.1.
_RESPONSE_STATUS = {
    1: "malformedRequest",
    2: "internalError",
    3: "tryLater",
    5: "sigRequired",
    6: "unauthorized",
}

#: RFC 5280, 5.3.1.
_REASONS = {
    0: "unspecified",
    1: "key_compromise",
    2: "ca_compromise",
    3: "affiliation_changed",
    4: "superseded",
    5: "cessation_of_operation",
    6: "certificate_hold",
    8: "remove_from_crl",
    9: "privilege_withdrawn",
    10: "aa_compromise",
}

#: Of names and keys in a certificate's id, RFC 6960, 4.1.1; by the hash's object identifier.
_HASHES: dict[bytes, type[hashes.HashAlgorithm]] = {
    bytes.fromhex("2b0e03021a"): hashes.SHA1,
    bytes.fromhex("608648016503040201"): hashes.SHA256,
    bytes.fromhex("608648016503040202"): hashes.SHA384,
}
_NULL = b"\x05\x00"

_AGAIN = "fetch the current one"

_POINT = 97  # of a key of P-384: what a key's hash covers, the bit string's content


class Answer(NamedTuple):
    """Of one certificate. `algorithm`: of both hashes, an object identifier's content."""

    algorithm: bytes
    name_hash: bytes
    key_hash: bytes
    serial: int
    status: Status
    reason: str | None  # in NVIDIA's claims' words, where it is revoked and a reason stands there
    revoked_at: datetime | None
    this_update: datetime
    next_update: datetime | None

    def is_about(self, subject: Certificate, issuer: Certificate) -> bool:
        """Whether its certificate id is that of `subject`, which `issuer` issued."""
        kind = _HASHES[self.algorithm]
        return (self.serial, self.name_hash, self.key_hash) == (
            subject.serial,
            _digest(kind, issuer.subject),
            _digest(kind, issuer.key[-_POINT:]),
        )


class Response(NamedTuple):
    """`responder_name`, `responder_key`: one of both, as it names itself. Nothing of this is believed yet."""

    answers: tuple[Answer, ...]
    produced_at: datetime
    responder_name: bytes | None
    responder_key: bytes | None
    signed: bytes
    algorithm: bytes
    signature: bytes
    certificates: tuple[Certificate, ...]


class Limits(NamedTuple):
    """`not_before`: no answer is older than what it is verified with. `oldest`: an answer's age."""

    now: datetime
    not_before: datetime
    oldest: timedelta


def read(data: bytes) -> Response:
    """DER. Raises `Malformed` with the offset, `Unavailable` where the responder gave no answer."""
    if len(data) > MAX_SIZE:
        raise Malformed(f"an OCSP response of {len(data)} bytes, expected at most {MAX_SIZE}")
    file = Der(data)
    outer = file.take(SEQUENCE)
    file.done()
    status = outer.integer(ENUMERATED)
    if status:
        word = _RESPONSE_STATUS.get(status, "that is not known")
        raise Unavailable(f"an OCSP response of status {status}, {word}", "ask the responder again")
    explicit = outer.take(context(0))
    outer.done()
    typed = explicit.take(SEQUENCE)
    explicit.done()
    if typed.content(OID) != _BASIC:
        raise Malformed("an OCSP response that is not a basic one")
    return _basic(typed)


def _basic(typed: Der) -> Response:
    inner = Der(typed.content(OCTET_STRING))
    typed.done()
    basic = inner.take(SEQUENCE)
    inner.done()
    begin = basic.at
    body = basic.take(SEQUENCE)
    signed = basic.data[begin : body.end]
    algorithm = basic.whole(SEQUENCE)
    signature = basic.bits()
    certificates: list[Certificate] = []
    if basic.more:
        explicit = basic.take(context(0))
        listed = explicit.take(SEQUENCE)
        explicit.done()
        while listed.more:
            if len(certificates) == MAX_CERTIFICATES:
                raise Malformed(f"an OCSP response with more than {MAX_CERTIFICATES} certificates")
            certificates.append(certificate.parse(listed.whole(SEQUENCE)))
    basic.done()

    if body.next_is(context(0)):
        raise Malformed("an OCSP response of another version than 1, the default")
    name, key = _responder(body)
    produced_at = body.generalized_time()
    listed = body.take(SEQUENCE)
    answers: list[Answer] = []
    while listed.more:
        if len(answers) == MAX_ANSWERS:
            raise Malformed(f"an OCSP response with more than {MAX_ANSWERS} answers")
        answers.append(_answer(listed.take(SEQUENCE)))
    if not answers:
        raise Malformed("an OCSP response without an answer")
    if body.more:
        _not_critical(read_extensions(body.take(context(1))))
    body.done()
    return Response(tuple(answers), produced_at, name, key, signed, algorithm, signature, tuple(certificates))


def _responder(body: Der) -> tuple[bytes | None, bytes | None]:
    """ResponderID: [1] a name, or [2] the SHA-1 of a key, both explicit."""
    if body.next_is(context(1)):
        explicit = body.take(context(1))
        name, key = explicit.whole(SEQUENCE), None
    else:
        explicit = body.take(context(2))
        name, key = None, explicit.content(OCTET_STRING)
    explicit.done()
    return name, key


def _answer(body: Der) -> Answer:
    identifier = body.take(SEQUENCE)
    at = identifier.at
    hashed = identifier.take(SEQUENCE)
    algorithm = hashed.content(OID)
    if hashed.more and hashed.whole(_NULL[0]) != _NULL:
        raise Malformed(f"offset {at:#x}: a hash with parameters")
    hashed.done()
    if algorithm not in _HASHES:
        raise Malformed(f"offset {at:#x}: a certificate id by a hash that is none of SHA-1, SHA-256, SHA-384")
    name_hash, key_hash = identifier.content(OCTET_STRING), identifier.content(OCTET_STRING)
    serial = identifier.integer()
    identifier.done()
    status, reason, revoked_at = _status(body)
    this_update = body.generalized_time()
    next_update = None
    if body.next_is(context(0)):
        explicit = body.take(context(0))
        next_update = explicit.generalized_time()
        explicit.done()
    if body.more:
        _not_critical(read_extensions(body.take(context(1))))
    body.done()
    return Answer(
        algorithm, name_hash, key_hash, serial, status, reason, revoked_at, this_update, next_update
    )


def _status(body: Der) -> tuple[Status, str | None, datetime | None]:
    """CertStatus: [0] good and [2] unknown have no content; [1] revoked says when, and perhaps why."""
    at = body.at
    if body.next_is(context(1)):
        revoked = body.take(context(1))
        moment = revoked.generalized_time()
        reason = None
        if revoked.more:
            explicit = revoked.take(context(0))
            number = explicit.integer(ENUMERATED)
            explicit.done()
            reason = _REASONS.get(number, f"reason {number}")
        revoked.done()
        return "revoked", reason, moment
    words: tuple[tuple[int, Status], ...] = ((0x80, "good"), (0x82, "unknown"))
    for tag, word in words:
        if body.next_is(tag):
            if body.content(tag):
                raise Malformed(f"offset {at:#x}: the status {word} with content")
            return word, None, None
    raise Malformed(f"offset {at:#x}: a status that is none of good, revoked and unknown")


def _not_critical(extensions: Sequence[Extension]) -> None:
    """A nonce and the like are passed over; what says that it must not be is not understood."""
    if any(extension.critical for extension in extensions):
        raise Malformed("an OCSP response with a critical extension, which is not known")


def concerning(
    responses: Sequence[Response], subject: Certificate, issuer: Certificate
) -> list[tuple[Response, Answer]]:
    """The answers about `subject`, each with the response that it stands in."""
    return [(r, answer) for r in responses for answer in r.answers if answer.is_about(subject, issuer)]


def good(
    response: Response, answer: Answer, subject: Certificate, issuer: Certificate, limits: Limits
) -> None:
    """Raises `Mismatch` for an answer that is a no or no genuine one, `Unavailable` where it is out of date.

    A genuine "revoked" counts however old it is: only a hold is ever taken back, and a new answer says so.
    """
    name = subject.common_name
    signer = _signed(response, issuer)
    if answer.status == "revoked":
        why = "" if answer.reason is None else f", {answer.reason}"
        message = f"NVIDIA has revoked {name!r}{why}, serial number {subject.serial:#x}"
        raise Revoked(message, reason=answer.reason)
    if answer.status == "unknown":
        raise Unknown(f"the responder does not know {name!r}, serial number {subject.serial:#x}")
    _in_force(response, answer, name, limits)
    if signer is not issuer and not signer.not_before <= limits.now <= signer.not_after:
        raise Unavailable(
            f"the OCSP responder {signer.common_name!r} is valid from {signer.not_before:%Y-%m-%d %H:%M} to "
            f"{signer.not_after:%Y-%m-%d %H:%M}, and now is {limits.now:%Y-%m-%d %H:%M}",
            _AGAIN,
        )


class Revoked(Mismatch):
    """`reason`: in the claims' words."""

    def __init__(self, message: str, hint: str = "", reason: str | None = None) -> None:
        super().__init__(message, hint)
        self.reason = reason


class Unknown(Mismatch):
    """The responder said so itself."""


def _in_force(response: Response, answer: Answer, name: str, limits: Limits) -> None:
    this, following, now = answer.this_update, answer.next_update, limits.now
    if following is None:
        raise Unavailable(f"the OCSP answer about {name!r} does not say until when it holds")
    if not this <= response.produced_at <= following:
        raise Malformed(f"the OCSP response about {name!r} was made outside of the time in which it holds")
    if not this <= now <= following or response.produced_at > now:
        raise Unavailable(
            f"the OCSP answer about {name!r} holds from {this:%Y-%m-%d %H:%M} to {following:%Y-%m-%d %H:%M}, "
            f"and now is {now:%Y-%m-%d %H:%M}",
            _AGAIN,
        )
    if this < limits.not_before:
        raise Unavailable(
            f"the OCSP answer about {name!r} is of {this:%Y-%m-%d %H:%M}, "
            f"before the reference values were made, {limits.not_before:%Y-%m-%d %H:%M}",
            _AGAIN,
        )
    if now - this > limits.oldest:
        raise Unavailable(
            f"the OCSP answer about {name!r} is {(now - this).days} days old, "
            f"expected at most {limits.oldest.days}",
            _AGAIN,
        )


def _signed(response: Response, issuer: Certificate) -> Certificate:
    """By the issuer itself, or by whom it issued a certificate for just that (RFC 6960, 4.2.2.2)."""
    signer = _signer(response, issuer)
    if signer is not issuer:
        _delegated(signer, issuer)
    if response.algorithm != gpu_chain.ECDSA_SHA384:
        raise Mismatch("an OCSP response that is not signed with ECDSA and SHA-384")
    key = gpu_chain.key_of(signer)
    gpu_chain.verify_bytes(
        response.signature, response.signed, key, f"the OCSP response by {signer.common_name!r}"
    )
    return signer


def _signer(response: Response, issuer: Certificate) -> Certificate:
    """The one that the response names: the issuer, or one of the certificates that came with it."""
    for candidate in (issuer, *response.certificates):
        if response.responder_name is not None:
            if candidate.subject == response.responder_name:
                return candidate
        elif _digest(hashes.SHA1, candidate.key[-_POINT:]) == response.responder_key:
            return candidate
    raise Mismatch("an OCSP response whose responder is neither the issuer nor named by a certificate in it")


def _delegated(signer: Certificate, issuer: Certificate) -> None:
    name = signer.common_name
    gpu_chain.require_p384(signer)
    if signer.issuer != issuer.subject:
        raise Mismatch(f"the OCSP responder {name!r} is not issued by {issuer.common_name!r}")
    if _OCSP_SIGNING not in _purposes(signer):
        raise Mismatch(f"{name!r} may not sign OCSP responses")
    gpu_chain.issued_by(signer, issuer, frozenset({_EXTENDED_KEY_USAGE}))
    gpu_chain.leaf(signer)
    gpu_chain.verify_link(signer, issuer)


def _purposes(signer: Certificate) -> set[bytes]:
    """RFC 5280, 4.2.1.12."""
    value = extension_of(signer, _EXTENDED_KEY_USAGE)
    if value is None:
        return set()
    reader = Der(value)
    listed = reader.take(SEQUENCE)
    reader.done()
    found = set()
    while listed.more:
        found.add(listed.content(OID))
    return found


def _digest(kind: type[hashes.HashAlgorithm], data: bytes) -> bytes:
    digest = hashes.Hash(kind())
    digest.update(data)
    return digest.finalize()
