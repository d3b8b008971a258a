"""The last step to the initrd: two device nodes in front, and a second look at what is in it."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tinboot.builder import inventory, modules, tools
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


def finish(archive: Path, lists: list[Path], values: dict[str, str]) -> bytes:
    """The initrd from mkosi's zstd-compressed cpio `archive`.

    Raises `Refused` if the archive holds a path that neither the inventory (`lists`, with `values` for
    their placeholders) nor the list of modules inside it names, or a mode that is not uniform.
    """
    compressed = archive.read_bytes()
    unpacked = subprocess.run(
        [*tools.tool("zstd"), "-dc"], input=compressed, stdout=subprocess.PIPE, check=True
    ).stdout
    check(cpio.read(unpacked), inventory.read(lists, values))
    front = cpio.write(NODES)
    return front + bytes(-len(front) % 512) + compressed


def check(entries: Sequence[cpio.Entry], lines: list[inventory.Line]) -> None:
    """Raises `Refused` for an entry that may not be in an initrd; the list of modules is one itself."""
    listed = next((entry.data for entry in entries if entry.path == modules.ORDER), None)
    if listed is None:
        raise Refused(f"the initrd has no {modules.ORDER}", "mkosi.images/initrd/mkosi.finalize writes it")
    allowed = {path.removeprefix("/") for path in listed.decode().split()} | {modules.ORDER}
    odd = [entry.path for entry in entries if not _plain(entry)]
    unknown = [
        entry.path
        for entry in entries
        if not stat.S_ISDIR(entry.mode)
        and entry.path not in allowed
        and not any(line.pattern.fullmatch(entry.path) for line in lines)
    ]
    if unknown or odd:
        raise Refused(f"the initrd holds what its inventory does not allow: {unknown + odd}")


def _plain(entry: cpio.Entry) -> bool:
    """A symlink, a directory of mode 0755, or a file of mode 0755 or 0644: no device, no setuid bit."""
    if stat.S_ISLNK(entry.mode):
        return True
    modes = (0o755,) if stat.S_ISDIR(entry.mode) else (0o755, 0o644)
    return (stat.S_ISDIR(entry.mode) or stat.S_ISREG(entry.mode)) and stat.S_IMODE(entry.mode) in modes
