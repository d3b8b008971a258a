"""A folder as `tinboot gpu pin` makes it, of one driver and one VBIOS that nobody ever signed."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from tinboot.formats import gpureference
from tinboot.formats.gpureference import ReferenceValues, Rim

NAMES = {"driver": "NV_GPU_DRIVER_GH100_580.95.05", "vbios": "NV_GPU_VBIOS_1010_0200_882_96009F0001"}


def rim(kind: gpureference.Kind, data: bytes) -> Rim:
    moment = datetime(2027, 1, 1, tzinfo=UTC)
    digest = hashlib.sha256(data).hexdigest()
    version = NAMES[kind].rpartition("_")[2]
    return Rim(NAMES[kind], kind, version, "GH100", digest, "a file", "0" * 64, "x", moment, {7: ("0" * 96,)})


def write(folder: Path, kinds: tuple[gpureference.Kind, ...] = ("driver", "vbios")) -> Path:
    (folder / "rims").mkdir(parents=True)
    for kind in kinds:
        (folder / "rims" / f"{NAMES[kind]}.xml").write_text(kind)
    values = ReferenceValues(
        datetime(2026, 11, 25, tzinfo=UTC), tuple(rim(kind, kind.encode()) for kind in kinds)
    )
    (folder / "reference-values.json").write_bytes(gpureference.render(values))
    return folder
