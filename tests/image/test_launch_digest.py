"""The launch digest of what really boots: this checkout's firmware, kernel and initrd."""

from __future__ import annotations

from pathlib import Path

from sevsnpmeasure import guest
from sevsnpmeasure.sev_mode import SevMode

from tinboot.builder import measure
from tinboot.builder.image import Image
from tinboot.formats import launchspec, vcpumodels
from tinboot.formats.launchdigest import Vcpu

LINE = "console=ttyS0 quiet"


def test_as_sev_snp_measure_has_it(firmware: Path, release: Image) -> None:
    kernel, initrd = (release.folder / name for name in ("kernel", "initrd"))
    hashes = measure.kernel_hashes(kernel, initrd, LINE)
    for model in ("EPYC-v4", "EPYC-Genoa"):
        vcpu = Vcpu(vcpumodels.SIGNATURES[model], launchspec.SNP_ACTIVE)
        ours = list(measure.manifest(firmware, hashes, vcpu).digests(3))
        theirs = [
            bytes(
                guest.calc_launch_digest(
                    SevMode.SEV_SNP,
                    count,
                    vcpu.signature,
                    str(firmware),
                    str(kernel),
                    str(initrd),
                    LINE,
                    vcpu.features,
                )
            )
            for count in (1, 2, 3)
        ]
        assert ours == theirs
