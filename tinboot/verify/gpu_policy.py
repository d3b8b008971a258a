"""What is demanded of a machine's GPUs, beyond genuine evidence that equals the reference values.

Every field is stated; one that nobody wants to look at is `Unchecked`, and its reason is in the result.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, NamedTuple

from tinboot.formats.gpuevidence import ARCHITECTURES
from tinboot.verify.checks import Unchecked

#: How old an OCSP answer may be. NVIDIA does not document how long its answers hold.
OLDEST_ANSWER = timedelta(days=7)

RELYING_PARTY = Unchecked("the policy leaves revocation to the relying party")


class Policy(NamedTuple):
    """`architecture`: as the evidence says, HOPPER or BLACKWELL. `gpus`: how many. `nonce`: 32 bytes."""

    architecture: str | Unchecked
    gpus: int | Unchecked
    nonce: bytes | Unchecked
    revocation: Literal["ocsp"] | Unchecked
    oldest_answer: timedelta = OLDEST_ANSWER


def of_config(architecture: str, revocation_word: str, gpus: int, nonce: bytes) -> Policy:
    """What an attested config demands: `gpu-policy.architecture` and `.revocation`, in its words."""
    word = next(arch for arch, name in ARCHITECTURES.items() if name == architecture)
    return Policy(word, gpus, nonce, revocation(revocation_word))


def revocation(word: str) -> Literal["ocsp"] | Unchecked:
    """`word`: ocsp or relying-party."""
    if word == "ocsp":
        return "ocsp"
    if word != "relying-party":
        raise ValueError(f"no policy of revocation is called {word!r}")
    return RELYING_PARTY
