"""A guest is verified over a real connection, or refused: by which check, with which kind of error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fake_amd
import pytest
import served_guest
import stub_report
from client_terms import terms
from fake_amd import NOW
from served_guest import (
    DAY,
    EVIDENCE,
    HPKE_KEYS,
    MEASUREMENT,
    Answer,
    Guest,
    Host,
    hpke_key,
    published,
    tls_key,
)

from tinboot import client
from tinboot.client import Given, Terms, Verified, evidence
from tinboot.client.transport import Transport
from tinboot.client.verified import appraise
from tinboot.formats import attestationcollateral, hpkekeys
from tinboot.formats.errors import Malformed, Mismatch, Refused, TinbootError, Unavailable
from tinboot.formats.gpuevidence import GpuEvidence
from tinboot.formats.snptcb import GENOA
from tinboot.verify import policy
from tinboot.verify.checks import Unchecked

SECONDS = 20.0


def verify(host: Host, demanded: Terms, now: Any = NOW) -> Verified:
    return client.verify(host.origin, demanded, now, seconds=SECONDS)


@pytest.mark.parametrize("gpus", [0, 2])
def test_a_good_guest(gpus: int) -> None:
    with Host(Guest(gpus=gpus)) as host:
        examined = client.examine(host.origin, terms(gpus), NOW, seconds=SECONDS)
        found = examined.accept()
    assert host.connections == 1
    assert [request.path for request in host.seen] == [EVIDENCE, HPKE_KEYS, served_guest.CERTIFICATE]
    assert found.tls_key == served_guest.spki_sha256(host.guest.tls)
    assert found.hpke_key == host.guest.hpke_public
    assert found.measurement == MEASUREMENT
    assert (found.origin, found.at) == (host.origin, NOW)
    shown = examined.fields()
    assert (shown["accepted"], shown["exit_code"]) == (True, 0)
    assert shown["host"] == host.origin.authority
    assert "unverified" not in shown


def test_every_nonce_is_a_new_one() -> None:
    with Host() as host:
        verify(host, terms())
        verify(host, terms())
    nonces = {request.nonce for request in host.seen if request.path == EVIDENCE}
    assert len(nonces) == 2
    assert {len(nonce or b"") for nonce in nonces} == {32}


def test_what_must_run_there_is_never_left_open() -> None:
    """No shipped policy names a launch digest, so that any host would pass."""
    with Host() as host:
        open_ended = terms()._replace(policy=policy.shipped("strict"))
        with pytest.raises(ValueError, match="names no launch digest"):
            verify(host, open_ended)
        assert host.connections == 0
        found = evidence.fetch(host.origin)
        with pytest.raises(ValueError, match="names no launch digest"):
            appraise(host.origin, found, open_ended, NOW)


def swapped(gpus: list[GpuEvidence]) -> list[GpuEvidence]:
    """The second's report under the first's certificates."""
    return [gpus[0]._replace(evidence=gpus[1].evidence), *gpus[1:]]


def altered(gpus: list[GpuEvidence]) -> list[GpuEvidence]:
    last = gpus[-1].evidence
    return [*gpus[:-1], gpus[-1]._replace(evidence=last[:-1] + bytes([last[-1] ^ 1]))]


def twice(gpus: list[GpuEvidence]) -> list[GpuEvidence]:
    return [gpus[0], gpus[0]]


def one_less(gpus: list[GpuEvidence]) -> list[GpuEvidence]:
    return gpus[:-1]


def none(_: list[GpuEvidence]) -> list[GpuEvidence]:
    return []


def foreign_chip() -> tuple[attestationcollateral.Collateral, ...]:
    """The certificate of another chip, as genuine as the right one."""
    amd = fake_amd.authority(GENOA)
    tcb = stub_report.TCBS[GENOA]
    vek = amd.issue(amd.vcek(fake_amd.KEY, tcb, bytes(range(2, 66))))
    return served_guest.endorsements(vek)


def expired_chip() -> tuple[attestationcollateral.Collateral, ...]:
    amd = fake_amd.authority(GENOA)
    vek = amd.issue(fake_amd.vek_form()._replace(not_after=NOW - DAY))
    return served_guest.endorsements(vek)


def future_chip() -> tuple[attestationcollateral.Collateral, ...]:
    amd = fake_amd.authority(GENOA)
    vek = amd.issue(fake_amd.vek_form()._replace(not_before=NOW + DAY))
    return served_guest.endorsements(vek)


GUESTS: dict[str, tuple[Callable[[], Guest], type[TinbootError], str]] = {
    "other measurement": (lambda: Guest(measurement=bytes(48)), Refused, "measurement: "),
    "other TLS key in the document": (lambda: Guest(stated_tls=bytes(32)), Mismatch, "tls-key: "),
    "other HPKE key in the document": (lambda: Guest(stated_hpke=b"\1" * 32), Mismatch, "hpke-key: "),
    "nonce echoed and not bound": (lambda: Guest(bound_nonce=bytes(32)), Mismatch, "report-data: "),
    "chip of another guest": (lambda: Guest(collateral=foreign_chip()), Mismatch, "chip-id: "),
    "expired chip certificate": (lambda: Guest(collateral=expired_chip()), Mismatch, "dates: "),
    "future chip certificate": (lambda: Guest(collateral=future_chip()), Mismatch, "dates: "),
    "no chip certificate": (lambda: Guest(collateral=()), Unavailable, "endorsements: .*no certificate"),
    "debug": (
        lambda: Guest(contents=stub_report.Contents(policy=stub_report.POLICY | 1 << 19)),
        Refused,
        "debug: ",
    ),
    "expired TLS certificate": (lambda: Guest(not_after=NOW - DAY / 2), Mismatch, "certificate-dates: "),
    "future TLS certificate": (lambda: Guest(not_before=NOW + DAY / 2), Mismatch, "certificate-dates: "),
}

GPUS: dict[str, tuple[Callable[[], Guest], type[TinbootError], str]] = {
    "no GPU": (lambda: Guest(gpus=0), Refused, "gpu-evidence: there is no evidence"),
    "GPUs left out": (lambda: Guest(gpus=2, change_gpus=none), Refused, "gpu-evidence: "),
    "one GPU fewer": (lambda: Guest(gpus=2, change_gpus=one_less), Refused, "count: evidence of 1 GPUs"),
    "one GPU more": (lambda: Guest(gpus=3), Refused, "count: evidence of 3 GPUs"),
    "altered": (lambda: Guest(gpus=2, change_gpus=altered), Mismatch, "GPU 1: report-signature"),
    "swapped": (lambda: Guest(gpus=2, change_gpus=swapped), Mismatch, "GPU 0: "),
    "twice": (lambda: Guest(gpus=2, change_gpus=twice), Refused, "distinct: "),
    "another nonce": (lambda: Guest(gpus=2, gpu_nonce=bytes(32)), Refused, "GPU 0: nonce: "),
}


@pytest.mark.parametrize("name", GUESTS)
def test_refused_guests(name: str) -> None:
    make, kind, message = GUESTS[name]
    with Host(make()) as host, pytest.raises(kind, match=message):
        verify(host, terms())


@pytest.mark.parametrize("name", GPUS)
def test_refused_gpus(name: str) -> None:
    make, kind, message = GPUS[name]
    with Host(make()) as host, pytest.raises(kind, match=message):
        verify(host, terms(2))


def test_gpus_where_none_are_expected() -> None:
    with Host(Guest(gpus=1)) as host, pytest.raises(Refused, match="gpu-evidence: evidence of 1 GPUs"):
        verify(host, terms())


def test_gpus_that_nobody_wants_to_know_of() -> None:
    with Host(Guest(gpus=1)) as host:
        found = verify(host, terms(gpus=0)._replace(gpus=Unchecked("not asked")))
    assert ("gpu-evidence", "not asked") in found.attested.unchecked


def test_a_replayed_document() -> None:
    """An honest document of a minute ago, over the guest's own connection."""
    with Host() as host:
        old = host.guest.document(bytes(32))
        host.answers[EVIDENCE] = lambda _: Answer(old)
        with pytest.raises(Refused, match="nonce: the document answers the nonce 0000"):
            verify(host, terms())


