"""Run by the initrd's own interpreter on its own files, in the build: imports all that a boot imports."""

# ruff: noqa: PTH208 (pathlib is not in the initrd)

import os
import sys

tree = sys.argv[1]
library = f"{tree}/usr/lib"
sys.path += [f"{library}/tinboot", f"{library}/python3/dist-packages"]

from stage import runner, worker  # noqa: E402, F401 - the path above is where they lie

from tinboot.formats import config, halt  # noqa: E402

for hook in sorted(os.listdir(f"{library}/tinboot/hooks")):
    worker.load_hook(f"{library}/tinboot/hooks/{hook}")
worker.describe(ValueError("é"))
for document in (b"cpus: 2\nmodels: [{name: a}]\n", b"a: &x [1.5, 'b', 2020-01-01]\nb: *x\n", b"\xff"):
    try:
        config.load(document)
    except halt.Refusal as refusal:
        halt.line(halt.Halt("try", refusal.reason, refusal.detail))

elsewhere = [
    module.__file__
    for name, module in list(sys.modules.items())
    if name != "__main__" and getattr(module, "__file__", None) and not module.__file__.startswith(tree + "/")
]
if elsewhere:
    sys.exit(f"error: the initrd's Python takes modules from elsewhere: {elsewhere}")
