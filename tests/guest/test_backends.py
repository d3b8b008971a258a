"""Both GPU verifiers on the same faults: each is the other's oracle, and no fault passes both.

The verdicts are printed at the end of the run (conftest.py). A change of any is a change of the table
in tests/support/backend_cases.py, to be explained in docs/gpu.md.
"""

from __future__ import annotations

from collections.abc import Callable

import gpu_mutations
import pytest
import second_verifier
import stub_nvidia
from backend_cases import CASES, DRIVERS, NOTED, PADDING, STUBS, Case
from gpu_faults import FAULTS
from gpu_mutations import ACCEPTS, Subject

from tinboot.formats.gpuevidence import ARCHITECTURES
from tinboot.formats.gpugate import Job
from tinboot.formats.halt import Refusal
from tinboot.guest import gpu_verdict
from tinboot.guest.gpu_image import Image
from tinboot.guest.nv_verifier import Place
from tinboot.guest.nvml import Collected, Gpu
from tinboot.verify import gpu_roots

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


# --- what the gate makes of the two -------------------------------------------------------------------

BOTH = ("native", "nv-local-gpu-verifier")


def decide(subject: Subject, verifiers: tuple[str, ...] = BOTH, place: Place | None = None) -> None:
    """As the gate does with one such GPU; raises `Refusal`."""
    revocation = "relying-party" if subject.answers is None else "ocsp"
    architecture = ARCHITECTURES[subject.evidence.arch]
    fingerprint = gpu_roots.one_root(subject.root).fingerprint
    gpu_verdict.decide(
        Job(1, architecture, verifiers, revocation, ""),
        Image(b"", subject.reference, subject.root, fingerprint, subject.files),
        subject.answers or (),
        Collected(
            subject.installed.driver_version,
            (
                Gpu(
                    *("", subject.installed.vbios_version),
                    *(subject.evidence.certificate, subject.evidence.evidence),
                ),
            ),
        ),
        gpu_mutations.NONCE,
        gpu_mutations.NOW,
        place or second_verifier.place(),
    )


def test_the_gate_opens_where_both_accept() -> None:
    decide(gpu_mutations.subject())
    decide(
        gpu_mutations.subject(arch="BLACKWELL", answers=gpu_mutations.answers(stub_nvidia.chain("BLACKWELL")))
    )


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.native == ACCEPTS != case.second])
def test_the_second_verifiers_no_shuts_the_gate(name: str) -> None:
    subject = CASES[name].make()
    decide(subject, ("native",))
    with pytest.raises(Refusal) as caught:
        decide(subject)
    assert caught.value.reason == "gpu-second-verifier"


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.native != ACCEPTS == case.second])
def test_the_native_verifiers_no_shuts_the_gate(name: str) -> None:
    """And the second one is not asked any more."""
    nowhere = Place(second_verifier.folder())
    with pytest.raises(Refusal) as caught:
        decide(CASES[name].make(), place=nowhere)
    assert caught.value.reason in {*gpu_verdict.REASONS.values(), "gpu-revoked", "gpu-ocsp-missing"}


def test_a_second_verifier_that_fails_shuts_the_gate() -> None:
    folder = second_verifier.folder()
    (folder / "site").mkdir()
    (folder / "child.py").write_text("raise SystemExit(1)")
    place = second_verifier.place()._replace(folder=folder)
    with pytest.raises(Refusal) as caught:
        decide(gpu_mutations.subject(), place=place)
    assert caught.value.reason == "gpu-second-verifier-failed"