def test_a_replayed_document_under_a_new_nonce() -> None:
    """The nonce that it states is this one's; what the report binds is the old one."""
    with Host() as host:
        old = host.guest.document(bytes(32))

        def answer(request: served_guest.Request) -> Answer:
            return Answer(old.replace(bytes(32).hex().encode(), (request.nonce or b"").hex().encode(), 1))

        host.answers[EVIDENCE] = answer
        with pytest.raises(Mismatch, match="report-data: "):
            verify(host, terms())


def test_a_relay_with_a_certificate_of_its_own() -> None:
    """It passes on what the guest says, word for word, and reads everything."""
    guest = Guest()
    with Host(Guest(tls=tls_key(1))) as relay:
        relay.answers[EVIDENCE] = lambda request: Answer(guest.document(request.nonce or b""))
        relay.answers[served_guest.CERTIFICATE] = lambda _: Answer(published(guest))
        examined = client.examine(relay.origin, terms(), NOW, seconds=SECONDS)
        assert examined.failure is not None
        with pytest.raises(Mismatch, match="tls-key: the connection's TLS key has"):
            examined.accept()
    assert examined.fields()["accepted"] is False
    assert [v.id for v in examined.connection if isinstance(v.outcome, Mismatch)] == ["certificate-published"]


def test_evidence_of_another_guest() -> None:
    """As genuine, of the same image, and fresh: but its keys are not those of this connection."""
    other = Guest(tls=tls_key(1), hpke=hpke_key(1))
    with Host() as host:
        host.answers[EVIDENCE] = lambda request: Answer(other.document(request.nonce or b""))
        with pytest.raises(Mismatch, match="tls-key: "):
            verify(host, terms())


def test_another_hpke_key_is_given_out() -> None:
    with Host() as host:
        host.answers[HPKE_KEYS] = lambda _: Answer(
            hpkekeys.render(hpke_key(1).public_key().public_bytes_raw())
        )
        with pytest.raises(Mismatch, match="hpke-key: the host gives out"):
            verify(host, terms())


