"""TEST ONLY, never in a production image: the hook that puts stub GPUs into the guest.

It runs between 30-volumes and 40-gpu. The library, the daemon and the reference values are mounted over those
of the verified root, of which no byte changes; /usr/lib/tinboot-test/gpu in the test archive holds them.

No QEMU before 10.1 can show the guest an NVIDIA function on the PCI bus. Where the archive holds a folder
`pci`, a tmpfs with the bus's own links and those entries lies over /sys/bus/pci/devices: whoever looks
there, as 40-gpu does, reads `vendor`, `device` and `class` of functions that nothing is behind.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from stage.kernel import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID

if TYPE_CHECKING:
    from stage.state import State

FOLDER = "usr/lib/tinboot-test/gpu"
#: In the verified root -> in `FOLDER`.
FILES = {
    "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1": "libnvidia-ml.so.1",
    "usr/bin/nvidia-persistenced": "nvidia-persistenced",
}
KNOWN = "usr/lib/tinboot/gpu"  # what the image knows of GPUs
PCI = "bus/pci/devices"
#: Below /run: the library's way to the host is a device that no unit of a production image may open.
DROP_IN = "systemd/system/tinboot-attestation.service.d"


def run(state: State) -> dict[str, object]:
    own, root = f"{state.places.root}/{FOLDER}", state.places.sysroot
    for path, name in FILES.items():
        state.kernel.mount(f"{own}/{name}", resolve(root, path), "", MS_BIND)
    cover(state, f"{root}/{KNOWN}")
    copy(f"{own}/known", f"{root}/{KNOWN}")
    if os.path.isdir(f"{own}/pci"):
        put_on_bus(state, f"{own}/pci", f"{state.places.sys}/{PCI}")
    allow_ports(f"{state.places.run}/{DROP_IN}")
    return {"stub": "gpu"}


def allow_ports(folder: str) -> None:
    os.makedirs(folder)
    with open(f"{folder}/stub-gpu.conf", "w", encoding="utf-8") as file:
        file.write("[Service]\nDeviceAllow=char-virtio-portsdev rw\n")


def put_on_bus(state: State, made: str, bus: str) -> None:
    """What was there stays: its links are relative to where they lie, and lie there again."""
    links = {name: os.readlink(f"{bus}/{name}") for name in os.listdir(bus)}
    cover(state, bus)
    for name, target in links.items():
        os.symlink(target, f"{bus}/{name}")
    copy(made, bus)


def cover(state: State, folder: str) -> None:
    """An empty folder, in memory, over that one."""
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    state.kernel.mount("tinboot-test", folder, "tmpfs", flags, "mode=0755,size=16m")


def copy(source: str, target: str) -> None:
    """The tree: the archive's own files are wiped at the hand-over."""
    for name in os.listdir(source):
        if os.path.isdir(f"{source}/{name}"):
            os.mkdir(f"{target}/{name}")
            copy(f"{source}/{name}", f"{target}/{name}")
            continue
        with open(f"{source}/{name}", "rb") as file:
            data = file.read()
        with open(f"{target}/{name}", "wb") as file:
            file.write(data)


def resolve(root: str, path: str) -> str:
    """Where `path` leads with `root` for /. A mount does not follow links out of it."""
    for _ in range(8):
        if not os.path.islink(f"{root}/{path}"):
            return f"{root}/{path}"
        target = os.readlink(f"{root}/{path}")
        path = os.path.normpath(os.path.join("/", os.path.dirname(path), target)).lstrip("/")
    raise OSError(f"{path}: too many links")
