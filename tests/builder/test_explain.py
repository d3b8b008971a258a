"""What people get wrong about a launch is found and named, alone and in pairs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from synthetic_ovmf import image

from tinboot.builder.explain import Difference, explain
from tinboot.formats import kernelhashes, launchdigest, ovmf
from tinboot.formats.errors import Mismatch
from tinboot.formats.launchdigest import EC2, Vcpu
from tinboot.formats.launchmanifest import KernelHashes, LaunchManifest

LINE = "console=ttyS0 quiet"
VCPU = Vcpu(0x800F12, 0x1)
MEANT = LaunchManifest(
    ovmf.parse(image()),
    launchdigest.firmware_digest(image()),
    KernelHashes(bytes(32), bytes([1]) * 32, kernelhashes.command_line_digest(LINE)),
    VCPU,
)


def with_line(data: bytes) -> LaunchManifest:
    assert MEANT.kernel is not None
    return MEANT._replace(kernel=MEANT.kernel._replace(command_line=hashlib.sha256(data).digest()))


def with_vcpu(vcpu: Vcpu) -> LaunchManifest:
    return MEANT._replace(vcpu=vcpu)


NEIGHBOURS = {
    "features 0x21": (with_vcpu(VCPU._replace(features=0x21)), "guest features: 0x21, not 0x1"),
    "features 0x201": (with_vcpu(VCPU._replace(features=0x201)), "guest features: 0x201, not 0x1"),
    "host kernel": (
        with_vcpu(VCPU._replace(fpu=False)),
        "host kernel: older than Linux 6.10, not 6.10 or newer",
    ),
    "model": (
        with_vcpu(VCPU._replace(signature=0xA00F11)),
        "CPU model: EPYC-Milan (0xa00f11), not EPYC (0x800f12)",
    ),
    "VMM": (with_vcpu(VCPU._replace(vmm=EC2)), "VMM: ec2, not QEMU"),
    "NUL": (with_line(LINE.encode()), "command line: hashed without its NUL, not as given"),
    "suffix": (
        with_line(f"{LINE} initrd=initrd\0".encode()),
        "command line: with the firmware's suffix initrd=initrd, not as given",
    ),
    "host's CPU": (
        with_vcpu(VCPU._replace(signature=0xA10F11)),
        "CPU model: the host's own, Genoa (0xa10f11), not EPYC (0x800f12)",
    ),
    "no kernel hashes": (MEANT._replace(kernel=None), "kernel hashes: off, not on"),
}


def test_nothing_differs() -> None:
    assert explain(MEANT.launch_digest(4), MEANT, 4) == ()


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_one_thing_differs(name: str) -> None:
    launched, expected = NEIGHBOURS[name]
    (found,) = explain(launched.launch_digest(4), MEANT, 4, command_line=LINE)
    assert str(found) == expected


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_and_the_number_of_vcpus_besides(name: str) -> None:
    launched, expected = NEIGHBOURS[name]
    count, other = explain(launched.launch_digest(64), MEANT, 4, command_line=LINE)
    assert (str(count), str(other)) == ("vCPUs: 64, not 4", expected)


def test_other_firmware() -> None:
    old = image(seed=1)
    other = (Path("old.fd"), ovmf.parse(old), launchdigest.firmware_digest(old))
    launched = MEANT._replace(firmware=other[1], digest=other[2])
    assert explain(launched.launch_digest(2), MEANT, 2, others=[other]) == (
        Difference("firmware", "old.fd", "the one given"),
    )
    with pytest.raises(Mismatch, match=r"none of \d+ launches"):
        explain(launched.launch_digest(2), MEANT, 2)


def test_without_the_text_the_neighbours_of_the_command_line_are_unknown() -> None:
    launched, _ = NEIGHBOURS["NUL"]
    with pytest.raises(Mismatch, match="none of"):
        explain(launched.launch_digest(1), MEANT, 1)


def test_firmware_without_kernel_hashes_is_no_candidate_and_no_failure() -> None:
    bare = image(hash_table=None)
    other = (Path("bare.fd"), ovmf.parse(bare), launchdigest.firmware_digest(bare))
    launched = MEANT._replace(firmware=other[1], digest=other[2], kernel=None)
    found = explain(launched.launch_digest(1), MEANT, 1, others=[other])
    assert [one.what for one in found] == ["firmware", "kernel hashes"]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (" initrd=initrd", "without the firmware's suffix initrd=initrd"),
        ("\n", "without the line feed at its end"),
    ],
)
def test_a_command_line_that_says_too_much(more: str, expected: str) -> None:
    """As copied from the guest's /proc/cmdline, or from a file."""
    meant = with_line(f"{LINE}{more}\0".encode())
    (found,) = explain(MEANT.launch_digest(1), meant, 1, command_line=LINE + more)
    assert str(found) == f"command line: {expected}, not as given"