def test_a_certificate_of_another_key_is_given_out() -> None:
    with Host() as host:
        host.answers[served_guest.CERTIFICATE] = lambda _: Answer(published(Guest(tls=tls_key(1))))
        with pytest.raises(Mismatch, match="certificate-published: "):
            verify(host, terms())


def test_stub_roots_are_not_trusted_unless_named() -> None:
    with Host(Guest(gpus=1)) as host:
        demanded = terms(1)
        with pytest.raises(Mismatch, match=r"root-pinned: .* is not trusted"):
            verify(host, demanded._replace(given=Given()))
        assert demanded.gpus is not None
        assert not isinstance(demanded.gpus, Unchecked)
        genuine = demanded.gpus._replace(collateral=demanded.gpus.collateral._replace(pinned=("00" * 32,)))
        with pytest.raises(Mismatch, match="root-pinned: "):
            verify(host, demanded._replace(gpus=genuine))
        verify(host, demanded)


def test_what_was_trusted_once_is_not_trusted_for_others() -> None:
    """Verified chains are kept; whoever pins other roots is not served from that."""
    with Host() as host:
        verify(host, terms())
        with pytest.raises(Mismatch, match=r"root-pinned: .* is not trusted"):
            verify(host, terms()._replace(given=Given()))


def test_a_v2_document_answers_no_nonce() -> None:
    with Host() as host:
        host.answers[EVIDENCE] = lambda _: Answer(host.guest.document_v2())
        with pytest.raises(Malformed, match="attestation document"):
            verify(host, terms())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[" * (1 << 20), "not strict JSON"),
        (b'{"a":' * 100_000, "not strict JSON"),
        (b"[" * 40 + b"]" * 40, "nested deeper"),
        (b"", "not strict JSON"),
        (b"\xff", "not strict JSON"),
        (bytes(5 << 20), "expected at most"),
        (b'{"format":"x"}', "attestation document"),
    ],
    ids=["deep", "deep objects", "a little too deep", "empty", "no UTF-8", "large", "another format"],
)
def test_documents_that_are_none(body: bytes, message: str) -> None:
    with Host() as host:
        host.answers[EVIDENCE] = lambda _: Answer(body)
        with pytest.raises(Malformed, match=message):
            verify(host, terms())


def test_a_guest_that_is_busy_is_asked_again() -> None:
    with Host() as host:
        answers = [Answer(b"", 503, (("Retry-After", "0"),)), Answer(b"", 429, (("Retry-After", "0"),))]

        def answer(request: served_guest.Request) -> Answer:
            return answers.pop() if answers else Answer(host.guest.document(request.nonce or b""))

        host.answers[EVIDENCE] = answer
        verify(host, terms())
        assert len({request.nonce for request in host.seen if request.path == EVIDENCE}) == 1


@pytest.mark.parametrize("after", ["0", "1000"])
def test_a_guest_that_stays_busy(after: str) -> None:
    with Host() as host:
        host.answers[EVIDENCE] = lambda _: Answer(b"", 429, (("Retry-After", after),))
        with pytest.raises(Unavailable, match="status 429"):
            verify(host, terms())


def test_a_revocation_list_that_is_demanded() -> None:
    wanted = terms()
    wanted = wanted._replace(policy=wanted.policy._replace(revocation="require"))
    with Host() as host, pytest.raises(Unavailable, match=r"revocation: .*none is given"):
        verify(host, wanted)
    brought = (*served_guest.endorsements(), attestationcollateral.of_crl(served_guest.revocation_list()))
    with Host(Guest(collateral=brought)) as host:
        verify(host, wanted)
    revoked = served_guest.revocation_list(fake_amd.authority(GENOA).ask().serial)
    with Host(Guest(collateral=(*brought[:1], attestationcollateral.of_crl(revoked)))) as host:
        with pytest.raises(Mismatch, match="revocation: "):
            verify(host, wanted)
        ours = wanted.given._replace(revocations=served_guest.revocation_list())
        verify(host, wanted._replace(given=ours))  # what the user names counts before what the host brings


def test_what_nobody_can_make() -> None:
    with pytest.raises(TypeError, match="is made by verifying one"):
        Verified(object(), client.origin("x"), None, NOW)  # type: ignore[arg-type]  # made up
    with pytest.raises(TypeError, match="made by examining one"):
        client.Examined(object(), client.origin("x"), None, None, ())  # type: ignore[arg-type]  # made up


def test_what_nobody_can_change() -> None:
    with Host() as host:
        found = verify(host, terms())
    with pytest.raises(AttributeError, match="tls_key of a verified host cannot be set"):
        found.tls_key = bytes(32)


def test_a_refusal_has_no_transport() -> None:
    with Host(Guest(measurement=bytes(48))) as host:
        examined = client.examine(host.origin, terms(), NOW, seconds=SECONDS)
        with pytest.raises(Refused):
            examined.accept()
    assert not hasattr(examined, "transport")
    with pytest.raises(TypeError, match="a verified host"):
        Transport(examined)  # type: ignore[arg-type]  # the wrong type
