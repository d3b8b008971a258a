"""OCSP responses: read as a library reads them, and believed only where everything about them holds."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
import stub_der as der
import stub_nvidia
from cryptography.x509 import ocsp
from cryptography.x509.ocsp import OCSPCertStatus
from fake_gpus import CREATED, endorsement
from fake_nvidia import NOW
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from stub_chain import KEY_USAGE
from stub_nvidia import CERTS, EXTENDED_USAGE, OCSP_SIGNING, Chain, Form, responder
from stub_ocsp import HOLD, Answer, moment

from tinboot.formats.errors import Malformed, Mismatch, TinbootError, Unavailable
from tinboot.verify import gpu_ocsp
from tinboot.verify.gpu_ocsp import Limits, Revoked, Unknown

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
CHAIN = stub_nvidia.chain()
ROM, ICA, IDENTITY = CHAIN.forms[1:4]
ICA_KEY = stub_nvidia.key(" GH100 provisioner")
LIMITS = Limits(NOW, CREATED, timedelta(days=7))

#: Of the boot ROM, by a responder that the provisioner named.
GOOD = Answer.of(ROM, ICA, ROM.signer, NOW)


def judge(answer: Answer | bytes, limits: Limits = LIMITS) -> None:
    """The answer about the boot ROM; raises what is wrong with it."""
    subject, issuer = endorsement().chain[1:3]
    response = gpu_ocsp.read(answer if isinstance(answer, bytes) else answer.pack())
    ((found, own),) = gpu_ocsp.concerning([response], subject, issuer)
    gpu_ocsp.good(found, own, subject, issuer, limits)


def test_good() -> None:
    judge(GOOD)


@pytest.mark.parametrize("kind", ["sha1", "sha256", "sha384"])
def test_certificate_ids_by_each_hash(kind: Literal["sha1", "sha256", "sha384"]) -> None:
    judge(GOOD._replace(hash=kind))


def test_the_issuer_may_answer_itself_and_enclose_nothing() -> None:
    itself = GOOD._replace(signer=Chain((ICA,), ROM.signer))
    judge(itself)
    judge(pack(itself, itself._data(), encloses=False))
    with pytest.raises(Mismatch, match="responder is neither the issuer nor named"):
        judge(pack(GOOD, GOOD._data(), encloses=False))


def test_a_nonce_that_nobody_asked_for_is_passed_over() -> None:
    judge(GOOD._replace(nonce=bytes(32)))


def test_a_responder_may_be_named_by_its_key() -> None:
    for key in (GOOD.signer.forms[0].key, ICA.key):
        signer = GOOD.signer if key is not ICA.key else Chain((ICA,), ROM.signer)
        judge(by_key(GOOD._replace(signer=signer), key))
    with pytest.raises(Mismatch, match="responder is neither the issuer nor named"):
        judge(by_key(GOOD, IDENTITY.key))


def by_key(answer: Answer, key: bytes) -> bytes:
    """The response of `answer`, but that it names its responder by `key`'s SHA-1."""
    identifier = der.context(2, der.octets(hashlib.sha1(key[-97:], usedforsecurity=False).digest()))
    single = der.sequence(answer._id(), answer._status(), moment(answer.this_update), until(answer))
    return pack(answer, der.sequence(identifier, moment(answer.produced_at), der.sequence(single)))


def until(answer: Answer) -> bytes:
    assert answer.next_update is not None
    return der.context(0, moment(answer.next_update))


def pack(
    answer: Answer,
    data: bytes,
    algorithm: bytes = stub_nvidia.ECDSA_SHA384,
    tail: bytes = b"",
    *,
    encloses: bool = True,
) -> bytes:
    """A response of that ResponseData, signed."""
    signature = der.bits(stub_nvidia.sign(answer.signer.key, data))
    certificates = der.context(0, der.sequence(*answer.signer.der())) if encloses else b""
    basic = der.octets(der.sequence(data, algorithm, signature, certificates, tail))
    inner = der.context(0, der.sequence(der.oid("1.3.6.1.5.5.7.48.1.1"), basic))
    return der.sequence(der.element(0x0A, b"\0"), inner)


