"""docs/gpu.md on the native verifier, held to the code: checks, options, exit codes, figures, claims."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fake_gpus import appraise, evidence

from tinboot.builder import places
from tinboot.cli import gpu_verify
from tinboot.formats import errors, gpuevidence
from tinboot.formats.gpuevidence import GpuEvidence
from tinboot.verify import (
    gpu_appraisal,
    gpu_binding,
    gpu_chain,
    gpu_claims,
    gpu_ocsp,
    gpu_platform,
    gpu_policy,
)
from tinboot.verify.checks import Check

PAGE = (places.REPOSITORY / "docs/gpu.md").read_text("utf-8")
CHAPTER = PAGE.partition("\n## Verify evidence\n")[2].partition("\n## ")[0]
WORDS = " ".join(CHAPTER.split())


def part(title: str) -> str:
    found = CHAPTER.partition(f"\n### {title}\n")[2].partition("\n### ")[0]
    assert found, title
    return found


def test_every_check_stands_there_with_its_meaning() -> None:
    shown = re.findall(r"^\| `([a-z0-9-]+)` \| (.+) \|$", part("Every check"), re.MULTILINE)
    chain, report = gpu_appraisal.FORMATS
    checks: tuple[Check[Any], ...] = (
        chain,
        *gpu_chain.CHECKS,
        report,
        *gpu_binding.CHECKS,
        *gpu_platform.CHECKS,
        *gpu_appraisal.CHECKS,
    )
    assert shown == [(check.id, check.meaning) for check in checks]
    assert [v.id for v in appraise([evidence()]).gpus[0].verdicts] == [
        c.id for c in checks[: -len(gpu_appraisal.CHECKS)]
    ]


def test_every_option_is_one_of_the_command_and_stands_there() -> None:
    options = {option for param in gpu_verify.command.params for option in param.opts if option[0] == "-"}
    named = set(re.findall(r"--[a-z][a-z-]*", CHAPTER))
    assert named == options


@pytest.mark.parametrize("kind", [errors.Malformed, errors.Mismatch, errors.Refused, errors.Unavailable])
def test_exit_codes(kind: type[errors.TinbootError]) -> None:
    assert f"| {kind.exit_code} | " in CHAPTER


def test_members_of_the_evidence() -> None:
    section = PAGE.partition("\n## Evidence\n")[2].partition("\n## ")[0]
    named = re.findall(r"^\| `([a-z_]+)` \|", section, re.MULTILINE)
    assert named == [*GpuEvidence._fields, "version"]
    assert all(f"`{word}`" in section for word in gpuevidence.ARCHITECTURES)


def test_words_of_revocation() -> None:
    words = re.findall(r"^\| `([a-z-]+)` \|", part("Revocation"), re.MULTILINE)
    assert words == ["ocsp", "relying-party"]
    for word in words:
        gpu_policy.revocation(word)
    assert len(gpu_binding.ASKED) == 3
    assert "each of the three certificates" in WORDS


def test_figures() -> None:
    assert f"at most {gpu_policy.OLDEST_ANSWER.days} days old" in WORDS
    driver, vbios = (len(gpu_platform.HOPPER[kind]) for kind in ("driver", "vbios"))
    assert f"({driver + vbios} indexes, {driver} of the driver and {vbios} of the VBIOS)" in WORDS
    least = gpu_platform.BLACKWELL
    assert f"{least['driver']} and {least['vbios']} are the least" in WORDS
    assert f"from driver {gpu_binding._STATES_FWID} on" in WORDS
    assert len(gpu_ocsp._HASHES) == 3
    assert "SHA-1, SHA-256 or SHA-384" in WORDS


def test_claims_that_are_named_are_made() -> None:
    overall, each = gpu_claims.platform(appraise([evidence()]))
    text = str((overall, each))
    named = set(re.findall(r"`(x-nvidia-[a-z-]+|measres|jti|secboot|dbgstat)`", part("Claims")))
    assert len(named) > 8
    assert {name for name in named if f"'{name}'" not in text} == set()
    assert f"version {gpu_claims.VERSION}" in WORDS


def test_what_may_be_left_open_is_only_what_the_page_says() -> None:
    named = {"nonce", "revocation", "architecture", "fwid", "count"}
    assert named == gpu_appraisal.MAY_BE_UNCHECKED
    for option in ("--nonce", "--revocation", "--architecture", "--count"):
        assert option in CHAPTER
    assert "then `fwid` is `unchecked`" in WORDS
