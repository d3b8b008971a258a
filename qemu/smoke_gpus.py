"""The GPUs of the smoke test: two stub GPUs, reference values from their RIMs.

What production does with NVIDIA's RIMs and roots is done here with the stub's, by the same commands; that
they are trusted, an option says each time.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import stub_gpu_files
import stub_nvidia
from gpu import Gpus
from stub_gpu_report import Contents, Kind
from stub_rim import Rim
from vfio_user_h100 import can_be_shown

from tinboot.formats import cpio, gpugate

COUNT = 2

KINDS: tuple[Kind, ...] = ("driver", "vbios")


class Pinning(NamedTuple):
    """`rims`: words for `tinboot gpu pin`, ID=FILE. The roots are PEM files."""

    rims: tuple[str, ...]
    rim_root: Path
    device_root: Path


def rims(folder: Path, now: datetime) -> Pinning:
    """The stub's RIMs as NVIDIA publishes its own, and the roots behind them, in `folder`."""
    signers = stub_nvidia.rim_chain(now)
    words = []
    for kind in KINDS:
        rim = Rim.of(kind, Contents())
        path = folder / f"{kind}.xml"
        path.write_bytes(rim.xml(signers))
        words.append(f"{rim.id}={path}")
    rim_root, device_root = folder / "stub-rim-root.pem", folder / "stub-device-root.pem"
    rim_root.write_bytes(stub_nvidia.pem(signers.der()[-1:]))
    device_root.write_bytes(stub_nvidia.pem(stub_nvidia.chain().der()[-1:]))
    return Pinning(tuple(words), rim_root, device_root)


def entries(gpus: Gpus, pinned: Path, device_root: Path) -> tuple[cpio.Entry, ...]:
    """For the test archive. `pinned`: the folder of `tinboot gpu pin`."""
    known = {p.relative_to(pinned).as_posix(): p.read_bytes() for p in pinned.rglob("*") if p.is_file()}
    known |= {stub_gpu_files.DEVICE_ROOT: device_root.read_bytes(), gpugate.MODULES_FILE: b""}
    return stub_gpu_files.entries(gpus.faults, known, on_bus=not can_be_shown())