def signer(**fields: Any) -> Answer:
    """By a responder whose certificate differs."""
    return GOOD._replace(signer=GOOD.signer.replace(0, **fields))


def extended(oid: str, value: bytes, *, critical: bool = False) -> Answer:
    form = GOOD.signer.forms[0].with_extension(oid, value, critical=critical)
    return GOOD._replace(signer=GOOD.signer.put(0, form))


def without(oid: str) -> Answer:
    return GOOD._replace(signer=GOOD.signer.put(0, GOOD.signer.forms[0].without_extension(oid)))


def revoked(reason: int | None) -> Answer:
    return GOOD._replace(status="revoked", reason=reason)


OTHER = stub_nvidia.key("another")

Make = Callable[[], Answer | bytes]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: revoked(1), Revoked, "NVIDIA has revoked 'GH100 A01 GSP BROM', key_compromise, serial"),
        (lambda: revoked(HOLD), Revoked, "certificate_hold"),
        (lambda: revoked(None), Revoked, "NVIDIA has revoked 'GH100 A01 GSP BROM', serial number"),
        (lambda: revoked(7), Revoked, "reason 7"),
        (lambda: GOOD._replace(status="unknown"), Unknown, "does not know 'GH100 A01 GSP BROM'"),
        (lambda: GOOD._replace(next_update=None), Unavailable, "does not say until when"),
        (lambda: GOOD._replace(next_update=NOW - HOUR / 2), Unavailable, "holds from .* and now is"),
        (lambda: GOOD._replace(this_update=NOW + HOUR / 2, produced_at=NOW + HOUR), Unavailable, "now is"),
        (lambda: GOOD._replace(produced_at=NOW + HOUR), Unavailable, "and now is"),
        (lambda: GOOD._replace(produced_at=NOW - 2 * HOUR), Malformed, "made outside of the time"),
        (lambda: GOOD._replace(produced_at=NOW + 2 * DAY), Malformed, "made outside of the time"),
        (lambda: GOOD._replace(this_update=NOW - 8 * DAY), Unavailable, "is 8 days old, expected at most 7"),
        (lambda: GOOD._replace(this_update=CREATED - HOUR), Unavailable, "before the reference values were"),
        (
            lambda: GOOD._replace(signer=responder(ICA, OTHER, NOW)),
            Mismatch,
            "names another key of its issuer",
        ),
        (lambda: GOOD._replace(signer=responder(IDENTITY, ICA.signer, NOW)), Mismatch, "is not issued by"),
        (lambda: signer(signer=OTHER), Mismatch, "signature of 'NVIDIA OCSP Responder' by"),
        (
            lambda: signer(not_after=NOW - HOUR),
            Unavailable,
            "responder 'NVIDIA OCSP Responder' is valid from",
        ),
        (
            lambda: signer(not_before=NOW + HOUR),
            Unavailable,
            "responder 'NVIDIA OCSP Responder' is valid from",
        ),
        (lambda: without(EXTENDED_USAGE), Mismatch, "may not sign OCSP responses"),
        (
            lambda: extended(EXTENDED_USAGE, der.sequence(der.oid("1.3.6.1.5.5.7.3.1"))),
            Mismatch,
            "may not sign",
        ),
        (lambda: extended(KEY_USAGE, CERTS), Mismatch, "something else than sign data"),
        (lambda: extended("1.2.3.4", b"", critical=True), Mismatch, "critical extension"),
        (
            lambda: GOOD._replace(signer=GOOD.signer._replace(key=OTHER)),
            Mismatch,
            "signature of the OCSP resp",
        ),
        (lambda: GOOD._replace(signer=Chain((ROM,), CHAIN.key)), Mismatch, "may not sign OCSP responses"),
        (lambda: GOOD._replace(signer=Chain((ICA,), OTHER)), Mismatch, "signature of the OCSP response by"),
        (lambda: pack(GOOD, GOOD._data(), der.sequence(der.oid("1.2.840.10045.4.3.2"))), Mismatch, "SHA-384"),
    ],
)
def test_what_is_wrong_with_an_answer(make: Make, error: type[TinbootError], message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        judge(make())
    assert type(raised.value) is error


def test_a_signing_purpose_may_be_critical() -> None:
    judge(extended(EXTENDED_USAGE, der.sequence(der.oid(OCSP_SIGNING)), critical=True))


def test_a_revocation_counts_however_old_it_is() -> None:
    old = NOW - 300 * DAY
    with pytest.raises(Revoked) as raised:
        judge(revoked(1)._replace(this_update=old, produced_at=old, next_update=old + DAY))
    assert raised.value.reason == "key_compromise"
    late = GOOD.signer.replace(0, not_after=old)
    with pytest.raises(Revoked):
        judge(revoked(1)._replace(signer=late))


def test_bounds_of_the_time() -> None:
    exact = GOOD._replace(this_update=NOW, produced_at=NOW, next_update=NOW)
    judge(exact)
    judge(GOOD._replace(this_update=NOW - 7 * DAY))
    judge(GOOD._replace(this_update=CREATED), LIMITS._replace(oldest=timedelta(days=31)))


@pytest.mark.parametrize("field", ["serial", "issuer"])
def test_an_answer_about_another_certificate_concerns_it_not(field: str) -> None:
    changes: dict[str, Any] = {"serial": ROM.serial + 1, "issuer": IDENTITY}
    response = gpu_ocsp.read(GOOD._replace(**{field: changes[field]}).pack())
    subject, issuer = endorsement().chain[1:3]
    assert gpu_ocsp.concerning([response], subject, issuer) == []
    assert gpu_ocsp.concerning([gpu_ocsp.read(GOOD.pack())], *endorsement().chain[2:4]) == []


@pytest.mark.parametrize(("name", "key"), [(ICA, IDENTITY), (IDENTITY, ICA)], ids=["key", "name"])
def test_nor_one_whose_issuer_has_another_key_or_another_name(name: Form, key: Form) -> None:
    issuer = ICA._replace(subject=name.subject, key=key.key)
    response = gpu_ocsp.read(GOOD._replace(issuer=issuer).pack())
    assert gpu_ocsp.concerning([response], *endorsement().chain[1:3]) == []


@pytest.mark.parametrize("status", [1, 2, 3, 5, 6, 99])
def test_no_answer(status: int) -> None:
    with pytest.raises(Unavailable, match=f"an OCSP response of status {status}, "):
        gpu_ocsp.read(GOOD._replace(failure=status).pack())


def data(*parts: bytes) -> bytes:
    return pack(GOOD, der.sequence(*parts))


NAME = der.context(1, stub_nvidia.name(GOOD.signer.forms[0].subject))
SINGLE = der.sequence(GOOD._id(), GOOD._status(), moment(GOOD.this_update), until(GOOD))
MD5 = der.sequence(
    der.sequence(der.oid("1.2.840.113549.2.5"), der.null()), *[der.octets(b"x")] * 2, der.integer(1)
)
CRITICAL = der.context(1, der.sequence(der.sequence(der.oid("1.2.3"), der.true(), der.octets(b""))))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "ends where"),
        (GOOD.pack() + b"\0", "1 bytes too many"),
        (bytes(17 << 10), "of 17408 bytes, expected at most 16384"),
        (der.sequence(der.element(0x0A, b"\0")), "ends where"),
        (
            der.sequence(der.element(0x0A, b"\0"), der.context(0, der.sequence(der.oid("1.2.3")))),
            "not a basic",
        ),
        (pack(GOOD, GOOD._data(), tail=der.null()), "too many"),
        (pack(GOOD._replace(signer=Chain((ICA,) * 5, ROM.signer)), GOOD._data()), "more than 4 certificates"),
        (data(der.context(0, der.integer(1)), NAME, moment(NOW), der.sequence(SINGLE)), "another version"),
        (data(NAME, moment(NOW), der.sequence()), "without an answer"),
        (data(NAME, moment(NOW), der.sequence(*[SINGLE] * 9)), "more than 8 answers"),
        (data(NAME, moment(NOW), der.sequence(SINGLE), CRITICAL), "critical extension"),
        (
            data(
                NAME,
                moment(NOW),
                der.sequence(der.sequence(GOOD._id(), GOOD._status(), moment(NOW), CRITICAL)),
            ),
            "critic",
        ),
        (data(NAME, der.time(NOW), der.sequence(SINGLE)), "an element 0x17, expected 0x18"),
        (
            data(NAME, moment(NOW), der.sequence(der.sequence(MD5, GOOD._status(), moment(NOW)))),
            "none of SHA-1",
        ),
        (
            data(
                NAME,
                moment(NOW),
                der.sequence(der.sequence(GOOD._id(), der.element(0x80, b"x"), moment(NOW))),
            ),
            "good with",
        ),
        (
            data(
                NAME, moment(NOW), der.sequence(der.sequence(GOOD._id(), der.element(0x83, b""), moment(NOW)))
            ),
            "none of good",
        ),
        (data(der.context(3, b""), moment(NOW), der.sequence(SINGLE)), "expected 0xa2"),
    ],
)
def test_what_is_no_response(raw: bytes, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        gpu_ocsp.read(raw)


REASONS = st.sampled_from([None, 0, 1, 2, 3, 4, 5, 6, 8, 9, 10])
TIMES = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)).map(
    lambda d: d.replace(microsecond=0, tzinfo=UTC)
)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["good", "revoked", "unknown"]),
    REASONS,
    *(TIMES, TIMES, TIMES, TIMES),
    st.sampled_from(["sha1", "sha256", "sha384"]),
    st.integers(1, 2**150),
    st.none() | st.binary(min_size=1, max_size=32),
)
def test_it_reads_what_the_library_reads(
    status: Any,
    reason: int | None,
    this: datetime,
    following: datetime,
    produced: datetime,
    gone: datetime,
    kind: Any,
    serial: int,
    nonce: bytes | None,
) -> None:
    made = GOOD._replace(
        status=status,
        reason=reason,
        this_update=this,
        next_update=following,
        produced_at=produced,
        revoked_at=gone,
        hash=kind,
        serial=serial,
        nonce=nonce,
    )
    agree(made.pack())


