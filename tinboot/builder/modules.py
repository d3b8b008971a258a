"""The initrd's kernel modules: those that a reviewed list names, unpacked, in the order of the list.

One module a line, relative to /usr/lib/modules/<version>, without what it is compressed with; `#` begins a
comment. A line `--` parts what the root needs to be mounted from what loads after the hooks, `-- services`
this from what only a config with services needs. What the kernel has built in is passed over. A module that
is neither built in nor there, or that needs one that is not loaded before it, fails the build: it would fail
every boot.

mkosi's finalize script of the initrd runs `python3 -m tinboot.builder.modules LIST MODULES TREE`.
"""

from __future__ import annotations

import lzma
import re
import subprocess
import sys
from pathlib import Path

from tinboot.formats.errors import Malformed, Refused

#: In the initrd: the modules to load, one absolute path a line; an empty line where the list parts them.
ORDER = "usr/lib/tinboot/modules"

#: The lines that part the list, in this order.
PARTS = ("--", "-- services")

_NAME = re.compile(r"kernel/[a-z0-9_/-]+\.ko")


def parse(file: str, text: str) -> list[str]:
    """Raises `Malformed` with file and line, and for a list that has not all `PARTS`."""
    listed: list[str] = []
    for number, raw in enumerate(text.splitlines(), 1):
        entry = raw.split("#", 1)[0].strip()
        if not entry:
            continue
        if (_NAME.fullmatch(entry) is None and entry not in PARTS) or entry in listed:
            raise Malformed(f"{file}:{number}: {entry!r} is no module's path, or stands there twice")
        listed.append(entry)
    if tuple(entry for entry in listed if entry in PARTS) != PARTS:
        raise Malformed(f"{file}: expected the lines {' and '.join(PARTS)}, in this order")
    return listed


def to_load(listed: list[str], builtin: set[str], needs: dict[str, list[str]]) -> list[str]:
    """The modules of `listed` that are files, and `PARTS`. `needs`: of modules.dep; raises `Refused`."""
    loaded: list[str] = []
    problems = []
    for module in listed:
        if module in builtin:
            continue
        if module in PARTS:
            loaded.append(module)
            continue
        if module not in needs:
            problems.append(f"{module} is neither built in nor there")
        problems += [
            f"{module} needs {other}, which no line before it names"
            for other in needs.get(module, [])
            if other not in loaded
        ]
        loaded.append(module)
    if problems:
        raise Refused(
            "the kernel is not what the list of modules is for:\n  " + "\n  ".join(problems),
            "a kernel package changed: change the list",
        )
    return loaded


def dependencies(text: str) -> dict[str, list[str]]:
    """modules.dep (man 5 modules.dep), without what the files are compressed with."""
    plain = re.sub(r"(\.ko)\.[a-z0-9]+", r"\1", text)
    pairs = (line.partition(":") for line in plain.splitlines())
    return {module: others.split() for module, _, others in pairs}


def stage(listed: list[str], modules: Path, tree: Path) -> None:
    """From `modules`, a folder usr/lib/modules/<version>, into the initrd's `tree`."""
    builtin = set((modules / "modules.builtin").read_text("utf-8").split())
    needs = dependencies((modules / "modules.dep").read_text("utf-8"))
    order = []
    for module in to_load(listed, builtin, needs):
        if module in PARTS:
            order.append("\n")
            continue
        target = tree / "usr/lib/modules" / modules.name / module
        write(target, unpacked(modules, module), tree)
        order.append(f"/{target.relative_to(tree)}\n")
    write(tree / ORDER, "".join(order).encode(), tree)


def write(target: Path, data: bytes, tree: Path) -> None:
    """A file below `tree` and its folders, with the modes that everything in an image has."""
    for folder in (target.parent, *target.parent.parents):
        if folder == tree:
            break
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
    target.write_bytes(data)
    target.chmod(0o644)


def unpacked(modules: Path, module: str) -> bytes:
    """A module of the folder `modules`, by the name that modules.dep has, less what compresses it."""
    plain, xz, zstd = (modules / (module + suffix) for suffix in ("", ".xz", ".zst"))
    if plain.exists():
        return plain.read_bytes()
    if xz.exists():
        return lzma.decompress(xz.read_bytes())
    return subprocess.run(["zstd", "-dcq", zstd], stdout=subprocess.PIPE, check=True).stdout


def main(arguments: list[str]) -> None:
    """`LIST MODULES TREE`"""
    listed, modules, tree = map(Path, arguments)
    try:
        stage(parse(str(listed), listed.read_text("utf-8")), modules, tree)
    except (Malformed, Refused) as error:
        sys.exit(f"error: {error.message}\nhint: {error.hint}")


if __name__ == "__main__":
    main(sys.argv[1:])
