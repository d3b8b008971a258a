"""EHBP's bodies: what one end writes the other reads, however it is cut; everything else is refused."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from tinboot.ehbp import hpke, messages
from tinboot.ehbp.messages import FRAME, Answer, Exchange, Limits, Opener, Sealer, is_mismatch
from tinboot.formats.errors import Malformed, Mismatch, Refused, TinbootError

PRIVATE = X25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = hpke.raw(PRIVATE.public_key())
NONCE = bytes(range(32, 64))
LIMITS = Limits()


def frame(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def ends(limits: Limits = LIMITS) -> tuple[Exchange, Answer]:
    exchange = Exchange(PUBLIC)
    return exchange, Answer(PRIVATE, exchange.header, limits)


def answered(limits: Limits = LIMITS) -> tuple[Sealer, Opener]:
    """Both ends of a response."""
    exchange, answer = ends()
    answer.request.feed(exchange.request.seal(b"a request"))
    return answer.response(NONCE), exchange.response(NONCE.hex(), limits)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(i % (len(data) + 1) for i in at), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@given(st.lists(st.binary(max_size=3000), max_size=8), st.lists(st.integers(0, 1 << 20), max_size=12))
def test_a_request_arrives_however_it_is_cut(writes: list[bytes], at: list[int]) -> None:
    exchange, answer = ends()
    body = b"".join(map(exchange.request.seal, writes))
    found = [part for piece in cut(body, at) for part in answer.request.feed(piece)]
    answer.request.finish()
    assert b"".join(found) == b"".join(writes)
    assert answer.request.held <= 3016


@given(st.lists(st.binary(max_size=3000), max_size=8), st.lists(st.integers(0, 1 << 20), max_size=12))
def test_so_does_a_response(writes: list[bytes], at: list[int]) -> None:
    sealer, opener = answered()
    body = b"".join(map(sealer.seal, writes))
    found = [part for piece in cut(body, at) for part in opener.feed(piece)]
    opener.finish()
    assert b"".join(found) == b"".join(writes)


def test_what_is_written_is_in_frames_of_64_kib() -> None:
    body = ends()[0].request.seal(bytes(2 * FRAME + 1))
    assert len(body) == 2 * (4 + FRAME + 16) + 4 + 1 + 16
    assert body[:4] == (FRAME + 16).to_bytes(4, "big")
    assert ends()[0].request.seal(b"") == b""


def test_a_request_is_what_the_librarys_hpke_makes_of_it() -> None:
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    sealed = suite.encrypt(b"one frame", X25519PublicKey.from_public_bytes(PUBLIC), b"ehbp request")
    answer = Answer(PRIVATE, sealed[:32].hex(), LIMITS)
    assert answer.request.feed(frame(sealed[32:])) == [b"one frame"]


def test_a_response_is_as_the_specification_derives_it() -> None:
    """RFC 9458, 4.4 with the library's HKDF; only Export, which the library has not, is ours."""
    exchange, answer = ends()
    answer.request.feed(exchange.request.seal(b"x"))
    body = answer.response(NONCE).seal(b"first") + answer.response(NONCE).seal(b"")
    encapsulated = bytes.fromhex(exchange.header)
    secret = hpke.recipient(encapsulated, PRIVATE, b"ehbp request").export(b"ehbp response", 32)
    key, nonce = (
        HKDF(hashes.SHA256(), length, encapsulated + NONCE, label).derive(secret)
        for length, label in ((32, b"key"), (12, b"nonce"))
    )
    assert AESGCM(key).decrypt(nonce, body[4:], b"") == b"first"


def test_the_second_frame_of_a_response_has_the_nonce_xor_1() -> None:
    sealer, _ = answered()
    first, second = sealer.seal(b"same"), sealer.seal(b"same")
    assert first != second


def test_empty_frames_say_nothing_and_take_no_number() -> None:
    exchange, answer = ends()
    seal = exchange.request.seal
    body = bytes(4) + seal(b"a") + bytes(8) + seal(b"b") + bytes(4)
    assert answer.request.feed(body) == [b"a", b"b"]
    assert answer.request.opened == 2
    answer.request.finish()


