"""The initrd holds the reviewed list and nothing else; each byte is a package's or the checkout's."""

from __future__ import annotations

import lzma
import stat
from pathlib import Path
from posixpath import dirname, join, normpath

from artefacts import Packaged, compiled

from tinboot.builder import inventory, modules, places, recipe
from tinboot.builder.image import Image
from tinboot.formats import cpio

Entries = dict[str, cpio.Entry]
Packages = dict[str, Packaged]

#: Folder in the initrd -> folder of the checkout; the longer first.
OURS = {
    "usr/lib/tinboot/hooks/": "initrd-hooks/",
    "usr/lib/tinboot/stage/": "initrd-hooks/stage/",
    "usr/lib/tinboot/tinboot/": "tinboot/",
}
NODES = {"dev/console": (5, 1), "dev/urandom": (1, 9)}


def values(wanted: recipe.Recipe) -> dict[str, str]:
    return {"python": recipe.PYTHON[wanted.distribution], "triplet": "x86_64-linux-gnu"}


def ours(path: str) -> Path | None:
    """The file of the checkout that a path of the initrd comes from."""
    if path == "init":
        return places.REPOSITORY / "initrd-hooks/init"
    for prefix, folder in OURS.items():
        if path.startswith(prefix):
            return places.REPOSITORY / folder / path.removeprefix(prefix)
    return None


def loaded(initrd: Entries) -> list[str]:
    return [line.removeprefix("/") for line in initrd[modules.ORDER].data.decode().split()]


def files(initrd: Entries) -> dict[str, bytes]:
    """Regular files but for modules and their list."""
    rest = initrd.keys() - set(loaded(initrd)) - {modules.ORDER}
    return {path: initrd[path].data for path in rest if stat.S_ISREG(initrd[path].mode)}


def test_small(release: Image, initrd: Entries) -> None:
    """A fifth of the files and 0.6 MB are modules for networks and containers."""
    assert (release.folder / "initrd").stat().st_size <= 5_100_000
    assert sum(not stat.S_ISDIR(entry.mode) for entry in initrd.values()) <= 130


def test_exactly_the_inventory(initrd: Entries, wanted: recipe.Recipe) -> None:
    lines = inventory.read(wanted.inventories("initrd"), values(wanted))
    others = {path for path, entry in initrd.items() if not stat.S_ISDIR(entry.mode)} - NODES.keys()
    others -= {*loaded(initrd), modules.ORDER}
    assert [path for path in others if not any(line.pattern.fullmatch(path) for line in lines)] == []
    assert [line.text for line in lines if not any(line.pattern.fullmatch(path) for path in others)] == []


def test_no_empty_directory(initrd: Entries) -> None:
    parents = {dirname(path) for path in initrd}
    empty = [path for path, e in initrd.items() if stat.S_ISDIR(e.mode) and path not in parents and path]
    assert empty == []


def test_modes_and_devices(initrd: Entries) -> None:
    special = {path: entry.rdev for path, entry in initrd.items() if stat.S_ISCHR(entry.mode)}
    assert special == NODES
    kinds = (stat.S_ISDIR, stat.S_ISREG, stat.S_ISLNK, stat.S_ISCHR)
    assert [path for path, entry in initrd.items() if not any(kind(entry.mode) for kind in kinds)] == []
    programs = {p for p, e in initrd.items() if stat.S_ISREG(e.mode) and e.mode & 0o111}
    assert {path for path in programs if stat.S_IMODE(initrd[path].mode) != 0o755} == set()
    interpreter = next(path for path in programs if path.startswith("usr/bin/python3."))
    runnable = {f"usr/lib/x86_64-linux-gnu/{name}" for name in ("ld-linux-x86-64.so.2", "libc.so.6")}
    hooks = {path for path in initrd if path.startswith("usr/lib/tinboot/hooks/")}
    assert programs - hooks == {"init", interpreter, *runnable}


def test_links_lead_to_something(initrd: Entries) -> None:
    links = {path: entry.data.decode() for path, entry in initrd.items() if stat.S_ISLNK(entry.mode)}
    targets = {path: normpath(join("/", dirname(path), target)).lstrip("/") for path, target in links.items()}
    assert {path: target for path, target in targets.items() if target not in initrd} == {}


def test_files_of_packages_are_unchanged(initrd: Entries, initrd_packages: Packages) -> None:
    theirs = {path: data for path, data in files(initrd).items() if ours(path) is None}
    plain = {path: data for path, data in theirs.items() if not path.endswith(".pyc")}
    assert len(plain) >= 8
    assert plain == {path: initrd_packages[path].data for path in plain}


def test_files_of_the_checkout_are_unchanged(initrd: Entries) -> None:
    sources = {path: ours(path) for path in files(initrd) if not path.endswith(".pyc")}
    found = {path: source for path, source in sources.items() if source is not None}
    assert len(found) >= 6
    assert {path: initrd[path].data for path in found} == {p: s.read_bytes() for p, s in found.items()}


def test_modules_are_the_kernel_packages(initrd: Entries, kernel_packages: Packages) -> None:
    listed = loaded(initrd)
    assert len(listed) >= 5
    for path in listed:
        assert initrd[path].data == lzma.decompress(kernel_packages[path + ".xz"].data), path
    reviewed = (places.REPOSITORY / "mkosi.images/initrd/modules.debian").read_text()
    wanted = [name for name in modules.parse("modules.debian", reviewed) if name not in modules.PARTS]
    assert [path.partition("/kernel/")[2] for path in listed] == [
        name.removeprefix("kernel/") for name in wanted
    ]


def test_bytecode_is_that_of_the_sources(initrd: Entries, initrd_packages: Packages, tmp_path: Path) -> None:
    """Compiled again by the same interpreter from the package's or the checkout's source (docs/adr/0003)."""
    listed = sorted(path for path in files(initrd) if path.endswith(".pyc"))
    assert len(listed) >= 50
    sources = []
    for number, path in enumerate(listed):
        source = ours(path.removesuffix("c"))
        if source is None:
            source = tmp_path / f"{number}.py"
            source.write_bytes(initrd_packages[path.removesuffix("c")].data)
        sources.append((source, "/" + path.removesuffix("c")))
    for path, expected in zip(listed, compiled(sources), strict=True):
        assert initrd[path].data == expected, path


def test_bytecode_is_never_checked_against_a_source(initrd: Entries) -> None:
    """Flags 1: hash-based, unchecked (PEP 552)."""
    flags = {data[4:8] for path, data in files(initrd).items() if path.endswith(".pyc")}
    assert flags == {b"\1\0\0\0"}


def test_nothing_of_the_tests(initrd: Entries) -> None:
    words = ("test", "stub", "debug", "qemu")
    assert [path for path in initrd if any(word in path.lower() for word in words)] == []
    marked = [p for p, e in initrd.items() if b"NOT AMD" in e.data or b"TINBOOT STUB" in e.data]
    assert marked == []
