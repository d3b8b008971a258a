"""The last step to the initrd: two device nodes in front, and a second look at what is in it."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

from tinboot.builder import inventory, tools
from tinboot.formats import cpio
from tinboot.formats.errors import Refused

#: In front of mkosi's archive, uncompressed: an unprivileged build cannot make device nodes. The kernel
#: opens the console before devtmpfs is there, and the interpreter reads /dev/urandom on a CPU without RDRAND,
#: where getrandom(2) would fail so early (Documentation/admin-guide/devices.txt: 5:1 and 1:9).
NODES = (
    cpio.directory("dev"),
    cpio.character_device("dev/console", 5, 1),
    cpio.character_device("dev/urandom", 1, 9, mode=0o444),
)

#: What mkosi adds to every tree whether or not it is used.
_MODULES = "usr/lib/tinboot/modules"


def finish(archive: Path, lists: list[Path], values: dict[str, str]) -> bytes:
    """The initrd from mkosi's zstd-compressed cpio `archive`.

    Raises `Refused` if the archive holds a path that neither the inventory (`lists`, with `values` for
    their placeholders) nor the list of modules inside it names, or an owner or mode that is not uniform.
    """
    compressed = archive.read_bytes()
    unpacked = subprocess.run(
        [*tools.tool("zstd"), "-dc"], input=compressed, stdout=subprocess.PIPE, check=True
    ).stdout
    entries = cpio.read(unpacked)
    lines = [line for file in lists for line in inventory.parse(file.name, file.read_text("utf-8"), values)]
    loaded = {e.path: e.data for e in entries}[_MODULES].decode().split()
    allowed = {path.removeprefix("/") for path in loaded} | {_MODULES}
    unknown = [
        entry.path
        for entry in entries
        if not stat.S_ISDIR(entry.mode)
        and entry.path not in allowed
        and not any(line.pattern.fullmatch(entry.path) for line in lines)
    ]
    odd = [e.path for e in entries if not stat.S_ISLNK(e.mode) and e.mode & 0o7777 not in (0o755, 0o644)]
    if unknown or odd:
        raise Refused(f"the initrd holds what its inventory does not allow: {unknown + odd}")
    front = cpio.write(NODES)
    return front + bytes(-len(front) % 512) + compressed
