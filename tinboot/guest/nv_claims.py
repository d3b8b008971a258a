"""What NVIDIA's verifier must say of a GPU, claim by claim: claims of version 3.0, and the token over them.

A claim that is missing, one too many, or one of another value or type refuses. So the table below is the
whole of what counts; that the package itself calls the result good is required besides.

Several claims only repeat what was handed in (versions, nonce) or say nothing of their own (`secboot` and
`dbgstat` follow from `measres`); that they are as expected still shows that it was this job's verdict.
"""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import datetime
from typing import NamedTuple

from tinboot.formats.errors import Malformed, Refused

GPU = "GPU-0"
ISSUER = "LOCAL_GPU_VERIFIER"
VERSION = "3.0"
NVIDIA = "5703"  # IANA private enterprise number, in TCG's RIM: FirmwareManufacturerId

#: Of each token: when it was made, until when it is good, and its number.
_OF_THE_MOMENT = frozenset({"nbf", "exp", "iat", "jti"})

DEVICE, DRIVER, VBIOS = CHAINS = ("attestation-report", "driver-rim", "vbios-rim")


class Expected(NamedTuple):
    """Of one job. `ends`: chain -> when its first certificate ends; `asked`: chains that the package was to
    ask OCSP answers for.
    """

    nonce: str
    driver_version: str
    vbios_version: str
    hardware: str
    serial: int
    ends: dict[str, datetime]
    asked: frozenset[str]


class NotGood(Refused):
    """NVIDIA's verifier says no. `claims`: the names of those that are not good, in its order."""

    def __init__(self, claims: dict[str, object]) -> None:
        told = ", ".join(f"{name} is {json.dumps(value)}" for name, value in claims.items())
        super().__init__(f"nv-local-gpu-verifier: {told}"[:1000])
        self.claims = tuple(claims)


def good(expected: Expected) -> dict[str, object]:
    """Every claim of a GPU, with its good value."""
    claims: dict[str, object] = {
        "measres": "success",
        "secboot": True,
        "dbgstat": "disabled",
        "eat_nonce": expected.nonce,
        "hwmodel": expected.hardware,
        "ueid": str(expected.serial),
        "oemid": NVIDIA,
        "iss": ISSUER,
    }
    own: dict[str, object] = {
        "arch-check": True,
        "driver-version": expected.driver_version,
        "vbios-version": expected.vbios_version.upper(),
        "attestation-report-cert-chain-fwid-match": True,
        "attestation-report-parsed": True,
        "attestation-report-nonce-match": True,
        "attestation-report-signature-verified": True,
        "vbios-index-no-conflict": True,
    }
    for rim in (DRIVER, VBIOS):
        for question in (
            "fetched",
            "schema-validated",
            "signature-verified",
            "version-match",
            "measurements-available",
        ):
            own[f"{rim}-{question}"] = True
    for chain in CHAINS:
        own[f"{chain}-cert-chain"] = {
            "x-nvidia-cert-expiration-date": expected.ends[chain].replace(tzinfo=None).isoformat(),
            "x-nvidia-cert-status": "valid",
            "x-nvidia-cert-ocsp-status": "good" if chain in expected.asked else None,
            "x-nvidia-cert-revocation-reason": None,
        }
    return claims | {f"x-nvidia-gpu-{name}": value for name, value in own.items()}


def require(token: object, expected: Expected) -> dict[str, object]:
    """The claims of the GPU, each of which is good. Raises `NotGood`, or `Malformed` for what is no token."""
    match token:
        case [["JWT", str(first)], {"GPU-0": str(second), **others}] if not others:
            overall, claims = _payload(first), _payload(second)
        case _:
            raise Malformed(f"the verdict is no token of one GPU: {str(token)[:200]}")
    wrong = _differences(claims, good(expected), "")
    if wrong:
        raise NotGood(wrong)
    digest = hashlib.sha256(json.dumps(claims).encode()).hexdigest()
    whole = {
        "sub": "NVIDIA-PLATFORM-ATTESTATION",
        "iss": ISSUER,
        "x-nvidia-ver": VERSION,
        # the package calls nothing good of which it was told no revocation status
        "x-nvidia-overall-att-result": expected.asked == frozenset(CHAINS),
        "submods": {GPU: ["DIGEST", ["SHA256", digest]]},
        "eat_nonce": expected.nonce,
    }
    if wrong := _differences(overall, whole, "overall "):
        raise NotGood(wrong)
    return claims


def _payload(token: str) -> dict[str, object]:
    """Of a JWT whose signature says nothing: its key is the word "secret"."""
    parts = token.split(".")
    try:
        payload = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, IndexError, RecursionError) as error:
        raise Malformed(f"the verdict holds what is no token: {error}") from error
    if len(parts) != 3 or not isinstance(payload, dict) or not payload.keys() >= _OF_THE_MOMENT:
        raise Malformed(f"the verdict holds what is no token: {token[:100]!r}")
    return {name: value for name, value in payload.items() if name not in _OF_THE_MOMENT}


def _differences(found: dict[str, object], want: dict[str, object], where: str) -> dict[str, object]:
    """Name -> what was found instead; None for what is missing."""
    wrong: dict[str, object] = {}
    for name, value in found.items():
        expected = want.get(name)
        if isinstance(value, dict) and isinstance(expected, dict):
            wrong |= _differences(value, expected, f"{where}{name}.")
        elif name not in want or type(value) is not type(expected) or value != expected:
            wrong[where + name] = value
    return wrong | {where + name: None for name in want if name not in found}