def agree(raw: bytes) -> None:
    """Raises `Malformed` or `ValueError` where one of the two does not read it."""
    own, other = gpu_ocsp.read(raw), ocsp.load_der_ocsp_response(raw)
    assert (own.signed, own.signature) == (other.tbs_response_bytes, other.signature)
    assert own.produced_at == other.produced_at_utc
    assert [c.der for c in own.certificates] == [c.public_bytes(der_encoding()) for c in other.certificates]
    assert len(own.answers) == len(list(other.responses))
    for answer, their in zip(own.answers, other.responses, strict=True):
        words = {
            "good": OCSPCertStatus.GOOD,
            "revoked": OCSPCertStatus.REVOKED,
            "unknown": OCSPCertStatus.UNKNOWN,
        }
        assert words[answer.status] is their.certificate_status
        assert (answer.serial, answer.name_hash) == (their.serial_number, their.issuer_name_hash)
        assert answer.key_hash == their.issuer_key_hash
        assert (answer.this_update, answer.next_update) == (their.this_update_utc, their.next_update_utc)
        assert answer.revoked_at == their.revocation_time_utc
        given = their.revocation_reason
        assert answer.reason == (None if given is None else given.name)


def der_encoding() -> Any:
    from cryptography.hazmat.primitives.serialization import Encoding

    return Encoding.DER


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(GOOD.pack()) - 1), st.integers(0, 255)), min_size=1, max_size=3))
def test_no_change_of_a_response_is_good(changes: list[tuple[int, int]]) -> None:
    """But of certificates that it brings along and nobody needs, or that are the same in another encoding."""
    raw = bytearray(GOOD.pack())
    for at, byte in changes:
        raw[at] = byte
    assume(bytes(raw) != GOOD.pack())
    with contextlib.suppress(ValueError, Malformed, Unavailable):
        agree(bytes(raw))
    with contextlib.suppress(ValueError), pytest.raises(TinbootError):
        judge(bytes(raw))


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=120), st.integers(0, 1000))
def test_any_bytes_and_any_cut(tail: bytes, size: int) -> None:
    for raw in (tail, GOOD.pack()[:size]):
        with pytest.raises((Malformed, Unavailable)):
            gpu_ocsp.read(raw)
