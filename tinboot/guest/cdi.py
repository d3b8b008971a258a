"""What a container gets of the GPUs that the gate verified, as CDI (Container Device Interface) has it.

Device nodes as the gate made them, and NVIDIA's libraries as the root has them. nvidia-ctk would look for
both itself; it is another program that has to be trusted, and finds what is there, not what was verified.
"""

from __future__ import annotations

import json
import stat
from pathlib import Path

FOLDER = Path("/run/cdi")
DEVICES = Path("/dev")
KIND = "nvidia.com/gpu"
VERSION = "0.6.0"

_LIBRARIES = "/usr/lib/x86_64-linux-gnu"

#: Of the driver as a whole; all but the first need not be there.
_COMMON = ("nvidiactl", "nvidia-uvm")


def specification(gpus: int, devices: Path, libraries: Path) -> dict[str, object]:
    """One device for each GPU, named by its index. Raises OSError where one has no node."""
    common = [name for name in _COMMON if name == _COMMON[0] or (devices / name).exists()]
    mounts = [
        {"hostPath": str(path), "containerPath": str(path), "options": ["ro", "nosuid", "nodev", "bind"]}
        for path in sorted(libraries.glob("libnvidia-*.so.*")) + sorted(libraries.glob("libcuda.so.*"))
        if not path.is_symlink() or path.resolve().is_file()
    ]
    return {
        "cdiVersion": VERSION,
        "kind": KIND,
        "devices": [
            {"name": str(index), "containerEdits": {"deviceNodes": [_node(devices / f"nvidia{index}")]}}
            for index in range(gpus)
        ],
        "containerEdits": {
            "deviceNodes": [_node(devices / name) for name in common],
            "mounts": mounts,
        },
    }


def write(gpus: int, folder: Path = FOLDER, devices: Path = DEVICES) -> None:
    """Raises OSError where a GPU has no node; nothing is written then."""
    made = specification(gpus, devices, Path(_LIBRARIES))
    folder.mkdir(exist_ok=True)
    (folder / "nvidia.json").write_text(json.dumps(made, indent=1), "utf-8")


def _node(path: Path) -> dict[str, object]:
    found = path.stat()
    if not stat.S_ISCHR(found.st_mode):
        raise OSError(f"{path} is no character device")
    return {"path": f"/dev/{path.name}", "permissions": "rw"}
