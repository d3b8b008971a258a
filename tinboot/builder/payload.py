"""What the root has of neither a package nor the checkout: NVIDIA's Python, reference values for GPUs.

mkosi copies the tree that `stage` makes into the root, where the inventory has the last word:

    usr/lib/python3/dist-packages/pynvml.py     NVML's bindings
    usr/lib/tinboot/gpu/rims/                   the RIMs, for the second backend
"""

from __future__ import annotations

import shutil
from pathlib import Path

#: In the output folder of mkosi, by the name that mkosi.images/root/mkosi.conf has.
FOLDER = "payload"

DIST_PACKAGES = "usr/lib/python3/dist-packages"
GPU = "usr/lib/tinboot/gpu"


def stage(tree: Path, trees: Path) -> None:
    """Fills the new folder `tree`. `trees`: what `nv_verifier.make` gave."""
    (tree / GPU / "rims").mkdir(parents=True)
    (tree / DIST_PACKAGES).mkdir(parents=True)
    shutil.copyfile(trees / "pynvml.py", tree / DIST_PACKAGES / "pynvml.py")
