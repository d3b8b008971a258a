"""What the test initrd holds of the stub GPUs, and what an image knows of GPUs for their evidence to pass.

    testcpio.append(initrd, [*stub_gpu_files.entries(faults, known(now)), *stub_files.entries()])

The production's /init, runner, hooks and command line stay as they are; one more hook runs before 40-gpu
(qemu/stubs/gpu_hook.py) and says so in what is sealed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

import compiled
import stub_chain
import stub_nvidia
import testcpio
from gpu import bus_address
from gpu_faults import Faults
from stub_gpu_report import Contents, Kind
from stub_nvidia import CHIPS, Arch
from stub_rim import Rim
from vfio_user_h100 import FOREIGN, H100, Functions, Identity, can_be_shown

from tinboot.formats import cpio, gpureference

HOOK = "35-stub-gpu"
FOLDER = "usr/lib/tinboot-test/gpu"

VALUES = "reference-values.json"
DEVICE_ROOT = "device-root.pem"

_SOURCES = Path(__file__).parent / "stubs"

Known = Mapping[str, bytes]


def entries(
    faults: Faults,
    known: Known,
    *,
    on_bus: bool = True,
    library: bytes | None = None,
    persistenced: bytes | None = None,
) -> tuple[cpio.Entry, ...]:
    """`known`: see below. `on_bus`: functions are made up, for QEMU shows none (`shown`, below). `library`,
    `persistenced`: in the place of what is compiled; nothing is what nobody can load or run.
    """
    files: dict[str, bytes] = {
        "libnvidia-ml.so.1": compiled.nvml().read_bytes() if library is None else library,
        "nvidia-persistenced": compiled.persistenced().read_bytes() if persistenced is None else persistenced,
        **{f"known/{name}": data for name, data in known.items()},
    }
    if on_bus:
        for address, one in functions(faults).items():
            files[f"pci/{address}/vendor"] = f"{one.vendor:#06x}\n".encode()
            files[f"pci/{address}/device"] = f"{one.device:#06x}\n".encode()
            files[f"pci/{address}/class"] = f"{one.kind:#08x}\n".encode()
    runs = ("libnvidia-ml.so.1", "nvidia-persistenced")
    return (
        testcpio.hook(HOOK, (_SOURCES / "gpu_hook.py").read_text("utf-8")),
        *(cpio.directory(f"{FOLDER}/{name}") for name in ("pci",) if on_bus),
        *(
            cpio.file(f"{FOLDER}/{name}", data, 0o755 if name in runs and data else 0o644)
            for name, data in files.items()
        ),
    )


def shown(faults: Faults) -> Functions:
    """What QEMU shows on the bus, where it can; else nothing, and `entries` makes it up."""
    return Functions(tuple(functions(faults).values()) if can_be_shown() else ())


def functions(faults: Faults) -> dict[str, Identity]:
    """What a guest finds on the bus, by the address of what is made up: QEMU's firmware gives its own."""
    count = len(faults.gpus) if faults.on_bus is None else faults.on_bus
    found = {bus_address(at): H100 for at in range(count)}
    if faults.foreign:
        found["0000:c1:00.0"] = FOREIGN
    return found


def known(now: datetime, *archs: Arch, contents: tuple[Contents, ...] = ()) -> dict[str, bytes]:
    """The files of /usr/lib/tinboot/gpu, pinned a day before `now`: names and contents.

    For good GPUs of `archs` (Hoppers, if none is named), and for others that are as `contents`.
    """
    wanted = (*map(Contents, archs or ("HOPPER",)), *contents)
    files = {DEVICE_ROOT: stub_nvidia.pem(stub_nvidia.chain("HOPPER").der()[-1:]), "modules": b""}
    rims = {}
    for one in wanted:
        for kind in ("driver", "vbios"):
            rim, xml = _signed(kind, one, now)
            rims[rim.id] = rim
            files[f"rims/{rim.id}.xml"] = xml
    created = (now - timedelta(days=1)).replace(microsecond=0)
    files[VALUES] = gpureference.render(gpureference.ReferenceValues(created, tuple(rims.values())))
    return files


def write(files: Known, folder: Path) -> None:
    """The same as files, for a gate that runs on this machine."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _signed(kind: Kind, contents: Contents, now: datetime) -> tuple[gpureference.Rim, bytes]:
    rim, chain = Rim.of(kind, contents), stub_nvidia.rim_chain(now, CHIPS[contents.arch])
    xml = rim.xml(chain)
    *issued, root = chain.forms
    ends = min(form.not_after for form in issued)
    pinned = gpureference.Rim(
        rim.id,
        kind,
        rim.version,
        rim.product,
        sha256(xml).hexdigest(),
        f"{rim.id}.xml",
        stub_chain.fingerprint(root.issue()),
        dict(chain.forms[0].subject)["CN"],
        ends.replace(microsecond=0),
        rim.active(),
    )
    return pinned, xml
