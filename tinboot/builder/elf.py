"""Which shared libraries a program or library is linked with: what else must be in a tree that holds it.

Offsets and tags are those of the System V ABI, "Object Files" and "Dynamic Linking", for 64-bit
little-endian files: Elf64_Ehdr, Elf64_Phdr, Elf64_Dyn.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from tinboot.formats.errors import Malformed, Refused

_IDENT = b"\x7fELF\x02\x01"  # magic, 64 bits, little-endian
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NULL, _DT_NEEDED, _DT_STRTAB = 0, 1, 5


def needed(data: bytes) -> list[str]:
    """The names of `DT_NEEDED` in order; none for a file that is no ELF or is linked with nothing.

    Raises Malformed for one that is cut.
    """
    if not data.startswith(_IDENT):
        return []
    try:
        return list(_needed(data))
    except (struct.error, IndexError, ValueError) as error:
        raise Malformed(f"damaged ELF file: {error}") from error


def _needed(data: bytes) -> Iterator[str]:
    (table,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    segments = []
    dynamic: list[tuple[int, int]] = []
    for at in range(table, table + size * count, size):
        kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", data, at)
        if kind == _PT_LOAD:
            segments.append((address, offset, length))
        elif kind == _PT_DYNAMIC:
            dynamic = list(struct.iter_unpack("<QQ", data[offset : offset + length]))
    entries = []
    for tag, value in dynamic:
        if tag == _DT_NULL:
            break
        entries.append((tag, value))
    strings = [value for tag, value in entries if tag == _DT_STRTAB]
    for tag, value in entries:
        if tag == _DT_NEEDED:
            at = _offset(segments, strings[0]) + value
            yield data[at : data.index(b"\0", at)].decode()


def _offset(segments: list[tuple[int, int, int]], address: int) -> int:
    for start, offset, length in segments:
        if start <= address < start + length:
            return offset + address - start
    raise ValueError(f"no segment holds {address:#x}")


def check(tree: Path) -> None:
    """Raises `Refused` with `FILE needs LIBRARY` for each library that no file of the tree is named after."""
    files = [path for path in sorted(tree.rglob("*")) if not path.is_dir()]
    names = {path.name for path in files}
    absent = [
        f"{path.relative_to(tree)} needs {library}"
        for path in files
        if not path.is_symlink()
        for library in needed(path.read_bytes())
        if library not in names
    ]
    if absent:
        raise Refused(
            "libraries are missing from the tree:\n  " + "\n  ".join(absent), "add them to the inventory"
        )
