"""AMD's key distribution service: the certificate of a chip at a TCB, its issuers, and the revocation list.

Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface Specification (57230) 1.00, chapter 4:

    /vcek/v1/<product>/<chip id>?[fmcSPL=n&]blSPL=n&teeSPL=n&snpSPL=n&ucodeSPL=n     DER
    /vcek/v1/<product>/cert_chain, /vlek/v1/<product>/cert_chain                    PEM: ASK or ASVK, then ARK
    /vcek/v1/<product>/crl                                                          DER

The service allows about one request in ten seconds and answers 429 to more. So everything is kept, for good
where it cannot change; a 429 is waited out, by this process and by every other that has the same cache; and
only what was looked at and found right is kept, for what is wrong would be asked for once and used for ever.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import ssl
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Literal, TypeVar
from urllib.parse import urlsplit

from tinboot.client.cache import Cache
from tinboot.client.connection import Deadline
from tinboot.client.fetch import Busy, Conversation, Origin, Status, address
from tinboot.formats.errors import Malformed, Mismatch, TinbootError, Unavailable
from tinboot.formats.snpreport import Report
from tinboot.formats.snptcb import Line, decode
from tinboot.verify import certificate, crl, identity
from tinboot.verify.certificate import Certificate

AMD = "https://kdsintf.amd.com"

#: Seconds that all requests of one verification may take.
SECONDS = 60.0

_LIMIT = 256 << 10  # bytes of one answer
_TRIES = 4
_BACKOFF = 1.0  # seconds before the second try; doubled for each after it
_BUSY = 10.0  # seconds to wait where a 429 does not say how long
_LONGEST = 120.0  # what another process noted further ahead than this is no note of ours
_SHORT, _MISSED_FOR = 10.0, 3600.0  # seconds: for a list that nobody demands, and until it is tried again
_LIST_FOR = 24 * 3600.0  # seconds that a list is used without asking for a newer one

Kind = Literal["vcek", "vlek"]
T = TypeVar("T")


class Kds:
    """`told` gets a line for each request and each wait."""

    def __init__(
        self,
        url: str,
        cache: Cache,
        now: datetime,
        *,
        seconds: float = SECONDS,
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Raises ValueError for what is no URL of a host."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or parts.query or parts.fragment or parts.username:
            raise ValueError(f"{url[:80]!r} is no http or https URL of a key distribution service")
        at = address(parts.netloc, 443 if parts.scheme == "https" else 80)
        self._origin = Origin(at.host, at.port)
        self._scheme, self._prefix = parts.scheme, parts.path.rstrip("/")
        self._cache = cache
        self._now = now
        self._seconds = seconds
        self._deadline: Deadline | None = None  # runs from the first request on
        self._told = told
        self._url = url
        self._tries = _TRIES
        self._busy_until = 0.0  # by the wall clock, as what other processes note
        self._tag = hashlib.sha256(url.encode()).hexdigest()[:8]  # each service has its own files

    def vcek(self, report: Report, line: Line, holds: Callable[[Certificate], object]) -> Certificate:
        """Of the report's chip at its reported TCB; kept for good. `holds` raises where it is not genuine."""
        hwid, tcb = report.chip_id[: line.hwid], decode(line, report.reported_tcb)
        if not any(hwid):
            raise Unavailable(
                "the report names no chip, so its certificate cannot be asked for", "--vek CERT"
            )
        parts = {
            "fmcSPL": tcb.fmc,
            "blSPL": tcb.bl,
            "teeSPL": tcb.tee,
            "snpSPL": tcb.snp,
            "ucodeSPL": tcb.ucode,
        }
        query = "&".join(f"{name}={value:02}" for name, value in parts.items() if value is not None)
        name = hashlib.sha256(hwid + report.reported_tcb).hexdigest()[:40]

        def right(data: bytes) -> Certificate:
            found = _one(data, "the answer about the chip")
            stated = identity.read_identity(found, line)
            if stated.hwid != hwid or stated.tcb != tcb:
                raise Mismatch("the certificate is of another chip or TCB than was asked for")
            holds(found)
            return found

        path = f"/vcek/v1/{line.name}/{hwid.hex()}?{query}"
        return self._kept(f"{line.name}-{name}.der", path, right)

    def chain(
        self, line: Line, kind: Kind, holds: Callable[[Sequence[Certificate]], object]
    ) -> tuple[Certificate, ...]:
        """Intermediate and root; asked anew once a month, for AMD has replaced an intermediate.

        `holds` raises where they are not genuine.
        """

        def right(data: bytes) -> tuple[Certificate, ...]:
            found = certificate.read(data)
            holds(found)
            return found

        path = f"/{kind}/v1/{line.name}/cert_chain"
        return self._kept(f"{line.name}-{kind}-chain.pem", path, right, 30 * 24 * 3600.0)

    def revocations_or_none(self, line: Line, root: Certificate) -> bytes | None:
        """As `revocations`, for who can do without: one short try, and none in the hour after that."""
        missed = f"{self._tag}-{line.name}-crl-missed"
        if self._cache.get(missed, _MISSED_FOR) is not None:
            return None
        hurried = Kds(self._url, self._cache, self._now, seconds=_SHORT, told=self._told)
        hurried._tries = 1
        try:
            return hurried.revocations(line, root)
        except TinbootError:
            self._cache.put(missed, b"")
            return None

    def revocations(self, line: Line, root: Certificate) -> bytes:
        """The list, signed by `root` and in force; a day old at most, where a newer one can be had."""

        def right(data: bytes) -> bytes:
            found = crl.read(data, root)
            if not found.this_update <= self._now + timedelta(minutes=5) or self._now > found.next_update:
                raise Unavailable(f"the revocation list of {line.name} is not in force")
            return data

        name, path = f"{line.name}.crl", f"/vcek/v1/{line.name}/crl"
        try:
            return self._kept(name, path, right, _LIST_FOR)
        except TinbootError:
            older = self._cached(name, right, None)
            if older is None:
                raise
            return older

    def _kept(self, name: str, path: str, right: Callable[[bytes], T], seconds: float | None = None) -> T:
        found = self._cached(name, right, seconds)
        if found is None:
            data = self._fetch(path)
            found = right(data)
            self._cache.put(f"{self._tag}-{name}", data)
        return found

    def _cached(self, name: str, right: Callable[[bytes], T], seconds: float | None) -> T | None:
        data = self._cache.get(f"{self._tag}-{name}", seconds)
        if data is None:
            return None
        try:
            return right(data)
        except TinbootError:
            return None  # damaged, or no longer in force: as if it were not there

    def _fetch(self, path: str) -> bytes:
        """Tries again what may pass: no answer, 429, 503. Raises `Unavailable` when time or tries are up."""
        if self._deadline is None:
            self._deadline = Deadline(self._seconds)
        wait = _BACKOFF
        for left in reversed(range(self._tries)):
            self._queue()
            self._told(f"asking {self._origin.authority}")
            try:
                return self._ask(path, self._deadline)
            except Busy as error:
                if not left:
                    raise
                pause = error.after if error.after is not None else _BUSY
                self._note(pause)
            except Unavailable as error:
                known = isinstance(error, Status) and error.status < 500
                if known or not left or self._deadline.left < wait:
                    raise
                time.sleep(min(wait, max(0.0, self._deadline.left)) * random.uniform(0.5, 1.0))  # noqa: S311
                wait *= 2
        raise AssertionError("the last try neither answered nor failed")

    def _ask(self, path: str, deadline: Deadline) -> bytes:
        context = ssl.create_default_context()
        with Conversation(
            self._origin, max(0.0, deadline.left), scheme=self._scheme, context=context
        ) as conversation:
            return conversation.get(self._prefix + path, _LIMIT)

    def _queue(self) -> None:
        """Waits until the moment that was noted last. Raises `Unavailable` where that is too late."""
        noted = self._busy_until
        with contextlib.suppress(ValueError):
            noted = max(noted, float(self._cache.get(f"{self._tag}-busy") or 0))
        pause = noted - time.time()
        if not 0 < pause <= _LONGEST:
            return
        if self._deadline is None or pause > self._deadline.left:
            raise Busy(
                f"{self._origin.authority} takes no request for {pause:.0f} seconds more",
                "ask again then, or give certificates as files: --vek CERT, --crl CRL",
                pause,
            )
        self._told(f"{self._origin.authority} takes no request for {pause:.0f} seconds")
        time.sleep(pause)

    def _note(self, seconds: float) -> None:
        self._busy_until = time.time() + seconds
        self._cache.put(f"{self._tag}-busy", f"{self._busy_until:.3f}".encode())


def _one(data: bytes, what: str) -> Certificate:
    found = certificate.read(data)
    if len(found) != 1:
        raise Malformed(f"{what} has {len(found)} certificates, expected one")
    return found[0]
