"""One layer of an image as the directory that overlayfs stacks: a path, in it, to what is there.

OCI Image Format Specification 1.1, layer.md: an entry `.wh.NAME` hides NAME of the layers below, and
`.wh..wh..opq` all that is below in its directory. For overlayfs (kernel, overlayfs.rst: "whiteouts and opaque
directories") that is a character device 0/0 under the name itself, and the attribute trusted.overlay.opaque.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NoReturn

from tinboot.builder import tar_entries as tar
from tinboot.builder.tar_entries import Entry
from tinboot.formats.errors import Refused

OPAQUE = (b"trusted.overlay.opaque", b"y")

_MARK, _OPAQUE_MARK, _AUFS = b".wh.", b".wh..wh..opq", b".wh..wh."

#: Linux, NAME_MAX.
_MAX_NAME = 255

#: A directory that the layer does not describe, and its root, as containers/storage makes them.
_PLAIN = Entry(b"", tar.FOLDER, 0o755, 0, 0, 0, 0, 0, -1, b"", ())
_ROOT = _PLAIN._replace(mode=0o555)

Tree = dict[bytes, Entry]


def unpack(entries: Iterable[Entry], below: Entry | None, what: str) -> Tree:
    """The layer's tree, its root under b"" and every directory with an entry of its own.

    `below`: the root of the layer below, None for the lowest, where nothing is hidden. Hard links are the
    entry that they link to, under their own path. Raises `Refused`, naming layer and path.
    """
    tree: Tree = {}
    hidden: set[bytes] = set()
    opaque: set[bytes] = set()
    linked: dict[int, Entry] = {}
    for entry in entries:
        path = _relative(entry.path, what)
        folder, _, name = path.rpartition(b"/")
        if name == _OPAQUE_MARK:
            opaque.add(folder)
        elif name.startswith(_MARK):
            hidden.add(_whiteout(folder, name, path, what))
        elif entry.kind == tar.LINK:
            file = _linked(tree, entry, what)
            linked[file.header] = file
            _place(tree, path, file, what)
        else:
            _place(tree, path, entry, what)
    if b"" in opaque:
        _refuse(b"", "hides everything below: leave out the layers below", what)
    for path in hidden:
        if path in tree and tree[path].kind == tar.FOLDER:
            opaque.add(path)  # replaced by a new directory, of which nothing below may show through
        elif below is not None and path not in tree:
            tree[path] = _PLAIN._replace(kind=tar.CHARACTER, mode=0)
    tree.setdefault(b"", below or _ROOT)
    _complete(tree, opaque, hidden, what)
    if below is not None:
        for path in opaque:
            tree[path] = tree[path]._replace(xattrs=tuple(sorted((*tree[path].xattrs, OPAQUE))))
    return {
        path: linked.get(entry.header, entry) if entry.kind != tar.FOLDER else entry
        for path, entry in tree.items()
    }


def _relative(path: bytes, what: str) -> bytes:
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        _refuse(path, "leads out of the layer", what)
    if any(part.startswith(_MARK) for part in parts[:-1]):
        _refuse(path, "lies in something whose name is a mark", what)
    if any(len(part) > _MAX_NAME for part in parts):
        _refuse(path, f"has a component of more than {_MAX_NAME} bytes", what)
    return b"/".join(parts)


def _whiteout(folder: bytes, name: bytes, path: bytes, what: str) -> bytes:
    """The path that is hidden."""
    hidden = name.removeprefix(_MARK)
    if name.startswith(_AUFS) or hidden in (b"", b".", b".."):
        _refuse(path, "is a mark that layer.md does not know", what)
    return folder + b"/" + hidden if folder else hidden


def _linked(tree: Tree, entry: Entry, what: str) -> Entry:
    """The file, with owner and mode of the link: an archive's last word on a file of several names counts."""
    target = tree.get(_relative(entry.target, what))
    if target is None or target.kind == tar.FOLDER:
        _refuse(entry.path, f"is a hard link to {_shown(entry.target)}, which is no file before it", what)
    return target._replace(mode=entry.mode, uid=entry.uid, gid=entry.gid, mtime=entry.mtime)


def _place(tree: Tree, path: bytes, entry: Entry, what: str) -> None:
    if entry.kind in (tar.CHARACTER, tar.DEVICE):
        _refuse(path, "is a device", what)
    for name, _ in entry.xattrs:
        known = name == b"security.capability" or name.startswith(b"user.")
        if not known or name.startswith(b"user.overlay."):
            _refuse(path, f"has the extended attribute {_shown(name)}", what)
    former = tree.get(path)
    if former is not None and (former.kind == tar.FOLDER) != (entry.kind == tar.FOLDER):
        _refuse(path, "stands twice, once as a directory", what)
    if path == b"" and entry.kind != tar.FOLDER:
        _refuse(path, "is not a directory", what)
    tree[path] = entry


def _complete(tree: Tree, opaque: set[bytes], hidden: set[bytes], what: str) -> None:
    """Adds the directories that the layer itself does not describe."""
    seen: set[bytes] = set()
    for path in opaque:
        if tree.setdefault(path, _PLAIN).kind != tar.FOLDER:
            _refuse(path, "is opaque, and no directory", what)
    for path in [*tree, *hidden]:
        folder = path
        while folder and folder not in seen:
            seen.add(folder)
            folder = folder.rpartition(b"/")[0]
            if tree.setdefault(folder, _PLAIN).kind != tar.FOLDER:
                _refuse(path, f"lies behind {_shown(folder)}, which is no directory", what)


def _refuse(path: bytes, reason: str, what: str) -> NoReturn:
    raise Refused(f"{what}: {_shown(path) if path else 'its root'} {reason}")


def _shown(path: bytes) -> str:
    return ascii(os.fsdecode(path[:200]))
