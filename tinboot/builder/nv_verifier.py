"""NVIDIA's Python for the root, out of locked wheels: NVML's bindings and the second GPU verifier.

    pynvml.py                   packages/nvml.lock, for the gate's own calls
    nv-verifier/child.py        tinboot/guest/nv_child.py
    nv-verifier/site/           packages/nv-verifier.lock, what the child imports of it

mkosi.images/root/nv-verifier.inventory lists every path. Nothing of a wheel runs here, and nothing is
compiled: the root's own interpreter does that, as with all its Python.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from tinboot.builder import cache, inventory, output, places, wheels
from tinboot.formats.errors import Unavailable

Report = Callable[[str], None]

#: Called with the name of a lock and how many of its wheels are there.
Progress = Callable[[str, int, int], None]

#: Trees that stay, 20 MB each: of two distributions' Pythons, and those before a lock was renewed.
_KEPT = 4

#: Lock -> where its wheels are unpacked, below the tree.
_LOCKS = {"nvml": "", "nv-verifier": "nv-verifier/site"}

_INVENTORY = "mkosi.images/root/nv-verifier.inventory"
_CHILD = "tinboot/guest/nv_child.py"


def make(python: str, report: Report, progress: Progress) -> Path:
    """The folder with the tree above for a Python such as "3.13", made if it is not there.

    Equal to the bit for equal locks, inventory and child, on every machine. Raises `Unavailable` where a
    wheel cannot be had, `Refused` where the wheels are not what the inventory lists.
    """
    if not re.fullmatch(r"3\.\d+", python):
        raise ValueError(f"a Python such as 3.13, not {python!r}")
    state = hashlib.sha256(python.encode())
    sources = [f"packages/{name}.lock" for name in _LOCKS] + [
        _INVENTORY,
        _CHILD,
        "tinboot/builder/nv_verifier.py",
    ]
    for source in sources:
        state.update((places.REPOSITORY / source).read_bytes())
    build = places.build_folder()
    final = build / f"nv-verifier-{state.hexdigest()[:16]}"
    with cache.alone(build / ".nv-verifier.lock", report):
        try:
            if not final.exists():
                cache.prune(build, "nv-verifier", _KEPT - 1)
                _make(python, final, progress)
            cache.used(final)
        except OSError as error:
            raise output.unavailable(error, build) from error
    return final


def _make(python: str, final: Path, progress: Progress) -> None:
    store = places.build_folder() / "packages" / "wheels"
    with output.scratch(final) as scratch:
        tree = scratch / "tree"
        for name, target in _LOCKS.items():
            lock = places.lock_file(name)
            wanted = wheels.parse(str(lock), lock.read_text("utf-8"))

            def count(done: int, of: int, name: str = name) -> None:
                progress(name, done, of)

            for wheel in wheels.fetch(wanted, python, store, count):
                _unpack(wheel, tree / target)
        shutil.copyfile(places.REPOSITORY / _CHILD, tree / "nv-verifier" / "child.py")
        listed = inventory.read([places.REPOSITORY / _INVENTORY], {"abi": python.replace(".", "")})
        inventory.keep(tree, listed)
        tree.chmod(0o755)
        tree.replace(final)


def _unpack(wheel: Path, target: Path) -> None:
    """Both kinds of library go to one place, as pip does with `--target`."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target)
    except zipfile.BadZipFile as error:
        raise Unavailable(f"{wheel}: {error}") from error
