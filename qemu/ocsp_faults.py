"""OCSP answers about stub GPUs, and what is wrong with them, by name.

    ocspdisk.pack(responses(faults, now))
    ocspdisk.pack(responses(faults, now, OCSP_FAULTS["revoked"]))

Every fault is in the answer about one certificate, that of the last GPU's boot ROM.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import stub_nvidia
import stub_ocsp
from gpu_faults import Faults
from stub_nvidia import DAY, EXTENDED_USAGE
from stub_ocsp import HOLD, Answer

Change = Callable[[Answer, datetime], Answer | None]


def responses(faults: Faults, now: datetime, change: Change | None = None) -> tuple[bytes, ...]:
    """DER, an answer each: about every certificate of every GPU's own chain but the root."""
    found: dict[tuple[str, int], Answer] = {}
    last = None
    for at, gpu in enumerate(faults.gpus):
        chain = stub_nvidia.chain(gpu.contents.arch, at if gpu.number is None else gpu.number)
        for place, answer in enumerate(stub_ocsp.answers(chain, now)):
            key = (repr(answer.issuer.subject), answer.serial)
            found[key] = answer
            last = key if place == 1 else last
    if change is not None and last is not None:
        changed = change(found.pop(last), now)
        if changed is not None:
            found[last] = changed
    return tuple(answer.pack() for answer in found.values())


def _absent(answer: Answer, now: datetime) -> None:
    return None


def _revoked(answer: Answer, now: datetime) -> Answer:
    return answer._replace(status="revoked", reason=1, revoked_at=now - 3 * DAY)


def _held(answer: Answer, now: datetime) -> Answer:
    return answer._replace(status="revoked", reason=HOLD)


def _unknown(answer: Answer, now: datetime) -> Answer:
    return answer._replace(status="unknown")


def _of(answer: Answer, this: datetime, following: datetime | None) -> Answer:
    return answer._replace(this_update=this, next_update=following, produced_at=this)


def _stale(answer: Answer, now: datetime) -> Answer:
    return _of(answer, now - 2 * DAY, now - DAY)


def _early(answer: Answer, now: datetime) -> Answer:
    return _of(answer, now + timedelta(hours=1), now + DAY)


def _old(answer: Answer, now: datetime) -> Answer:
    return _of(answer, now - 300 * DAY, now + 300 * DAY)


def _endless(answer: Answer, now: datetime) -> Answer:
    return _of(answer, answer.this_update, None)


def _of_another_certificate(answer: Answer, now: datetime) -> Answer:
    return answer._replace(serial=answer.serial + 1)


def _forged(answer: Answer, now: datetime) -> Answer:
    return answer._replace(signer=answer.signer._replace(key=stub_nvidia.key("nobody's")))


def _without_purpose(answer: Answer, now: datetime) -> Answer:
    form = answer.signer.forms[0].without_extension(EXTENDED_USAGE)
    return answer._replace(signer=answer.signer.put(0, form))


def _of_another_responder(answer: Answer, now: datetime) -> Answer:
    """Of one that somebody else's authority of the same name let answer."""
    return answer._replace(signer=stub_nvidia.responder(answer.issuer, stub_nvidia.key("nobody's"), now))


OCSP_FAULTS: dict[str, Change] = {
    "absent": _absent,
    "revoked": _revoked,
    "held": _held,
    "unknown": _unknown,
    "stale": _stale,
    "early": _early,
    "old": _old,
    "endless": _endless,
    "of-another-certificate": _of_another_certificate,
    "forged": _forged,
    "responder-without-purpose": _without_purpose,
    "responder-of-another-authority": _of_another_responder,
}
