"""`tinboot wrap --check`: is this file the volume that its config line says, and does it come from SOURCE?

Everything is re-derived: UUID and salt from the identity, every digest of the tree from the data, the
image from the source where one is given. What the file says of itself is only compared.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from tinboot.builder import erofs_tree, hashtree
from tinboot.builder.output import scratch, unavailable
from tinboot.builder.weights_source import Source, scan
from tinboot.builder.wrap import (
    HASH_TREE,
    Progress,
    Volume,
    check_identity,
    make,
    sidecar_of,
    uuid_for,
)
from tinboot.formats import erofs
from tinboot.formats.errors import Malformed, Mismatch
from tinboot.formats.jsonfields import Fields, parse_object
from tinboot.formats.verity import BLOCK, Verity, VolumeRef, parse_volume_ref, salt_for


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What `<volume>.json` claims; `fields` as `Volume.fields()` gives them."""

    path: Path
    fields: dict[str, str | int | dict[str, str]]

    @property
    def key(self) -> str:
        return "image" if "image" in self.fields else "repo"

    @property
    def identity(self) -> str:
        return str(self.fields[self.key])

    @property
    def tools(self) -> dict[str, str]:
        tools = self.fields["tools"]
        assert isinstance(tools, dict)  # noqa: S101 - `read_sidecar` made it one
        return tools


def read_sidecar(volume: Path) -> Sidecar | None:
    """None if there is none; raises Malformed, naming the member, if it is not one."""
    path = sidecar_of(volume)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unavailable(error, path) from error
    members = parse_object(str(path), data, 1 << 20)
    key = "image" if members.has("image") else "repo"
    numbers = ("hash_offset", "size") if key == "image" else ("hash_offset", "size", "files")
    fields: dict[str, str | int | dict[str, str]] = {key: members.text(key, 1024)}
    fields |= {name: members.text(name) for name in ("mpk", "root_hash", "uuid", "salt")}
    fields |= {name: members.integer(name, 1, 1 << 62) for name in numbers}
    fields["tools"] = _tools(members.record("tools"))
    members.end()
    return Sidecar(path, fields)


def _tools(members: Fields) -> dict[str, str]:
    return {name: members.text(name) for name in members.names}


