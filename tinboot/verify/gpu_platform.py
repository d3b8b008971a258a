"""What a GPU's report states, against what was asked, the driver's own words, and the reference values."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

from tinboot.formats import gpuopaque, gpureport
from tinboot.formats.errors import Malformed, Mismatch, Refused, TinbootError, Unavailable
from tinboot.formats.gpuevidence import ARCHITECTURES, GpuEvidence
from tinboot.formats.gpureference import Kind, ReferenceValues, Rim
from tinboot.formats.gpureport import Report
from tinboot.verify.checks import Check, Unchecked
from tinboot.verify.gpu_policy import Policy

_ZERO = bytes(gpureport.DIGEST)

#: Indexes that a RIM of Hopper must have active, else it is none to compare with: those that all of NVIDIA's
#: have, 33 together. Drivers from 535 on may add 41.
HOPPER: dict[Kind, frozenset[int]] = {
    "driver": frozenset({7, *range(21, 41)}),
    "vbios": frozenset({*range(7), *range(8, 13)}),
}
#: Blackwell's RIMs have 25 and 20 active indexes, which differ by version; the fewest that are a reference.
BLACKWELL: dict[Kind, int] = {"driver": 20, "vbios": 12}


class Versions(NamedTuple):
    """What NVML says, in its own spelling; only a verifier inside the machine can ask."""

    driver: str
    vbios: str


class Subject:
    """What these checks are put to. Reading a RIM from it raises where there is none."""

    def __init__(
        self,
        evidence: GpuEvidence,
        report: Report,
        reference: ReferenceValues,
        policy: Policy,
        versions: Versions | None,
    ) -> None:
        self.evidence = evidence
        self.report = report
        self.reference = reference
        self.policy = policy
        self.versions = versions

    @cached_property
    def driver_rim(self) -> Rim:
        identifier = gpuopaque.driver_rim_id(self.report.opaque, ARCHITECTURES[self.evidence.arch])
        return self._rim("driver", identifier, f"driver {self.report.opaque.driver_version}")

    @cached_property
    def vbios_rim(self) -> Rim:
        identifier = gpuopaque.vbios_rim_id(self.report.opaque)
        return self._rim("vbios", identifier, f"VBIOS {self.report.opaque.vbios_version}")

    def _rim(self, kind: Kind, identifier: str, what: str) -> Rim:
        found = self.reference.rim(identifier)
        if found is None:
            raise Unavailable(
                f"no reference values for {what}: {identifier} is not among them",
                "tinboot gpu pin makes them from NVIDIA's RIM of that name",
            )
        if found.kind != kind:
            raise Mismatch(f"the reference values {identifier} are of a {found.kind}, expected a {kind}")
        return found

    @cached_property
    def rims(self) -> tuple[Rim, Rim] | Unchecked:
        """The driver's and the VBIOS's; where one is missing, the check of its version fails for it."""
        try:
            return self.driver_rim, self.vbios_rim
        except TinbootError:
            return Unchecked("there are no reference values to compare with")


def nonce(subject: Subject) -> Unchecked | None:
    """The report answers what was asked: the nonce that the evidence names, and the one that is demanded."""
    own, demanded = subject.report.nonce, subject.policy.nonce
    if own != subject.evidence.nonce:
        raise Mismatch(f"the report's nonce is {own.hex()}, the evidence says {subject.evidence.nonce.hex()}")
    if isinstance(demanded, Unchecked):
        return demanded
    if own != demanded:
        raise Refused(f"the report's nonce is {own.hex()}, expected {demanded.hex()}", "is it an old report?")
    return None


def driver_version(subject: Subject) -> None:
    """The report's driver is NVML's and the collector's, and there are reference values of it."""
    own, versions = subject.report.opaque.driver_version, subject.versions
    _compare("driver", own, None if versions is None else versions.driver, "NVML")
    _compare("driver", own, subject.evidence.driver_version, "the evidence")
    _of_version(subject.driver_rim, own)


def vbios_version(subject: Subject) -> None:
    """The report's VBIOS is NVML's and the collector's; there are reference values of it, for this board."""
    own, versions = subject.report.opaque.vbios_version, subject.versions
    _compare("VBIOS", own, None if versions is None else versions.vbios.upper(), "NVML")
    _compare("VBIOS", own, (subject.evidence.vbios_version or "").upper() or None, "the evidence")
    _of_version(subject.vbios_rim, own)


