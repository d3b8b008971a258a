"""`verify`: from a host's name to a host that is known, and to a way of talking to no other.

    verify(origin, terms, now)  ->  Verified          .transport(), .client(), .ehbp_client()
    examine(origin, terms, now) ->  Examined          every check; .accept() -> Verified

A `Verified` is made by an appraisal that accepted, and transports are made of a `Verified`; there is no other
way to either.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, final

from tinboot.client import certificate, endorsements, evidence
from tinboot.client.endorsements import Given
from tinboot.client.evidence import Evidence
from tinboot.client.fetch import Origin
from tinboot.client.kds import Kds
from tinboot.formats import snpreport
from tinboot.formats.errors import TinbootError
from tinboot.verify import checks, document
from tinboot.verify.advisories import Data
from tinboot.verify.appraisal import Endorsements
from tinboot.verify.chain import Endorsement
from tinboot.verify.checks import ORDER, Unchecked, Verdict
from tinboot.verify.document import AttestedHost, Demands, GpuDemands, Seen
from tinboot.verify.policy import Policy

if TYPE_CHECKING:
    import httpx

    from tinboot.client.transport import Transport

_SEAL = object()

#: Chips' certificates, DER, and what verifying their chains gave. It holds for any time and is looked at anew
#: for who pins other roots (chain.py); dates, revocation and the report are each verification's own.
_known: dict[bytes, Endorsement] = {}
_KNOWN = 256


class Terms(NamedTuple):
    """What a relying party demands. `policy`: with the reference values pinned in it. `gpus`: as in
    verify/document.py. `given`: what need not be fetched. `kds`: None where nobody but the host is asked.
    """

    policy: Policy
    data: Data
    gpus: GpuDemands | Unchecked | None
    given: Given = Given()
    kds: Kds | None = None


@final
class Verified:
    """A host that passed everything. `tls_key`: SHA-256 of its SubjectPublicKeyInfo; `hpke_key`: raw X25519.

    True of the guest that had these keys at `at`: they never leave it, and end with it.
    """

    __slots__ = ("at", "attested", "hpke_key", "measurement", "origin", "tls_key")

    origin: Origin
    attested: AttestedHost
    tls_key: bytes
    hpke_key: bytes
    measurement: bytes
    at: datetime

    def __init__(self, seal: object, origin: Origin, attested: AttestedHost, at: datetime) -> None:
        if seal is not _SEAL:
            raise TypeError("a verified host is made by verifying one")
        values = (at, attested, attested.hpke, attested.measurement, origin, attested.tls)
        for name, value in zip(self.__slots__, values, strict=True):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} of a verified host cannot be set")

    def transport(self, *, http2: bool = True) -> Transport:
        """For httpx: to this origin alone, and every connection shows the attested TLS key."""
        from tinboot.client.transport import Transport  # noqa: PLC0415 - who only verifies needs no httpx

        return Transport(self, http2=http2)

    def client(self, *, http2: bool = True, timeout: float = 60.0) -> httpx.Client:
        """httpx's, over `transport`: paths alone are enough. Redirects are not followed."""
        return self._client(self.transport(http2=http2), timeout)

    def ehbp_client(self, *, http2: bool = True, timeout: float = 60.0) -> httpx.Client:
        """The same with bodies encrypted for the attested HPKE key, too (ehbp_transport.py)."""
        from tinboot.client.ehbp_transport import EhbpTransport  # noqa: PLC0415 - as above

        return self._client(EhbpTransport(self, http2=http2), timeout)

    def _client(self, transport: httpx.BaseTransport, timeout: float) -> httpx.Client:
        import httpx  # noqa: PLC0415 - as above

        base = f"https://{self.origin.authority}"
        return httpx.Client(transport=transport, base_url=base, timeout=timeout, trust_env=False)


@final
class Examined:
    """What came of it; `examine` alone makes one. `connection`: what was asked of the TLS certificate."""

    __slots__ = ("appraisal", "connection", "evidence", "now", "origin")

    def __init__(
        self,
        seal: object,
        origin: Origin,
        found: Evidence,
        appraisal: document.Appraisal,
        connection: tuple[Verdict, ...],
    ) -> None:
        if seal is not _SEAL:
            raise TypeError("what came of examining a host is made by examining one")
        self.origin = origin
        self.evidence = found
        self.appraisal = appraisal
        self.connection = connection
        self.now = appraisal.now

    @property
    def failure(self) -> TinbootError | None:
        """The one that decides: the most fundamental, and among equals the document's."""
        found = (self.appraisal.failure, checks.failure(checks.decisive(self.connection)))
        return next((error for kind in ORDER for error in found if isinstance(error, kind)), None)

    def accept(self) -> Verified:
        """Raises what decides."""
        if (failure := self.failure) is not None:
            raise failure
        return Verified(_SEAL, self.origin, self.appraisal.accept(), self.now)

    def fields(self) -> dict[str, object]:
        """For JSON, as `document.Appraisal.fields`, with the host and its certificate."""
        failure = self.failure
        found = self.appraisal.fields()
        if failure is not None and "claims" in found:
            found["unverified"] = found.pop("claims")
        return {
            "host": self.origin.authority,
            **found,
            "accepted": failure is None,
            "exit_code": 0 if failure is None else failure.exit_code,
            "connection": [
                {"id": verdict.id, "meaning": verdict.meaning, **verdict.fields()}
                for verdict in self.connection
            ],
        }


def verify(
    origin: Origin,
    terms: Terms,
    now: datetime,
    *,
    seconds: float = evidence.SECONDS,
    told: Callable[[str], None] = lambda _: None,
) -> Verified:
    """Fetches and appraises. Raises what decides, of the errors of tinboot/formats/errors.py."""
    return examine(origin, terms, now, seconds=seconds, told=told).accept()


def examine(
    origin: Origin,
    terms: Terms,
    now: datetime,
    *,
    seconds: float = evidence.SECONDS,
    told: Callable[[str], None] = lambda _: None,
) -> Examined:
    """`seconds`: for the host, in all; AMD's service has a bound of its own. `told` gets a line a stage.

    Raises only where there is nothing to appraise: no answer, or one that cannot be read; and ValueError for
    terms that leave open what must run there.
    """
    _require_measurement(terms)
    return appraise(origin, evidence.fetch(origin, seconds, told), terms, now)


def appraise(origin: Origin, found: Evidence, terms: Terms, now: datetime) -> Examined:
    """The part after fetching; AMD may be asked for what is missing. Raises ValueError as `examine`."""
    _require_measurement(terms)
    endorsed = _endorsements(found, terms)
    known = None if isinstance(endorsed, TinbootError) else _known.get(endorsed.vek.der)
    demands = Demands(endorsed, terms.policy, terms.data, found.nonce, terms.gpus, known)
    appraisal = document.appraise(found.document, Seen(found.tls, found.hpke), demands, now)
    if appraisal.cpu is not None and appraisal.cpu.endorsement is not None:
        if len(_known) >= _KNOWN:
            _known.clear()
        _known[appraisal.cpu.endorsement.chain[0].der] = appraisal.cpu.endorsement
    hpke = None if appraisal.keys is None else appraisal.keys.hpke
    subject = certificate.Subject(found.tls, found.certificate, found.published, hpke, now)
    return Examined(_SEAL, origin, found, appraisal, checks.ask(certificate.CHECKS, subject))


def _require_measurement(terms: Terms) -> None:
    """Shipped policies name no launch digest, and a host of any would be a verified one."""
    if isinstance(terms.policy.measurement, Unchecked):
        raise ValueError("the terms' policy names no launch digest: see Policy.measuring")  # noqa: TRY004


def _endorsements(found: Evidence, terms: Terms) -> Endorsements | TinbootError:
    try:
        report = snpreport.parse(found.document.report)
        demanded = not isinstance(terms.policy.revocation, Unchecked)
        return endorsements.gather(
            report, terms.given, found.document.collateral, terms.kds, revocations=demanded
        )
    except TinbootError as error:
        return error
