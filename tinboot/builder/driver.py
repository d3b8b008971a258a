"""NVIDIA's driver in a root: its kernel modules, unpacked and in load order; all its parts of one version.

A list names modules, one a line, in the order in which they are wanted; `#` begins a comment. What each needs
goes before it, what the kernel has built in is passed over, what is neither built in nor there fails the
build. Unlike the initrd's, these may be many and change with the driver, so the list names no paths.

mkosi's finalize script of the root runs `python3 -m tinboot.builder.driver LIST MODULES... TREE`, with the
folder of each kernel that the root has modules of: it must be one.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from tinboot.builder import modules
from tinboot.formats.errors import Malformed, Refused
from tinboot.formats.manifest import Package

#: In the root: the modules that 40-gpu loads, one absolute path a line.
ORDER = "usr/lib/tinboot/gpu/modules"

#: The version stands in the name of each; GPUs of both architectures take this firmware.
_NVML = "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.*.*"
_FIRMWARE = "usr/lib/firmware/nvidia/*/gsp_ga10x.bin"

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_VERSION = re.compile(rb"\0version=([0-9]+(?:\.[0-9]+)+)\0")
#: Packages of one kernel; those of Ubuntu's that only follow another have a word where its version stands.
_KERNEL = re.compile(r"linux-(?:image-(?:unsigned-)?|modules-nvidia-[0-9]+-server-open-)([0-9].*)")
_LIBRARY = re.compile(r"libnvidia-compute-[0-9]+-server")


def parse(file: str, text: str) -> list[str]:
    """The names, with underscores as the kernel writes them; raises `Malformed` with file and line."""
    listed: list[str] = []
    for number, raw in enumerate(text.splitlines(), 1):
        entry = raw.split("#", 1)[0].strip()
        if not entry:
            continue
        name = entry.replace("-", "_")
        if _NAME.fullmatch(entry) is None or name in listed:
            raise Malformed(f"{file}:{number}: {entry!r} is no module's name, or stands there twice")
        listed.append(name)
    return listed


def order(listed: list[str], builtin: set[str], needs: dict[str, list[str]]) -> list[str]:
    """Paths in load order. `builtin`, `needs`: of modules.builtin and modules.dep; raises `Refused`."""
    paths = {_name(path): path for path in needs}
    known = {_name(path) for path in builtin}
    absent = [name for name in listed if name not in paths and name not in known]
    if absent:
        raise Refused(
            f"of the driver's modules these are neither built in nor there: {', '.join(absent)}",
            "a kernel or driver package changed: change the list",
        )
    loaded: list[str] = []
    for name in listed:
        if name in paths:
            _add(paths[name], needs, loaded)
    return loaded


def _add(path: str, needs: dict[str, list[str]], loaded: list[str]) -> None:
    for other in needs[path]:
        if other not in loaded:
            _add(other, needs, loaded)
    if path not in loaded:
        loaded.append(path)


def _name(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(".ko").replace("-", "_")


def stage(listed: list[str], source: Path, tree: Path) -> None:
    """From `source`, a folder usr/lib/modules/<version>, into the root's `tree`.

    Raises `Refused` for a module that is not there, and for parts of the driver of different versions.
    """
    builtin = set((source / "modules.builtin").read_text("utf-8").split())
    needs = modules.dependencies((source / "modules.dep").read_text("utf-8"))
    paths = []
    for module in order(listed, builtin, needs):
        target = tree / "usr/lib/modules" / source.name / module
        data = modules.unpacked(source, module)
        modules.write(target, data, tree)
        paths.append(f"/{target.relative_to(tree)}\n")
        if _name(module) == "nvidia":
            _one_version(tree, data)
    modules.write(tree / ORDER, "".join(paths).encode(), tree)


def _one_version(tree: Path, module: bytes) -> None:
    found = _VERSION.search(module)
    version = found[1].decode() if found else "none that it tells"
    libraries = [path.name.removeprefix("libnvidia-ml.so.") for path in tree.glob(_NVML)]
    firmware = [path.parent.name for path in tree.glob(_FIRMWARE)]
    if libraries != [version] or firmware != [version]:
        raise Refused(
            f"parts of NVIDIA's driver are of different versions: nvidia.ko {version}, "
            f"libnvidia-ml {libraries}, GSP firmware {firmware}",
            "renew the lock, so that all of them come from one day's archive",
        )


def version(packages: Iterable[Package]) -> str | None:
    """The driver's version in an image of these packages; None where it has no driver."""
    found = [p.version for p in packages if p.image == "root" and _LIBRARY.fullmatch(p.name)]
    return found[0].partition("-")[0].rpartition(":")[2] if found else None


def check_kernel(packages: Iterable[Package]) -> None:
    """Raises `Refused` unless the root's driver is for the kernel that is booted, and for no other."""
    of: dict[str, set[str]] = {"root": set(), "kernel": set()}
    for package in packages:
        if package.image in of and (match := _KERNEL.fullmatch(package.name)):
            of[package.image].add(match[1])
    if of["root"] != of["kernel"]:
        driver, kernel = (", ".join(sorted(found)) or "none that is named" for found in of.values())
        raise Refused(
            f"the driver's modules are for the kernel {driver}, the image's is {kernel}",
            "the archive's driver follows its kernel some days later: renew the lock then",
        )


def main(arguments: list[str]) -> None:
    """`LIST MODULES... TREE`"""
    listed, *sources, tree = map(Path, arguments)
    if len(sources) != 1:
        names = " ".join(source.name for source in sources)
        sys.exit(f"error: the root has modules of {len(sources)} kernels: {names}")
    try:
        stage(parse(str(listed), listed.read_text("utf-8")), sources[0], tree)
    except (Malformed, Refused) as error:
        sys.exit(f"error: {error.message}\nhint: {error.hint}")


if __name__ == "__main__":
    main(sys.argv[1:])
