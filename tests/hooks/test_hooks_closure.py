"""The initrd's inventory names exactly the Python modules that runner, hooks and formats open."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tinboot.builder import tools

ROOT = Path(__file__).parents[2]
INVENTORY = ROOT / "mkosi.images/initrd/inventory"
LIBRARY = "usr/lib/{python}/"
#: Folder in the image -> what `closure.py` prints in its place; the longer first.
PLACES = {
    "usr/lib/tinboot/stage/": "initrd-hooks/stage/",
    "usr/lib/tinboot/": "",
    "usr/lib/python3/dist-packages/": "",
}


def opened(python: list[str]) -> set[str]:
    closure, packages = ROOT / "tests/hooks/closure.py", Path(yaml.__file__).parents[1]
    command = [*python, "-ISEB", str(closure), str(ROOT), str(packages)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {path for path in done.stdout.split() if path.endswith(".py")}


def listed() -> set[str]:
    """Modules of the inventory, by the path that `closure.py` prints."""
    found = set()
    for line in INVENTORY.read_text().splitlines():
        path = line.partition("#")[0].strip()
        if path.endswith(".pyc"):
            place = next((place for place in PLACES if path.startswith(place)), "")
            found.add(PLACES.get(place, "") + path.removeprefix(place).removesuffix("c"))
    return found


def test_our_own_and_pyyaml() -> None:
    ours = ("initrd-hooks/", "tinboot/", "yaml/")
    assert {p for p in listed() if p.startswith(ours)} == {
        p for p in opened([sys.executable]) if p.startswith(ours)
    }


def test_standard_library_of_the_images_python() -> None:
    if tools.tools_tree() is None:
        pytest.skip("the image's Python is in the tools tree: run `tinboot setup`")
    names = {path.partition("/usr/lib/python3.13/")[2] for path in opened(tools.tool("python3"))}
    assert {p.removeprefix(LIBRARY) for p in listed() if p.startswith(LIBRARY)} == names - {""}
