"""Shows that the firmware is a function of its inputs, and that it is one that SEV-SNP can measure.

Two builds, one after the other, differ in path, length of the path, jobs, umask, locale, time zone, hash
seed and the time of day. What is checked of the metadata is what a launch digest rests on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from tinboot.builder import compare, firmware, output, places
from tinboot.builder.firmware import Built, Conditions
from tinboot.builder.mkosi import Report
from tinboot.builder.prepare import FirmwareKit
from tinboot.formats import ovmf
from tinboot.formats.errors import Mismatch, Refused

OTHER = Conditions(
    "/another/and/a/much/longer/path/to/build/in",
    jobs=1,
    umask=0o077,
    environment={"LC_ALL": "C", "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "77", "SOURCE_DATE_EPOCH": "1"},
)


def twice(
    repository: Path, kit: FirmwareKit, report: Report, conditions: tuple[Conditions, Conditions]
) -> Iterator[Built]:
    """Yields two builds, neither from the cache; their files live until the generator ends."""
    top = places.build_folder() / "ovmf"
    try:
        top.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".check-", dir=top) as scratch:
            for name, condition in zip(("one", "other"), conditions, strict=True):
                target, log = Path(scratch, name), top / f"check-{name}.log"
                target.mkdir()
                yield firmware.compile_into(target, repository, kit, condition, log, report)
    except OSError as error:
        raise output.unavailable(error, top) from error


def require_equal(one: Built, other: Built) -> None:
    """Raises `Mismatch` with the first byte that differs."""
    at = compare.first_byte(one.path, other.path)
    if at is not None:
        sizes = f"{one.path.stat().st_size} and {other.path.stat().st_size} bytes"
        raise Mismatch(
            f"the two builds differ from byte {at} ({at:#x}) on: {one.sha256} and {other.sha256}, {sizes}",
            "something of path, jobs, umask, locale, time or memory reaches the firmware",
        )


def require_measurable(image: bytes) -> ovmf.Firmware:
    """The metadata of a firmware that an SNP guest with kernel hashes can be started from.

    Raises `Malformed` where it cannot be read, `Refused` where something is missing.
    """
    found = ovmf.parse(image)
    if found.reset_eip is None:
        raise Refused("the firmware states no reset vector for further vCPUs (SEV_ES_RESET_BLOCK)")
    ovmf.kernel_hashes_at(found)
    return found
