"""Which launch a digest belongs to: tries what people really get wrong, and names the nearest that fits.

Every combination of the neighbours is computed, all vCPU counts in one pass each. The answer is the
combination with the fewest differences from the launch that was meant.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinboot.formats import kernelhashes, launchspec, ovmf, vcpumodels
from tinboot.formats.cmdline import FIRMWARE_SUFFIX
from tinboot.formats.errors import Mismatch, Refused
from tinboot.formats.launchdigest import QEMU, VMMS
from tinboot.formats.launchmanifest import KernelHashes, LaunchManifest


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that was otherwise than meant: what, what it was, what was meant."""

    what: str
    found: str
    meant: str

    def __str__(self) -> str:
        return f"{self.what}: {self.found}, not {self.meant}"


#: A firmware that may have been used instead: its path, parts, and the digest after its pages.
Firmware = tuple[Path, ovmf.Firmware, bytes]


#: One value of an ingredient, and how it differs; None for the one that was meant.
_Kernel = tuple[Difference | None, KernelHashes | None]


def explain(
    wanted: bytes,
    meant: LaunchManifest,
    vcpus: int,
    *,
    command_line: str | None = None,
    others: Sequence[Firmware] = (),
    most: int = launchspec.MAX_VCPUS,
) -> tuple[Difference, ...]:
    """What differs between `meant` with `vcpus` vCPUs and the launch whose digest is `wanted`; () if nothing.

    `command_line`: the text, where known: the hash alone does not tell the neighbours of it. Raises
    `Mismatch` if no combination fits.
    """
    best: tuple[Difference, ...] | None = None
    tried = 0
    for differences, candidate in _candidates(meant, command_line, others):
        if best is not None and len(differences) >= len(best):
            continue
        try:
            for count, digest in enumerate(candidate.digests(most), 1):
                tried += 1
                if digest != wanted:
                    continue
                found = differences
                if count != vcpus:
                    found = (Difference("vCPUs", str(count), str(vcpus)), *differences)
                if best is None or len(found) < len(best):
                    best = found
        except Refused:  # a firmware without kernel hashes, or without a start for more than one vCPU
            continue
    if best is None:
        varied = ", ".join(_varied(meant, most, command_line, others))
        raise Mismatch(
            f"the digest is of none of {tried} launches near the one that was meant, with {varied}",
            "firmware, kernel, initrd or command line are others than those given; compare their SHA-256 on "
            "the host, and give further firmware with --other-ovmf",
        )
    return best


def _varied(
    meant: LaunchManifest, most: int, command_line: str | None, others: Sequence[Firmware]
) -> Iterator[str]:
    """What `_candidates` tries, in words."""
    yield f"1 to {most} vCPUs"
    yield "each of QEMU's CPU models, the host's own where it is known"
    yield f"guest features {' '.join(f'{value:#x}' for value in launchspec.FEATURES)}"
    yield "hosts before and after Linux 6.10"
    yield f"VMMs {' '.join(VMMS)}"
    if meant.kernel is not None:
        yield "kernel hashes and initrd left out"
        unknown = "no slip in the command line, whose text is unknown"
        yield unknown if command_line is None else "slips in the command line"
    yield f"{len(others)} further firmware" if others else "no other firmware"


def _candidates(
    meant: LaunchManifest, command_line: str | None, others: Sequence[Firmware]
) -> Iterator[tuple[tuple[Difference, ...], LaunchManifest]]:
    """Each launch near `meant`, with how it differs."""
    firmware: list[tuple[Difference | None, ovmf.Firmware, bytes]] = [(None, meant.firmware, meant.digest)]
    firmware += [
        (Difference("firmware", str(path), "the one given"), parsed, digest)
        for path, parsed, digest in others
    ]
    vcpu = meant.vcpu
    for (changed, parsed, digest), (loaded, kernel), (
        model,
        signature,
    ), features, fpu, vmm in itertools.product(
        firmware,
        _kernels(meant, command_line),
        _signatures(vcpu.signature),
        dict.fromkeys((vcpu.features, *launchspec.FEATURES)),
        (vcpu.fpu, not vcpu.fpu),
        dict.fromkeys((vcpu.vmm, *VMMS)),
    ):
        if vmm != QEMU and (signature != vcpu.signature or fpu != vcpu.fpu):
            continue  # neither is in their first state
        listed = (
            changed,
            loaded,
            model,
            _unless(features == vcpu.features, "guest features", f"{features:#x}", f"{vcpu.features:#x}"),
            _unless(fpu == vcpu.fpu, "host kernel", *_GENERATIONS[fpu]),
            _unless(vmm == vcpu.vmm, "VMM", vmm, vcpu.vmm),
        )
        changed_vcpu = vcpu._replace(signature=signature, features=features, fpu=fpu, vmm=vmm)
        candidate = LaunchManifest(parsed, digest, kernel, changed_vcpu)
        yield tuple(difference for difference in listed if difference is not None), candidate


_GENERATIONS = {
    True: ("Linux 6.10 or newer", "an older one"),
    False: ("older than Linux 6.10", "6.10 or newer"),
}


def _unless(same: bool, what: str, found: str, meant: str) -> Difference | None:
    return None if same else Difference(what, found, meant)


def _signatures(meant: int) -> Iterator[tuple[Difference | None, int]]:
    yield None, meant
    names: dict[int, list[str]] = {}
    for name, value in vcpumodels.SIGNATURES.items():
        names.setdefault(value, []).append(name)
    for processor, value in vcpumodels.PROCESSORS.items():
        names.setdefault(value, []).append(f"the host's own, {processor}")
    for value, listed in names.items():
        if value != meant:
            was = names.get(meant, [f"signature {meant:#x}"])[0]
            yield Difference("CPU model", f"{listed[0]} ({value:#x})", f"{was} ({meant:#x})"), value


def _kernels(meant: LaunchManifest, command_line: str | None) -> Iterator[_Kernel]:
    yield None, meant.kernel
    if meant.kernel is None:
        return
    yield Difference("kernel hashes", "off", "on"), None
    if meant.kernel.initrd != kernelhashes.NO_INITRD:
        without = meant.kernel._replace(initrd=kernelhashes.NO_INITRD)
        yield Difference("initrd", "none", "the one given"), without
    if command_line is None:
        return
    text = command_line.encode(errors="surrogateescape")
    suffix = FIRMWARE_SUFFIX.encode()
    slips = [
        ("hashed without its NUL", text),
        (f"with the firmware's suffix{FIRMWARE_SUFFIX}", text + suffix + b"\0"),
        ("with the suffix and without its NUL", text + suffix),
        ("with a line feed at its end", text + b"\n\0"),
        ("empty", b"\0"),
    ]
    if text.endswith(suffix):  # copied from the guest's /proc/cmdline
        slips.append((f"without the firmware's suffix{FIRMWARE_SUFFIX}", text.removesuffix(suffix) + b"\0"))
    if text.endswith(b"\n"):
        slips.append(("without the line feed at its end", text.rstrip(b"\n") + b"\0"))
    for what, data in slips:
        changed = meant.kernel._replace(command_line=hashlib.sha256(data).digest())
        yield Difference("command line", what, "as given"), changed
