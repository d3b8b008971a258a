"""The directory tree of an uncompressed EROFS image: where each file's mode and bytes lie.

`tinboot wrap` needs it for two things that mkfs.erofs has no option for: modes that do not depend on
the input's, and the data of files that were stood in for. Offsets are those of the kernel's
fs/erofs/erofs_fs.h: struct erofs_super_block, erofs_inode_compact, erofs_inode_extended, erofs_dirent.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from tinboot.formats import erofs
from tinboot.formats.errors import Malformed

_BLOCK = 4096
_SLOT = 32  # inode numbers count slots of 32 bytes

_PLAIN, _INLINE = 0, 2  # data layouts: all in blocks; the last part block behind the inode

_MAX_DIRECTORY = 64 << 20


@dataclass(frozen=True, slots=True)
class Extent:
    """`size` bytes at `offset` of the file are at `at` of the image."""

    offset: int
    at: int
    size: int


@dataclass(frozen=True, slots=True)
class Node:
    """A file or directory. `path` is relative, empty for the root; `inode` is a byte offset."""

    path: str
    inode: int
    mode: int
    size: int
    extents: tuple[Extent, ...]


def read_tree(fd: int) -> list[Node]:
    """Every directory and regular file of the image, in no particular order.

    Raises Malformed for anything but that, and for whatever `mkfs.erofs` without compression never makes.
    """
    head = _read(fd, 0, _BLOCK)
    try:
        parsed = erofs.parse_superblock(head)
    except ValueError as error:
        raise Malformed(str(error)) from None
    if parsed.block_bits != 12:
        _bad(f"its blocks are of {1 << parsed.block_bits} bytes, not 4096")
    (root,) = struct.unpack_from("<H", head, erofs.OFFSET + 14)
    (meta,) = struct.unpack_from("<I", head, erofs.OFFSET + 40)
    nodes: list[Node] = []
    pending = [("", root)]
    directories: set[int] = set()
    while pending:
        path, number = pending.pop()
        node = _node(fd, path, meta * _BLOCK + number * _SLOT)
        nodes.append(node)
        if stat.S_ISDIR(node.mode):
            if node.inode in directories:
                _bad(f"directory {path!r} is in two places")
            directories.add(node.inode)
            prefix = f"{path}/" if path else ""
            pending += [(prefix + name, child) for name, child in _children(fd, node)]
        elif not stat.S_ISREG(node.mode):
            _bad(f"{path!r} is neither a file nor a directory (mode {node.mode:o})")
    return nodes


def set_mode(fd: int, node: Node, mode: int) -> None:
    """Writes type and permission bits (i_mode, at byte 4 of both kinds of inode)."""
    os.pwrite(fd, struct.pack("<H", mode), node.inode + 4)


def write_checksum(fd: int) -> None:
    """Renews the superblock's CRC-32C, which covers the first block behind byte 1024."""
    block = bytearray(_read(fd, erofs.OFFSET, _BLOCK - erofs.OFFSET))
    (features,) = struct.unpack_from("<I", block, 8)
    if features & 1:  # EROFS_FEATURE_COMPAT_SB_CHKSUM
        block[4:8] = bytes(4)
        os.pwrite(fd, struct.pack("<I", _crc32c(block)), erofs.OFFSET + 4)


def contents(fd: int, node: Node) -> Iterator[bytes]:
    """The bytes of a file, a MiB at a time."""
    for extent in node.extents:
        for at in range(0, extent.size, 1 << 20):
            yield _read(fd, extent.at + at, min(1 << 20, extent.size - at))


def _node(fd: int, path: str, inode: int) -> Node:
    head = _read(fd, inode, 32)
    kind, xattrs, mode = struct.unpack_from("<HHH", head)
    if kind & 1:  # extended
        length = 64
        (size,) = struct.unpack_from("<Q", head, 8)
    else:
        length = 32
        (size,) = struct.unpack_from("<I", head, 8)
    (first,) = struct.unpack_from("<I", head, 16)
    if xattrs:
        _bad(f"{path!r} has extended attributes")
    layout = kind >> 1 & 7
    whole = size if layout == _PLAIN else size - size % _BLOCK
    if layout not in {_PLAIN, _INLINE}:
        _bad(f"{path!r} has the data layout {layout}: compressed or in chunks")
    extents = (Extent(0, first * _BLOCK, whole), Extent(whole, inode + length, size - whole))
    end = os.fstat(fd).st_size
    if any(e.size and e.at + e.size > end for e in extents):
        _bad(f"the data of {path!r} lies behind the end of the file")
    return Node(path, inode, mode, size, tuple(e for e in extents if e.size))


def _children(fd: int, node: Node) -> Iterator[tuple[str, int]]:
    if node.size > _MAX_DIRECTORY:
        _bad(f"directory {node.path!r} is {node.size} bytes long")
    data = b"".join(contents(fd, node))
    for at in range(0, len(data), _BLOCK):
        block = data[at : at + _BLOCK]
        count = struct.unpack_from("<H", block, 8)[0] // 12 if len(block) >= 12 else 0
        if not 0 < count * 12 <= len(block):
            _bad(f"directory {node.path!r} is damaged")
        entries = [struct.unpack_from("<QH", block, 12 * i) for i in range(count)]
        ends = [offset for _, offset in entries[1:]] + [len(block)]
        for (number, offset), end in zip(entries, ends, strict=True):
            name = os.fsdecode(block[offset:end].rstrip(b"\0"))
            if name not in {".", ".."}:
                if not name or "/" in name:
                    _bad(f"directory {node.path!r} holds the name {name!r}")
                yield name, number


def _bad(what: str) -> NoReturn:
    raise Malformed(f"the EROFS image is not one that wrap makes: {what}")


def _read(fd: int, at: int, size: int) -> bytes:
    data = os.pread(fd, size, at)
    if len(data) != size:
        _bad(f"it ends within the {size} bytes at {at}")
    return data


def _crc32c(data: bytes | bytearray) -> int:
    """CRC-32C (Castagnoli) as EROFS has it: all ones to start with, not inverted at the end."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc
