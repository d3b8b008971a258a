"""What the root has of neither a package nor the checkout: NVIDIA's Python, reference values for GPUs.

mkosi copies the tree that `stage` makes into the root, where the inventory has the last word:

    usr/lib/python3/dist-packages/pynvml.py       NVML's bindings
    usr/lib/tinboot/nv-verifier/                  the second verifier, with an environment of its own
    usr/lib/tinboot/gpu/reference-values.json     what GPUs are measured by; only where they were given
    usr/lib/tinboot/gpu/rims/                     the RIMs behind it, for the second backend; else empty
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tinboot.builder import gpu_reference

#: In the output folder of mkosi, by the name that mkosi.images/root/mkosi.conf has.
FOLDER = "payload"

DIST_PACKAGES = "usr/lib/python3/dist-packages"
GPU = "usr/lib/tinboot/gpu"
NV_VERIFIER = "usr/lib/tinboot/nv-verifier"


def stage(tree: Path, python: Path, reference: gpu_reference.Reference | None) -> None:
    """Fills the new folder `tree`. `python`: what `prepare.python_packages` gave."""
    (tree / GPU).mkdir(parents=True)
    if reference is None:
        (tree / GPU / gpu_reference.RIMS).mkdir()
    else:
        reference.write(tree / GPU)
    (tree / DIST_PACKAGES).mkdir(parents=True)
    shutil.copyfile(python / "pynvml.py", tree / DIST_PACKAGES / "pynvml.py")
    shutil.copytree(python / "nv-verifier", tree / NV_VERIFIER)
