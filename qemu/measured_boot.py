"""The production firmware without SEV: its own check of kernel, initrd and command line is active.

On hardware QEMU writes the hashes of the three into a page that the launch digest covers. Here the generic
loader writes the same table to the same address before the first instruction. Nothing of firmware, kernel,
initrd or command line is changed for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from tinboot.formats import kernelhashes, ovmf
from tinboot.formats.errors import Refused
from tinboot.host.launch import option

#: QEMU's option -> name below etc/boot/ in fw_cfg. From 10.0 on QEMU itself publishes their files there
#: (hw/i386/x86-common.c); an older one changes the kernel's header unless SEV is on, and so its hash. By
#: name the files are what they are, with every QEMU, and the firmware sees no difference.
_OPTIONS = {"-kernel": "kernel", "-initrd": "initrd", "-append": "cmdline"}


def hashes(listed: Sequence[str]) -> bytes:
    """The table for the kernel, initrd and command line in QEMU's arguments `listed`, as QEMU makes it."""
    _, given = _split(listed)
    if "-kernel" not in given:
        raise ValueError("there is no -kernel: QEMU makes no table without one")
    initrd = _sha256(given["-initrd"]) if "-initrd" in given else kernelhashes.NO_INITRD
    return kernelhashes.table(
        _sha256(given["-kernel"]), initrd, kernelhashes.command_line_digest(given.get("-append", ""))
    )


def under(listed: Sequence[str], firmware: Path, folder: Path, table: bytes | None) -> list[str]:
    """QEMU's arguments `listed` with `firmware` in front of their kernel, and `table` where it looks for one.

    Files that QEMU reads are written to `folder`. Options for the kernel that are not listed are blobs that
    the guest does not get; with None there is no table. Raises `Refused` for a firmware without room for it.
    """
    rest, given = _split(listed)
    rest += ["-bios", str(firmware)]
    if table is not None:
        place = ovmf.parse(firmware.read_bytes()).hash_table
        if place is None or len(table) > place[1]:
            raise Refused(f"{firmware} has no room for kernel hashes", "tinboot firmware build")
        path = folder / "kernel-hashes"
        path.write_bytes(table)
        loader = {"file": str(path), "addr": f"{place[0]:#x}", "force-raw": "on"}
        rest += ["-device", option("loader", loader)]
    for name, value in given.items():
        file = value
        if name == "-append":
            file = str(folder / "cmdline")
            Path(file).write_bytes(value.encode() + b"\0")
        rest += blob(_OPTIONS[name], Path(file))
    return rest


def blob(name: str, file: Path) -> list[str]:
    """A file below etc/boot/, from where the firmware takes what it starts."""
    return ["-fw_cfg", option(f"name=etc/boot/{name}", {"file": str(file)})]


def _split(listed: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """All other arguments, and the values of those in `_OPTIONS`, of which none may stand twice."""
    rest, given = [], {}
    words = iter(listed)
    for word in words:
        if word not in _OPTIONS:
            rest.append(word)
        elif word in given:
            raise ValueError(f"{word} stands twice")
        else:
            given[word] = next(words)
    return rest, given


def _sha256(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