def test_a_frame_may_hold_nothing() -> None:
    exchange, answer = ends()
    sealed = hpke.Sequence.seal(exchange._context, b"")
    assert answer.request.feed(frame(sealed)) == [b""]


def test_empty_frames_are_not_without_end() -> None:
    _, answer = ends()
    answer.request.feed(bytes(4 * 1024))
    with pytest.raises(Refused, match="more than 1024 empty frames"):
        answer.request.feed(bytes(4))


def test_what_is_kept_grows_with_what_arrives() -> None:
    exchange, answer = ends()
    answer.request.feed((1 << 24).to_bytes(4, "big"))
    assert answer.request.held == 4
    answer.request.feed(bytes(100_000))
    assert answer.request.held == 200_000
    answer.request.feed(bytes(101_000))
    assert answer.request.held == 402_000
    exchange, answer = ends()
    sealed = hpke.Sequence.seal(exchange._context, bytes(1 << 20))
    answer.request.feed(frame(sealed)[:-1])
    assert answer.request.held == (1 << 20) + 16
    answer.request.feed(frame(sealed)[-1:])
    assert answer.request.held == 0


@pytest.mark.parametrize("length", [1, 15])
def test_a_frame_shorter_than_its_tag(length: int) -> None:
    with pytest.raises(Malformed, match=f"frame 0 has {length} bytes, expected at least 16"):
        ends()[1].request.feed(frame(bytes(length)))


def test_a_frame_too_long_is_refused_before_it_is_gathered() -> None:
    exchange, answer = ends(Limits(frame=116))
    assert answer.request.feed(exchange.request.seal(bytes(100)))
    with pytest.raises(Refused, match="frame 1 has 117 bytes, expected at most 116"):
        answer.request.feed((117).to_bytes(4, "big"))
    with pytest.raises(Refused, match="has 4294967295 bytes"):
        ends()[1].request.feed(b"\xff\xff\xff\xff")


def test_a_body_too_long_is_refused_before_it_is_gathered() -> None:
    exchange, answer = ends(Limits(total=150))
    body = exchange.request.seal(bytes(100)) + exchange.request.seal(bytes(50))
    assert sum(map(len, answer.request.feed(body))) == 150
    with pytest.raises(Refused, match="more than 150 bytes"):
        answer.request.feed((17).to_bytes(4, "big"))


@given(st.integers(0, 200))
def test_a_body_cut_in_a_frame_is_found_out(at: int) -> None:
    exchange, answer = ends()
    body = exchange.request.seal(bytes(100)) + exchange.request.seal(bytes(80))
    answer.request.feed(body[:at])
    if at in {0, 120, 220}:
        answer.request.finish()  # what EHBP cannot tell (docs/ehbp.md)
    else:
        with pytest.raises(Malformed, match="bytes into a frame"):
            answer.request.finish()


@settings(max_examples=300)
@given(st.integers(0, 8 * 344 - 1))
def test_no_bit_can_change(at: int) -> None:
    """Of two frames: what comes out is the start of what went in, and then an error."""
    exchange, answer = ends()
    writes = [bytes(range(100)), bytes(range(100, 204)), bytes(80)]
    body = bytearray(b"".join(map(exchange.request.seal, writes)))
    assert len(body) == 344
    body[at // 8] ^= 1 << at % 8
    found = []
    with pytest.raises(TinbootError):  # noqa: PT012 - each piece in turn
        for i in range(0, len(body), 7):
            found += answer.request.feed(body[i : i + 7])
        answer.request.finish()
    assert found == writes[: len(found)]
    assert len(found) < len(writes)


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=5))
def test_nothing_comes_out_of_what_nobody_sealed(data: bytes, at: list[int]) -> None:
    answer = ends()[1]
    found = []
    try:
        for piece in cut(data, at):
            found += answer.request.feed(piece)
        answer.request.finish()
    except (Malformed, Mismatch, Refused):
        pass
    assert found == []


def test_frames_cannot_be_left_out_repeated_or_exchanged() -> None:
    exchange = Exchange(PUBLIC)
    first, second, third = (exchange.request.seal(bytes([i])) for i in range(3))
    for order in ((second,), (first, first), (first, third), (second, first)):
        answer = Answer(PRIVATE, exchange.header, LIMITS)
        with pytest.raises(Mismatch):
            answer.request.feed(b"".join(order))