def check(
    volume: Path,
    identity: str,
    *,
    expect: VolumeRef | None = None,
    sidecar: Sidecar | None = None,
    key: str = "repo",
    source: Path | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Volume:
    """Raises Mismatch naming what differs, Malformed if `volume` is no volume at all.

    Without `expect` and `sidecar` it is only shown that the file agrees with itself and with `identity`:
    the root hash in the result is then for the caller to compare.
    """
    if key == "repo":
        check_identity(identity)
    try:
        found = _check_file(volume, identity, key, expect, sidecar, jobs, progress)
        if source is not None:
            _check_source(volume, found, scan(source), jobs, progress)
    except OSError as error:
        raise unavailable(error, volume) from error
    return found


def _check_file(
    volume: Path,
    identity: str,
    key: str,
    expect: VolumeRef | None,
    sidecar: Sidecar | None,
    jobs: int | None,
    progress: Progress | None,
) -> Volume:
    salt, uuid = salt_for(identity), uuid_for(identity)
    if sidecar is not None:
        if (sidecar.key, sidecar.identity) != (key, identity):
            raise Mismatch(f"{sidecar.path} is of {sidecar.identity}, not of {identity}")
        try:
            expect = expect or parse_volume_ref(str(sidecar.fields["mpk"]))
        except ValueError as error:
            raise Malformed(f"{sidecar.path}: mpk: {error}") from None
    head = _superblock(volume)
    if expect is None:
        expect = VolumeRef(hashtree.stored_root(volume, salt, head.blocks), head.blocks * BLOCK, uuid)
    if expect.uuid != uuid:
        raise Mismatch(f"the UUID of {identity} is {uuid}; the config line says {expect.uuid}")
    if expect.hash_offset != head.blocks * BLOCK:
        raise Mismatch(
            f"the file system of {volume} is {head.blocks * BLOCK} bytes long; the config line says "
            f"that the tree begins at {expect.hash_offset}"
        )
    size = volume.stat().st_size

    def report(done: int) -> None:
        if progress:
            progress(HASH_TREE, done, expect.hash_offset)

    verity = Verity(expect.root_hash, salt, head.blocks)
    hashtree.verify_tree(volume, verity, uuid, jobs=jobs, progress=report)
    if head.uuid != uuid:
        raise Mismatch(f"{volume}: the file system has the UUID {head.uuid}; that of {identity} is {uuid}")
    files = _count(volume) if key == "repo" else None
    found = Volume(identity, expect, salt, size, files, sidecar.tools if sidecar else {}, key)
    for name, value in found.fields().items():
        if sidecar is not None and sidecar.fields[name] != value:
            raise Mismatch(f"{sidecar.path}: {name} is {sidecar.fields[name]}; the volume's is {value}")
    return found


def _count(volume: Path) -> int:
    fd = os.open(volume, os.O_RDONLY)
    try:
        return sum(stat.S_ISREG(node.mode) for node in erofs_tree.read_tree(fd))
    finally:
        os.close(fd)


def _superblock(volume: Path) -> erofs.Superblock:
    size = volume.stat().st_size
    with volume.open("rb") as file:
        try:
            head = erofs.parse_superblock(file.read(BLOCK))
        except ValueError as error:
            raise Malformed(f"{volume} is not a volume: {error}") from None
    if head.block_bits != 12 or not 0 < head.blocks * BLOCK < size:
        claim = f"{head.blocks} blocks of {1 << head.block_bits} bytes"
        raise Malformed(f"{volume} is not a volume: {size} bytes for a file system of {claim} and its tree")
    return head


def _check_source(
    volume: Path, found: Volume, content: Source, jobs: int | None, progress: Progress | None
) -> None:
    """Wraps the source again and compares."""
    with scratch(volume) as folder:
        _, again = make(content, found.identity, folder, jobs=jobs, progress=progress)
    if again.ref != found.ref:
        raise Mismatch(
            f"{volume} does not come from this source: {_difference(volume, content, found, again)}"
        )


def _difference(volume: Path, content: Source, found: Volume, again: Volume) -> str:
    """The first file that differs, in the order of names."""
    fd = os.open(volume, os.O_RDONLY)
    try:
        nodes = {node.path: node for node in erofs_tree.read_tree(fd)}
        stored = {path: node for path, node in nodes.items() if stat.S_ISREG(node.mode)}
        given = {file.name: file for file in content.files}
        for name in sorted(stored.keys() | given.keys()):
            if name not in given:
                return f"it holds {name}, the source does not"
            if name not in stored:
                return f"the source holds {name}, it does not"
            node, file = stored[name], given[name]
            if node.size != file.size:
                return f"{name} is {node.size} bytes long in it, {file.size} in the source"
            if bool(node.mode & 0o111) != file.executable:
                return f"{name} is executable in only one of the two"
            offset = 0
            with file.origin.open("rb") as origin:
                for part in erofs_tree.contents(fd, node):
                    other = origin.read(len(part))
                    if part != other:
                        at = next(
                            (i for i, (a, b) in enumerate(zip(part, other, strict=False)) if a != b),
                            len(other),
                        )
                        return f"{name} differs at byte {offset + at}"
                    offset += len(part)
        folders = {path for path, node in nodes.items() if path and stat.S_ISDIR(node.mode)}
        for name in sorted(folders ^ set(content.directories)):
            return f"the directory {name} is in only one of the two"
    finally:
        os.close(fd)
    before, now = found.tools.get("mkfs.erofs", "of unknown version"), again.tools["mkfs.erofs"]
    return f"the same files in another layout: made by mkfs.erofs {before}, compared with {now}"
