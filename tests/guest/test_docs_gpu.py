"""docs/gpu.md on the second verifier, held to the table of what both verifiers say."""

from __future__ import annotations

from backend_cases import CASES, DRIVERS, STUBS
from gpu_mutations import ACCEPTS

from tinboot.builder import places
from tinboot.formats import halt
from tinboot.guest import confine, confined

PAGE = (places.REPOSITORY / "docs/gpu.md").read_text("utf-8")
CHAPTER = PAGE.partition("\n## The second verifier\n")[2].partition("\n## ")[0]


def test_every_check_that_catches_what_the_second_one_lets_through_is_named() -> None:
    """Of both tables; the gate's own questions are not checks."""
    verdicts = [(case.native, case.second) for case in CASES.values()] + list(STUBS.values())
    needed = {native for native, second in verdicts if second == ACCEPTS != native}
    through = CHAPTER.partition("### What it lets through")[2].partition("### ")[0]
    assert {check for check in needed if f"`{check}`" not in through} == set()
    assert DRIVERS
    assert "the gate, which asks NVML" in through


def test_the_number_of_faults() -> None:
    assert len(CASES) + len(STUBS) >= 190
    assert "190 faults" in CHAPTER


def test_both_reasons_are_explained() -> None:
    reasons = [reason for reason in halt.REASONS if reason.startswith("gpu-second-verifier")]
    assert len(reasons) == 2
    assert all(f"`{reason}`" in CHAPTER for reason in reasons)


def test_the_bounds() -> None:
    assert f"user {confine.NOBODY}" in CHAPTER
    assert confined.DEADLINE == 30
    assert "half a minute" in CHAPTER
    assert confine.HOME_BYTES == 8 << 20
    assert "8 MiB" in CHAPTER


def test_the_limits_stand_where_a_user_chooses() -> None:
    config = (places.REPOSITORY / "docs/config.md").read_text("utf-8")
    row = next(line for line in config.splitlines() if line.startswith("| `verifiers` |"))
    assert "gpu.md#the-second-verifier" in row
    for limit in ("expired", "newest format", "frozen", "2026-09-15"):
        assert limit in row, limit