def test_after_an_error_nothing_comes_out() -> None:
    exchange, answer = ends()
    good = exchange.request.seal(b"good")
    with pytest.raises(Mismatch):
        answer.request.feed(frame(bytes(20)))
    with pytest.raises(Mismatch):
        answer.request.feed(good)
    with pytest.raises(Mismatch):
        answer.request.finish()
    assert answer.request.held == 0


def test_a_frame_before_a_bad_one_is_not_told_in_the_same_breath() -> None:
    exchange, answer = ends()
    with pytest.raises(Mismatch):
        answer.request.feed(exchange.request.seal(b"good") + frame(bytes(20)))


def test_responses_are_of_their_request_and_nonce() -> None:
    exchange, answer = ends()
    answer.request.feed(exchange.request.seal(b"x"))
    body = answer.response(NONCE).seal(b"secret")
    with pytest.raises(Mismatch):
        exchange.response(bytes(32).hex(), LIMITS).feed(body)
    with pytest.raises(Mismatch):
        Exchange(PUBLIC).response(NONCE.hex(), LIMITS).feed(body)
    with pytest.raises(Mismatch):  # a request thrown back
        exchange.response(NONCE.hex(), LIMITS).feed(exchange.request.seal(b"x"))
    assert exchange.response(NONCE.hex(), LIMITS).feed(body) == [b"secret"]


def test_another_key_opens_nothing() -> None:
    exchange = Exchange(PUBLIC)
    answer = Answer(X25519PrivateKey.generate(), exchange.header, LIMITS)
    with pytest.raises(Mismatch, match="message 0"):
        answer.request.feed(exchange.request.seal(b"x"))


def test_no_response_to_a_request_that_nothing_vouches_for() -> None:
    exchange, answer = ends()
    with pytest.raises(ValueError, match="no frame of the request was opened"):
        answer.response(NONCE)
    answer.request.feed(bytes(4))
    with pytest.raises(ValueError, match="no frame of the request was opened"):
        answer.response(NONCE)
    answer.request.feed(exchange.request.seal(b"x"))
    with pytest.raises(ValueError, match="31 bytes"):
        answer.response(bytes(31))


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        "0" * 63,
        "0" * 65,
        "0" * 63 + "g",
        "A" * 64,
        " " + "1" * 64,
        "1" * 64 + "\n",
        "0x" + "1" * 62,
    ],
)
def test_headers_are_64_hex_digits(value: str) -> None:
    with pytest.raises(Malformed, match=r"Ehbp-Encapsulated-Key is .* 64 lower-case hex digits"):
        Answer(PRIVATE, value, LIMITS)
    with pytest.raises(Malformed, match=r"Ehbp-Response-Nonce is .* 64 lower-case hex digits"):
        Exchange(PUBLIC).response(value, LIMITS)


def test_keys_of_small_order() -> None:
    with pytest.raises(Malformed, match="small order"):
        Answer(PRIVATE, bytes(32).hex(), LIMITS)
    with pytest.raises(Malformed, match="small order"):
        Exchange(bytes(32))


def test_the_mismatch_is_recognised() -> None:
    assert is_mismatch(422, "application/problem+json", messages.MISMATCH)
    assert is_mismatch(422, "Application/Problem+JSON; charset=utf-8", messages.MISMATCH)
    assert set(json.loads(messages.MISMATCH)) == {"type", "title"}
    assert re.fullmatch(rb"[ -~]+", messages.MISMATCH)


@pytest.mark.parametrize(
    ("status", "content_type", "body"),
    [
        (400, "application/problem+json", messages.MISMATCH),
        (422, "application/json", messages.MISMATCH),
        (422, "", messages.MISMATCH),
        (422, "application/problem+json", b""),
        (422, "application/problem+json", b'{"type":"about:blank"}'),
        (422, "application/problem+json", b'["urn:ietf:params:ehbp:error:key-config"]'),
        (422, "application/problem+json", b"[" * 4000),
        (422, "application/problem+json", messages.MISMATCH + b" " * 4096),
    ],
)
def test_other_answers_are_not(status: int, content_type: str, body: bytes) -> None:
    assert not is_mismatch(status, content_type, body)
