"""What NVIDIA's verifier says, altered in every way: it counts only whole, and only for this job."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

import gpu_mutations
import pytest
import stub_nvidia
from gpu_mutations import NOW
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinboot.formats.errors import Malformed, Refused, TinbootError, Unavailable
from tinboot.guest import confined, nv_claims
from tinboot.guest.nv_claims import CHAINS, NotGood

GOOD = gpu_mutations.subject()
ANSWERED = gpu_mutations.all_answered()


@pytest.fixture(scope="module")
def verdict() -> dict[str, Any]:
    """Of `ANSWERED`, in which nothing is unasked."""
    jobs: list[bytes] = []
    with pytest.MonkeyPatch.context() as patch:
        ask = confined.ask

        def asking(python: str, program: list[str], question: bytes, seconds: float) -> bytes:
            jobs.append(ask(python, program, question, seconds))
            return jobs[-1]

        patch.setattr(confined, "ask", asking)
        gpu_mutations.confirm(ANSWERED)
    found: dict[str, Any] = json.loads(jobs[0])
    return found


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    """Lets the next confirmation be of this verdict; bytes, or what becomes JSON."""

    def instead(said: object) -> None:
        data = said if isinstance(said, bytes) else json.dumps(said).encode()
        monkeypatch.setattr(confined, "ask", lambda *_: data)

    return instead


def claims_of(verdict: dict[str, Any]) -> dict[str, Any]:
    return decoded(verdict["token"][1]["GPU-0"])


def decoded(token: str) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    return payload


def encoded(payload: object) -> str:
    body = base64.urlsafe_b64encode(json.dumps(payload).encode()).rstrip(b"=").decode()
    return f"e30.{body}.c2ln"


def with_claims(verdict: dict[str, Any], claims: dict[str, Any], **overall: object) -> dict[str, Any]:
    """The same verdict over these claims, its digest right."""
    moment = {"nbf", "exp", "iat", "jti"}
    own = {name: value for name, value in claims.items() if name not in moment}
    digest = hashlib.sha256(json.dumps(own).encode()).hexdigest()
    whole = decoded(verdict["token"][0][1]) | {"submods": {"GPU-0": ["DIGEST", ["SHA256", digest]]}} | overall
    return verdict | {"token": [["JWT", encoded(whole)], {"GPU-0": encoded(claims)}]}


def test_the_verdict_as_it_was_given_counts(verdict: dict[str, Any], say: Callable[[object], None]) -> None:
    say(with_claims(verdict, claims_of(verdict)))
    assert gpu_mutations.confirm(ANSWERED).revocation == set(CHAINS)


def _names() -> list[str]:
    ends = dict.fromkeys(CHAINS, NOW)
    claims = nv_claims.good(nv_claims.Expected("", "", "", "", 0, ends, frozenset()))
    inner = [f"{name}.{part}" for name, value in claims.items() if isinstance(value, dict) for part in value]
    return [*claims, *inner]


def _change(claims: dict[str, Any], name: str, change: Callable[[dict[str, Any], str], object]) -> None:
    outer, _, inner = name.partition(".")
    change(claims[outer] if inner else claims, inner or name)


_CHANGES: dict[str, Callable[[dict[str, Any], str], object]] = {
    "null": lambda d, n: d.__setitem__(n, {} if d[n] is None else None),
    "missing": lambda d, n: d.pop(n),
    "another type": lambda d, n: d.__setitem__(n, 1 if d[n] is True else [d[n]]),
    "text": lambda d, n: d.__setitem__(n, "true"),
}


@pytest.mark.parametrize("change", _CHANGES)
@pytest.mark.parametrize("name", _names())
def test_every_claim_counts(
    name: str, change: str, verdict: dict[str, Any], say: Callable[[object], None]
) -> None:
    claims = claims_of(verdict)
    _change(claims, name, _CHANGES[change])
    say(with_claims(verdict, claims))
    with pytest.raises(NotGood) as caught:
        gpu_mutations.confirm(ANSWERED)
    assert all(told.startswith(name) for told in caught.value.claims)
    assert caught.value.claims


def test_a_claim_too_many_refuses(verdict: dict[str, Any], say: Callable[[object], None]) -> None:
    say(with_claims(verdict, claims_of(verdict) | {"x-nvidia-attestation-warning": "on hold"}))
    with pytest.raises(NotGood, match="on hold"):
        gpu_mutations.confirm(ANSWERED)


@pytest.mark.parametrize(
    "overall",
    [
        {"x-nvidia-overall-att-result": False},
        {"x-nvidia-overall-att-result": "true"},
        {"x-nvidia-ver": "2.0"},
        {"eat_nonce": "00" * 32},
        {"sub": "SOMETHING"},
        {"iss": "SOMEBODY"},
        {"submods": {"GPU-0": ["DIGEST", ["SHA256", "00" * 32]]}},
        {"submods": {}},
        {"more": 1},
    ],
    ids=str,
)
def test_the_token_over_the_claims_counts(
    overall: dict[str, object], verdict: dict[str, Any], say: Callable[[object], None]
) -> None:
    say(with_claims(verdict, claims_of(verdict), **overall))
    with pytest.raises(NotGood, match="overall"):
        gpu_mutations.confirm(ANSWERED)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"result": False}, "a check without a claim failed"),
        ({"but_for_revocation": False}, "a check without a claim failed"),
        ({"rims": []}, "compared with"),
        ({"rims": ["NV_GPU_DRIVER_GH100_550.90.07"]}, "compared with"),
        (
            {"rims": ["NV_GPU_VBIOS_G520_0200_885_96009F0001", "NV_GPU_DRIVER_GH100_550.90.07"]},
            "compared with",
        ),
        (
            {
                "rims": [
                    "NV_GPU_DRIVER_GH100_550.90.07",
                    "NV_GPU_VBIOS_G520_0200_885_96009F0001",
                    "NV_GPU_VBIOS_G520_0200_885_960000000",
                ]
            },
            "compared with",
        ),
    ],
    ids=["result", "otherwise", "no-rims", "one-rim", "swapped", "another"],
)
def test_good_claims_are_not_enough(
    change: dict[str, object], said: str, verdict: dict[str, Any], say: Callable[[object], None]
) -> None:
    say(verdict | change)
    with pytest.raises(Refused, match=said):
        gpu_mutations.confirm(ANSWERED)


def test_a_verdict_of_another_gpu_refuses(verdict: dict[str, Any], say: Callable[[object], None]) -> None:
    say(verdict)
    other = ANSWERED._replace(evidence=gpu_mutations.subject(chain=stub_nvidia.chain(number=1)).evidence)
    with pytest.raises(NotGood, match="ueid"):
        gpu_mutations.confirm(other)


def test_a_verdict_for_another_nonce_refuses(verdict: dict[str, Any], say: Callable[[object], None]) -> None:
    say(verdict)
    subject = ANSWERED
    with pytest.raises(NotGood, match="eat_nonce"):
        gpu_mutations.confirm(subject._replace(evidence=subject.evidence._replace(nonce=bytes(32))))


def test_good_that_nobody_asked_for_refuses(verdict: dict[str, Any], say: Callable[[object], None]) -> None:
    """Where the relying party checks revocation, a verdict may not say that it is checked."""
    say(verdict)
    with pytest.raises(NotGood, match="ocsp-status"):
        gpu_mutations.confirm(GOOD)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        {},
        {"result": True, "but_for_revocation": True, "token": [], "rims": []},
        {"result": 1, "but_for_revocation": True, "token": [], "rims": []},
        {"result": True, "but_for_revocation": True, "token": [], "rims": [1]},
        {"result": True, "but_for_revocation": True, "token": [], "rims": [], "more": 1},
        {"result": True, "but_for_revocation": True, "token": [["JWT", "a"], {"GPU-0": "b"}], "rims": []},
        {
            "result": True,
            "but_for_revocation": True,
            "token": [["JWT", "a.b.c"], {"GPU-0": "a.b.c"}],
            "rims": [],
        },
        {
            "result": True,
            "but_for_revocation": True,
            "token": [["JWT", encoded([])], {"GPU-0": encoded([])}],
            "rims": [],
        },
        {
            "result": True,
            "but_for_revocation": True,
            "token": [["JWT", encoded({})], {"GPU-0": encoded({}), "GPU-1": encoded({})}],
            "rims": [],
        },
    ],
)
def test_what_is_no_verdict_is_never_taken_for_one(said: object, say: Callable[[object], None]) -> None:
    say(said)
    with pytest.raises((Unavailable, Malformed)):
        gpu_mutations.confirm(GOOD)


@given(st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_altered_verdict_never_says_anything_else(
    verdict: dict[str, Any], say: Callable[[object], None], data: st.DataObject
) -> None:
    """A byte, or one of what is inside its tokens: refused, or it was one that says nothing."""
    if data.draw(st.booleans()):
        said = bytearray(json.dumps(verdict).encode())
        said[data.draw(st.integers(0, len(said) - 1))] ^= data.draw(st.integers(1, 255))
        say(bytes(said))
    else:
        claims = bytearray(json.dumps(claims_of(verdict)).encode())
        claims[data.draw(st.integers(0, len(claims) - 1))] ^= data.draw(st.integers(1, 255))
        body = base64.urlsafe_b64encode(claims).rstrip(b"=").decode()
        say(verdict | {"token": [verdict["token"][0], {"GPU-0": f"e30.{body}.c2ln"}]})
    try:
        found = gpu_mutations.confirm(ANSWERED)
    except TinbootError:
        return
    moment = {"nbf", "exp", "iat", "jti"}
    assert found.claims == {n: value for n, value in claims_of(verdict).items() if n not in moment}