def _compare(what: str, own: str | None, stated: str | None, whose: str) -> None:
    if own is None:
        raise Malformed(f"the report does not state its {what} version")
    if stated is not None and own != stated:
        raise Refused(f"the report is of {what} {own}, {whose} says {stated[:80]!r}")


def _of_version(rim: Rim, own: str | None) -> None:
    """The version inside of a RIM is that of its name."""
    if rim.version.upper() != (own or "").upper():
        raise Mismatch(f"{rim.id} is of version {rim.version}, the report of {own}")


def reference_values(subject: Subject) -> Unchecked | None:
    """They cover what NVIDIA's of this architecture do, no index twice: a RIM that says little is none."""
    if isinstance(pair := subject.rims, Unchecked):
        return pair
    for rim in pair:
        if subject.evidence.arch == "HOPPER":
            if missing := HOPPER[rim.kind] - rim.measurements.keys():
                listed = ", ".join(map(str, sorted(missing)))
                raise Refused(f"{rim.id} says nothing of {listed}, which NVIDIA's of Hopper do")
        elif len(rim.measurements) < BLACKWELL[rim.kind]:
            least = BLACKWELL[rim.kind]
            raise Refused(f"{rim.id} has {len(rim.measurements)} measurements, expected at least {least}")
    if both := pair[0].measurements.keys() & pair[1].measurements.keys():
        raise Mismatch(f"{pair[0].id} and {pair[1].id} both have the index {min(both)}")
    return None


def measurements(subject: Subject) -> Unchecked | None:
    """Each index that a RIM has active is one of its alternatives.

    Index 35 too, whatever NVDEC0's status is: NVIDIA's SDK passes over it where NVDEC0 is off, its older
    verifier means to and does not, and genuine reports with NVDEC0 off do have the reference value there.
    """
    if isinstance(pair := subject.rims, Unchecked):
        return pair
    own = subject.report.measurements
    differing = sorted(
        {
            index
            for rim in pair
            for index, allowed in rim.measurements.items()
            if own[index].hex() not in allowed
        }
    )
    if differing:
        first, listed = differing[0], ", ".join(map(str, differing))
        raise Refused(
            f"{len(differing)} measurements differ from the reference values, index {listed}; "
            f"the first is {own[first].hex()[:32]}…"
        )
    return None


def uncovered(subject: Subject) -> Unchecked | None:
    """What no RIM speaks of is zero: a GPU measured nothing there."""
    if isinstance(pair := subject.rims, Unchecked):
        return pair
    covered = pair[0].measurements.keys() | pair[1].measurements.keys()
    for index, digest in enumerate(subject.report.measurements):
        if digest != _ZERO and index not in covered:
            raise Refused(
                f"the measurement {index} is {digest.hex()[:32]}…, and no reference value covers it"
            )
    return None


_MODES = {gpuopaque.MULTI_GPU: "multi-GPU", gpuopaque.PROTECTED_PCIE: "protected PCIe"}


def single_gpu(subject: Subject) -> None:
    """The GPU stands alone: neither protected PCIe nor another mode of several, which are not supported."""
    opaque = subject.report.opaque
    if opaque.protected_pcie:
        raise Refused("the GPU is in protected PCIe mode, which is not supported")
    flag = opaque.feature_flag
    if flag is not None and flag != gpuopaque.SINGLE_GPU:
        raise Refused(
            f"the GPU is in {_MODES.get(flag, f'an unknown ({flag})')} mode, which is not supported"
        )
    if any(opaque.fields.get(gpuopaque.SWITCH_PDI, b"")):
        raise Refused("the GPU names NVSwitches that it trusts, which are not supported")


CHECKS: tuple[Check[Subject], ...] = (
    Check("nonce", None, "the report answers the nonce that was asked", nonce),
    Check("driver-version", None, "the driver is NVML's and has reference values", driver_version),
    Check("vbios-version", None, "the VBIOS is NVML's and has reference values", vbios_version),
    Check("reference-values", None, "reference values cover what NVIDIA's do, once each", reference_values),
    Check("measurements", None, "every measurement is one of its reference values", measurements),
    Check("uncovered", None, "what has no reference value is zero", uncovered),
    Check("single-gpu", None, "the GPU is in no mode of several GPUs", single_gpu),
)
