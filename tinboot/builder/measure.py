"""From firmware, kernel and initrd to a launch manifest: each file is read once."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tinboot.formats import cmdline, kernelhashes, launchdigest, ovmf, vcpumodels
from tinboot.formats.errors import Malformed, Refused, Unavailable
from tinboot.formats.launchdigest import Vcpu
from tinboot.formats.launchmanifest import KernelHashes, LaunchManifest
from tinboot.formats.launchspec import Measured


def read_firmware(path: Path) -> tuple[ovmf.Firmware, bytes]:
    """What the image says of itself, and the digest after its pages."""
    try:
        with path.open("rb") as file:
            image = file.read(ovmf.MAX_SIZE + 1)
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error
    try:
        return ovmf.parse(image), launchdigest.firmware_digest(image)
    except Malformed as error:
        raise Malformed(f"{path}: {error.message}", "is this an OVMF image, whole?") from error


def kernel_hashes(kernel: Path, initrd: Path | None, command_line: str) -> KernelHashes:
    """The three hashes of a direct boot; without an initrd that of nothing."""
    return KernelHashes(
        file_sha256(kernel),
        kernelhashes.NO_INITRD if initrd is None else file_sha256(initrd),
        kernelhashes.command_line_digest(command_line),
    )


def manifest(firmware: Path, kernel: KernelHashes | None, vcpu: Vcpu) -> LaunchManifest:
    """Of a launch with the image at `firmware`."""
    parsed, digest = read_firmware(firmware)
    return LaunchManifest(parsed, digest, kernel, vcpu)


def of(measured: Measured) -> LaunchManifest:
    """Of what a launch specification says is measured. Raises `Refused` without firmware."""
    if measured.firmware is None:
        raise Refused("a launch without firmware has no digest", "name an AmdSev OVMF")
    hashes = kernel_hashes(
        Path(measured.kernel), Path(measured.initrd), cmdline.render(measured.command_line)
    )
    signature = vcpumodels.SIGNATURES[measured.vcpu_model]
    return manifest(Path(measured.firmware), hashes, Vcpu(signature, measured.guest_features, measured.vmm))


def file_sha256(path: Path) -> bytes:
    """SHA-256 of a file, in bounded memory."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error
