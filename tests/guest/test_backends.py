"""Both GPU verifiers on the same faults: each is the other's oracle, and no fault passes both.

The verdicts are printed at the end of the run (conftest.py). A change of any is a change of the table
in tests/support/backend_cases.py, to be explained in docs/gpu.md.
"""

from __future__ import annotations

from collections.abc import Callable

import gpu_mutations
import pytest
import stub_nvidia
from backend_cases import CASES, DRIVERS, NOTED, PADDING, STUBS, Case
from gpu_faults import FAULTS
from gpu_mutations import ACCEPTS

Told = Callable[[str, object], None]


@pytest.mark.parametrize("arch", ["HOPPER", "BLACKWELL"])
@pytest.mark.parametrize("asked", [True, False])
def test_both_accept_what_is_good(arch: stub_nvidia.Arch, asked: bool) -> None:
    answers = gpu_mutations.answers(stub_nvidia.chain(arch)) if asked else None
    subject = gpu_mutations.subject(arch=arch, answers=answers)
    assert gpu_mutations.native(subject) == ACCEPTS
    assert gpu_mutations.second(subject) == ACCEPTS
    assert gpu_mutations.takes(gpu_mutations.subject()) == ACCEPTS


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, record_property: Told) -> None:
    subject = CASES[name].make()
    found = Case(
        CASES[name].make,
        gpu_mutations.native(subject),
        gpu_mutations.second(subject),
        gpu_mutations.takes(subject),
    )
    record_property("gpu-verdicts", (name, found.native, found.second))
    assert found == CASES[name]


@pytest.mark.parametrize("name", FAULTS)
def test_stub_fault(name: str, record_property: Told) -> None:
    subjects = gpu_mutations.of_fault(name)
    found = gpu_mutations.native_of_machine(subjects), gpu_mutations.second_of_machine(subjects)
    record_property("gpu-verdicts", (f"stub: {name}", *found))
    assert found == STUBS[name]


def test_no_case_is_accepted_by_all() -> None:
    """The verifiers and `tinboot gpu pin`, without which no RIM comes into an image."""
    accepted = {name for name, case in CASES.items() if {case.native, case.second, case.pin} == {ACCEPTS}}
    assert accepted == NOTED.keys()


def test_what_only_pinning_refuses() -> None:
    """Where the native verifier accepts for want of seeing the RIM, NVIDIA's sees it, but not its product."""
    blind = {name for name, case in CASES.items() if case.native == ACCEPTS != case.pin}
    assert {name for name in blind if CASES[name].second == ACCEPTS} == {"rim-of-another-product"}


def test_no_stub_fault_is_accepted_by_both_but_what_no_evidence_shows() -> None:
    assert {name for name, found in STUBS.items() if found == (ACCEPTS, ACCEPTS)} == DRIVERS.keys()
    assert {name for name, (native, second) in STUBS.items() if native == ACCEPTS != second} == PADDING
