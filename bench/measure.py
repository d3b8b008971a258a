"""`tinboot measure` beside sev-snp-measure, in one run: every vCPU count, one digest, and whole files.

    all counts     1 to 128 vCPUs: one pass of ours, 128 calls of sev-snp-measure
    one digest     from a launch manifest that was read, without any artefact
    with files     firmware, kernel and initrd to digest, beside reading and SHA-256-hashing the same files

The firmware is this checkout's, kernel and initrd are its image's. Each is run --rounds times in turn; the
table has the best.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sevsnpmeasure import guest
from sevsnpmeasure.sev_mode import SevMode

from tinboot.builder import archive, firmware, image, measure, places, prepare, recipe
from tinboot.formats import launchmanifest, launchspec, vcpumodels
from tinboot.formats.launchdigest import Vcpu

COUNTS = 128
LINE = "console=ttyS0 quiet panic=-1"
SIGNATURE = vcpumodels.SIGNATURES[launchspec.DEFAULT_MODEL]
VCPU = Vcpu(SIGNATURE, launchspec.SNP_ACTIVE)

#: At least so many times faster; at most so many milliseconds; at most so many times the hashing.
FASTER, MILLISECONDS, OF_HASHING = 100, 0.2, 1.2


def artefacts() -> tuple[Path, Path, Path]:
    """Firmware, kernel and initrd, from the caches of this checkout."""
    wanted = recipe.this_checkout(archive.distribution_of_machine(), "release")
    chain = prepare.toolchain(wanted.distribution, lambda _: None, lambda *_: None)
    built = image.build(wanted, chain, places.build_folder() / "images", lambda _: None)
    made = firmware.build(
        places.REPOSITORY, lambda: prepare.firmware_kit(lambda _: None, lambda *_: None), lambda _: None
    )
    return made.path, built.folder / "kernel", built.folder / "initrd"


def theirs(files: Sequence[Path], count: int) -> bytes:
    """One call of sev-snp-measure."""
    digest = guest.calc_launch_digest(
        SevMode.SEV_SNP, count, SIGNATURE, *map(str, files), LINE, launchspec.SNP_ACTIVE
    )
    return bytes(digest)


def ours(files: Sequence[Path]) -> launchmanifest.LaunchManifest:
    """The launch manifest, each file read once."""
    return measure.manifest(files[0], measure.kernel_hashes(files[1], files[2], LINE), VCPU)


def hashed(files: Sequence[Path]) -> None:
    """What nobody can save: reading each file and hashing it."""
    for path in files:
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256")


def best(rounds: int, work: Callable[[], object], repeat: int = 1) -> float:
    """Milliseconds of one `work`, the best of `rounds`."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(repeat):
            work()
        taken.append((time.perf_counter() - began) / repeat * 1000)
    return min(taken)


def main() -> None:
    """Prints the table, after seeing that both say the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of each (default 5)")
    rounds = parser.parse_args().rounds
    files = artefacts()
    every = [theirs(files, count) for count in range(1, COUNTS + 1)]
    if list(ours(files).digests(COUNTS)) != every:
        raise SystemExit("the digests are not those of sev-snp-measure")
    data = ours(files).dump()
    read = launchmanifest.load(data)

    all_theirs = best(rounds, lambda: [theirs(files, count) for count in range(1, COUNTS + 1)])
    all_ours = best(rounds, lambda: list(ours(files).digests(COUNTS)))
    from_manifest = best(rounds, lambda: list(launchmanifest.load(data).digests(COUNTS)), 10)
    one = best(rounds, lambda: read.launch_digest(1), 100)
    whole = best(rounds, lambda: ours(files).launch_digest(1))
    limit = best(rounds, lambda: hashed(files))
    peer = best(rounds, lambda: theirs(files, 1))

    size = sum(path.stat().st_size for path in files) / 1e6
    print(f"\nlaunch digests, best of {rounds}; firmware, kernel and initrd have {size:.1f} MB")
    print(f"{'':44}{'ms':>10}{'ratio':>9}{'limit':>9}")
    print(f"{f'1 to {COUNTS} vCPUs: sev-snp-measure, {COUNTS} calls':44}{all_theirs:10.2f}")
    print(f"{'  ours, from the files':44}{all_ours:10.2f}{all_theirs / all_ours:8.0f}x{FASTER:8}x")
    print(f"{'  ours, from the launch manifest':44}{from_manifest:10.2f}{all_theirs / from_manifest:8.0f}x")
    print(f"{'one digest from the launch manifest':44}{one:10.3f}{'':9}{MILLISECONDS:7} ms")
    print(f"{'reading and SHA-256 of the files':44}{limit:10.2f}")
    print(f"{'  ours, one digest from the files':44}{whole:10.2f}{whole / limit:9.2f}{OF_HASHING:9}")
    print(f"{'  sev-snp-measure, the same':44}{peer:10.2f}{peer / limit:9.2f}")


if __name__ == "__main__":
    main()
