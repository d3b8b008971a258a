"""The EROFS image of a volume: what mkfs.erofs makes of a plain copy of the source, without the copy.

mkfs.erofs reads a tree of hard links to the weights. A file that cannot be linked (it is on another file
system, of another owner, or a second name of one file, which mkfs.erofs would store as one) is stood in
for by a hole of its size, and copied into its place in the image afterwards. Modes, which mkfs.erofs
takes from the input, are set in the image: 0755 for directories and what is executable, else 0644.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tinboot.builder import erofs_image, erofs_tree
from tinboot.builder.erofs_image import Progress
from tinboot.builder.tools import Tool
from tinboot.builder.weights_source import Source, SourceFile
from tinboot.formats.errors import Malformed, Unavailable
from tinboot.formats.verity import BLOCK


def write_image(
    content: Source, uuid: str, mkfs: Tool, made: Path, staging: Path, progress: Progress | None = None
) -> None:
    """Writes `made`, a whole number of blocks; `staging`, in a private directory beside the
    output, must not exist and is left behind.

    Raises Unavailable if mkfs.erofs fails or a source file changes, OSError on I/O errors.
    """
    need = sum(-(-f.size // BLOCK) * BLOCK for f in content.files)
    erofs_image.require_space(need, len(content.files), staging.parent.parent)
    copied = _stage(content, staging)
    # -x-1: extended attributes (SELinux labels, notes of a download) are no part of a model
    options = ["--quiet", "-x-1", "--all-root", "-T0", f"-U{uuid}"]
    erofs_image.run([*mkfs.argv, *options, str(made), str(staging)], made, progress)
    _finish_image(made, uuid, content, copied)


def _stage(content: Source, staging: Path) -> list[SourceFile]:
    """Fills `staging`; returns the files that are only stood in for."""
    staging.mkdir()
    for directory in content.directories:
        (staging / directory).mkdir(parents=True, exist_ok=True)
    copied: list[SourceFile] = []
    linked: set[tuple[int, int]] = set()
    for file in content.files:
        path = staging / file.name
        state = file.origin.stat()
        inode = (state.st_dev, state.st_ino)
        try:
            if inode in linked:
                raise FileExistsError
            path.hardlink_to(file.origin)
            linked.add(inode)
        except OSError:
            with path.open("wb") as stand_in:
                stand_in.truncate(file.size)
            copied.append(file)
    return copied


def _finish_image(made: Path, uuid: str, content: Source, copied: list[SourceFile]) -> None:
    """Sets modes, fills the stand-ins, pads; then the file is as long as its file system says."""
    executable = {file.name: file.executable for file in content.files}
    fd = os.open(made, os.O_RDWR)
    try:
        nodes = {node.path: node for node in erofs_tree.read_tree(fd)}
        if {path for path, node in nodes.items() if stat.S_ISREG(node.mode)} != executable.keys():
            raise Malformed("mkfs.erofs stored other files than it was given")
        for path, node in nodes.items():
            plain = stat.S_ISREG(node.mode) and not executable[path]
            erofs_tree.set_mode(fd, node, stat.S_IFMT(node.mode) | (0o644 if plain else 0o755))
        for file in copied:
            _fill(fd, nodes[file.name], file)
        erofs_tree.write_checksum(fd)
        erofs_image.complete(fd, uuid)
    finally:
        os.close(fd)


def _fill(fd: int, node: erofs_tree.Node, file: SourceFile) -> None:
    if node.size != file.size:
        raise Malformed(f"mkfs.erofs stored {node.size} bytes for {file.name}, of {file.size}")
    with file.origin.open("rb", buffering=0) as origin:
        for extent in node.extents:
            at, end = extent.at, extent.at + extent.size
            while at < end:
                data = origin.read(min(1 << 20, end - at))
                if not data:
                    raise Unavailable(f"{file.origin} became shorter while it was being read")
                view = memoryview(data)
                while view:
                    put = os.pwrite(fd, view, at)
                    view, at = view[put:], at + put
