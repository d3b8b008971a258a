"""The second verifier: NVIDIA's own nv-local-gpu-verifier, in a process that can do nothing else.

It is handed the evidence of one GPU, the pinned RIMs and, where the policy wants them, OCSP answers, and must
call every one of its claims good (nv_claims.py). It never replaces the native verifier: there is evidence
that it takes and should not (docs/gpu.md), and it refuses all evidence once a RIM's certificate has expired.

"No" and "cannot tell" are different errors, and both refuse:

    NotGood        (Refused)       a claim is not good
    Refused                        it accepted something else than what was pinned
    Mismatch                       a RIM is not the one that was pinned; it is not handed over
    Malformed                      certificates, answers or a verdict that cannot be read
    Unavailable                    no verdict: no verifier, no RIM, a crash, a deadline
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, final

from tinboot.formats.errors import Malformed, Mismatch, Refused, Unavailable
from tinboot.formats.gpuevidence import GpuEvidence
from tinboot.formats.gpureference import ReferenceValues, Rim
from tinboot.guest import confined, nv_claims
from tinboot.guest.nv_claims import CHAINS, DEVICE, DRIVER, VBIOS, Expected
from tinboot.verify import certificate, gpu_ocsp, gpu_roots
from tinboot.verify.certificate import Certificate
from tinboot.verify.der import SEQUENCE, Der, context

FOLDER = Path("/usr/lib/tinboot/nv-verifier")

#: nv_claims.CHAINS in the package's words (its Certificate_Chain_Verification_Mode).
_MODES = {DEVICE: "GPU_ATTESTATION", DRIVER: "DRIVER_RIM_CERT", VBIOS: "VBIOS_RIM_CERT"}

_CERTIFICATE = re.compile(rb"<(?:\w+:)?X509Certificate>([A-Za-z0-9+/=\s]+)</(?:\w+:)?X509Certificate>")

_PACKAGE = "nv-local-gpu-verifier"

_SEAL = object()


class Place(NamedTuple):
    """`folder`: holds child.py and site/. `python`: what runs it; `seconds`: how long it may take."""

    folder: Path = FOLDER
    python: str = sys.executable
    seconds: float = confined.DEADLINE


class Installed(NamedTuple):
    """What NVML says runs in this machine; never taken from the report that is compared with it."""

    driver_version: str
    vbios_version: str


@final
class Confirmed:
    """Evidence of one GPU that NVIDIA's verifier accepts. `appraise` alone makes one.

    `evidence`: exactly what it was shown; `claims`: all of them; `rims`: the ids of the driver's and the
    VBIOS's; `revocation`: the chains of which it saw OCSP answers.
    """

    __slots__ = ("claims", "evidence", "revocation", "rims")

    def __init__(
        self,
        seal: object,
        evidence: GpuEvidence,
        claims: dict[str, object],
        rims: tuple[str, str],
        revocation: frozenset[str],
    ) -> None:
        if seal is not _SEAL:
            raise TypeError("a confirmation is made by appraising evidence")
        self.evidence = evidence
        self.claims = claims
        self.rims = rims
        self.revocation = revocation


def appraise(
    evidence: GpuEvidence,
    installed: Installed,
    reference: ReferenceValues,
    files: Mapping[str, bytes],
    device_root: bytes,
    answers: Sequence[bytes] | None,
    place: Place = Place(),  # noqa: B008 - immutable
) -> Confirmed:
    """`files`: RIM id -> its XML, of those that were pinned. `device_root`: the trusted root, PEM.

    `answers`: OCSP responses (DER) that tinboot/verify/gpu_ocsp.py accepted, about all of the device's
    certificates but the leaf and the root, and about all of a RIM's or none; None where the relying party
    checks revocation. `evidence.nonce` is the nonce that was asked for. Raises as the module says.
    """
    rims = _rims(installed, reference, files)
    chain = _chain(evidence.certificate, device_root)
    signers = {rim.id: _signers(rim, files[rim.id]) for rim in rims}
    staples = None if answers is None else _staples(answers)
    asked = _asked(staples, rims, signers)
    job: dict[str, object] = {
        "architecture": evidence.arch,
        "nonce": evidence.nonce.hex(),
        "driver_version": installed.driver_version,
        "vbios_version": installed.vbios_version,
        "report": base64.b64encode(evidence.evidence).decode(),
        "certificates": base64.b64encode(evidence.certificate).decode(),
        "device_root": _pem(chain[-1].der),
        "rim_root": _pem(signers[rims[0].id][-1]),
        "rims": {rim.id: _text(rim, files[rim.id]) for rim in rims},
        "ocsp": staples or {},
        "revocation": [_MODES[name] for name in sorted(asked)],
    }
    verdict = _verdict(_ask(job, place))
    used = [rim for name in verdict.rims for rim in rims if rim.id == name]
    # a RIM that it did not ask for is in no good claim either
    compared = {rim.kind: rim for rim in (*reversed(rims), *used)}
    expected = Expected(
        evidence.nonce.hex(),
        installed.driver_version,
        installed.vbios_version,
        chain[1].common_name,
        chain[0].serial,
        {
            DEVICE: min(one.not_after for one in chain),
            DRIVER: compared["driver"].not_after,
            VBIOS: compared["vbios"].not_after,
        },
        asked,
    )
    claims = nv_claims.require(verdict.token, expected)
    if [rim.kind for rim in used] != ["driver", "vbios"] or len(used) != len(verdict.rims):
        raise Refused(f"{_PACKAGE} compared with {verdict.rims}, expected a driver's and a VBIOS's RIM")
    if not verdict.but_for_revocation or verdict.result is not (asked == frozenset(CHAINS)):
        raise Refused(f"{_PACKAGE} calls every claim good and the whole not: a check without a claim failed")
    return Confirmed(_SEAL, evidence, claims, (used[0].id, used[1].id), asked)


class _Verdict(NamedTuple):
    """What the child says, nothing of it judged yet."""

    result: bool
    but_for_revocation: bool
    token: object
    rims: list[str]


def _verdict(said: bytes) -> _Verdict:
    """Raises `Unavailable`: a child that says anything else has failed, whatever the evidence."""
    try:
        match json.loads(said):
            case {
                "result": bool(result),
                "but_for_revocation": bool(rest),
                "token": token,
                "rims": list(rims),
                **others,
            } if not others and all(isinstance(name, str) for name in rims):
                return _Verdict(result, rest, token, rims)
    except (ValueError, RecursionError):
        pass
    raise Unavailable(f"the verifier's process said what is no verdict: {said[:100]!r}")


def _ask(job: dict[str, object], place: Place) -> bytes:
    child, site = place.folder / "child.py", place.folder / "site"
    if not child.is_file() or not site.is_dir():
        raise Unavailable(
            f"there is no {_PACKAGE} in {place.folder}", "gpu-policy.verifiers names it: build with it"
        )
    return confined.ask(place.python, [str(child), str(site)], json.dumps(job).encode(), place.seconds)


def _rims(installed: Installed, reference: ReferenceValues, files: Mapping[str, bytes]) -> tuple[Rim, ...]:
    """Those of what is installed, the driver's first; each file's hash is the pinned one."""
    wanted = {"driver": installed.driver_version.lower(), "vbios": installed.vbios_version.lower()}
    found = []
    for kind, version in wanted.items():
        own = [rim for rim in reference.rims if rim.kind == kind and rim.version.lower() == version]
        if not own:
            raise Refused(f"no reference values of {kind} {version[:80]!r}", "tinboot gpu pin")
        found += own
    for rim in found:
        if rim.id not in files:
            raise Unavailable(f"the RIM {rim.id} is not here, only its reference values", "pin it again")
        digest = hashlib.sha256(files[rim.id]).hexdigest()
        if digest != rim.sha256:
            raise Mismatch(f"the RIM {rim.id} has the SHA-256 {digest}, expected {rim.sha256}")
    if len({rim.root for rim in found}) != 1:
        raise Refused("the RIMs of driver and VBIOS end in different roots")
    return tuple(found)


def _text(rim: Rim, xml: bytes) -> str:
    try:
        return xml.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"the RIM {rim.id} is not UTF-8: {error}") from error


def _signers(rim: Rim, xml: bytes) -> tuple[bytes, ...]:
    """The certificates that the RIM carries, DER; the last is the root that was pinned."""
    try:
        chain = tuple(base64.b64decode(match[1]) for match in _CERTIFICATE.finditer(xml))
    except ValueError as error:
        raise Malformed(f"a certificate of the RIM {rim.id} is not in base64: {error}") from error
    if not chain or hashlib.sha256(chain[-1]).hexdigest() != rim.root:
        raise Mismatch(f"the RIM {rim.id} does not end in its pinned root {rim.root}")
    return chain


def _chain(pem: bytes, root: bytes) -> tuple[Certificate, ...]:
    """The device's certificates, leaf first, with the trusted root instead of the one that it sends."""
    given = certificate.ders(pem.rstrip(b"\0"), "CERTIFICATE")
    if len(given) < 3:
        raise Malformed(f"a chain of {len(given)} certificates, expected 5")
    return (*map(certificate.parse, given[:-1]), gpu_roots.one_root(root))


def _staples(answers: Sequence[bytes]) -> dict[str, str]:
    """Serial number -> the response about it, in base64; the first, as all were accepted."""
    found: dict[str, str] = {}
    for data in answers:
        for answer in gpu_ocsp.read(data).answers:
            found.setdefault(str(answer.serial), base64.b64encode(data).decode())
    return found


def _asked(
    staples: Mapping[str, str] | None,
    rims: Sequence[Rim],
    signers: Mapping[str, Sequence[bytes]],
) -> frozenset[str]:
    """The chains whose revocation the package is to check: a RIM's only where there is an answer for it."""
    if staples is None:
        return frozenset()
    kinds = {"driver": DRIVER, "vbios": VBIOS}
    return frozenset({DEVICE}) | {
        kinds[rim.kind] for rim in rims if any(str(_serial(data)) in staples for data in signers[rim.id][:-1])
    }


def _serial(data: bytes) -> int:
    """Of a certificate, DER (RFC 5280, 4.1). `certificate` does not take how those of RIMs write times."""
    body = Der(data).take(SEQUENCE).take(SEQUENCE)
    body.take(context(0))
    return body.integer()


def _pem(der: bytes) -> str:
    body = base64.encodebytes(der).decode()
    return f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n"
