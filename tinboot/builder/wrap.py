"""`tinboot wrap`: weights -> EROFS image plus hash tree, the same bytes for the same names and contents.

The image is what `mkfs.erofs --all-root -T0 -U<uuid> OUT DIR` makes of a plain copy of the source (modes
0644 or 0755, directories 0755), and the tree what `veritysetup format` appends to that.
"""

from __future__ import annotations

import json
import os
import uuid as uuids
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tinboot.builder import hashtree
from tinboot.builder.output import exists_already, publish, scratch, sync, unavailable, write_whole
from tinboot.builder.tools import find_tool, version
from tinboot.builder.weights_image import write_image
from tinboot.builder.weights_source import Source
from tinboot.formats.verity import VolumeRef, salt_for

#: Called with the stage, the bytes done and the bytes to do (an estimate in "file system").
Progress = Callable[[str, int, int], None]

FILE_SYSTEM, HASH_TREE = "file system", "hash tree"


@dataclass(frozen=True, slots=True)
class Volume:
    """A finished volume. `size` is the whole file's; `tools` maps a program to its version.

    There is no SHA-256 of the file: root hash, salt and UUID determine every byte of it, and it could only be
    had in one sequential run, which takes longer than the tree on all CPUs.
    """

    identity: str
    ref: VolumeRef
    salt: str
    size: int
    files: int | None
    tools: dict[str, str]
    #: What the config calls the identity: "repo" of a model, or "image".
    key: str = "repo"

    def fields(self) -> dict[str, str | int | dict[str, str]]:
        """What the sidecar and `--json` say."""
        counted = {} if self.files is None else {"files": self.files}
        return {
            self.key: self.identity,
            "mpk": str(self.ref),
            "root_hash": self.ref.root_hash,
            "hash_offset": self.ref.hash_offset,
            "uuid": self.ref.uuid,
            "salt": self.salt,
            "size": self.size,
            **counted,
            "tools": self.tools,
        }


def check_identity(identity: str) -> None:
    """Raises ValueError unless `identity` is `name@revision` in the characters that hubs allow."""
    name, at, revision = identity.partition("@")
    allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/"
    parts = [*name.split("/"), *revision.split("/")]
    if not at or not all(parts) or set("".join(parts)) - set(allowed) or {".", ".."} & set(parts):
        raise ValueError(f"{identity[:200]!r} is not NAME@REVISION, such as org/model@0123abcd")


def uuid_for(identity: str) -> str:
    """The UUID of file system and tree (facts of Tinfoil's modelwrap: its `mpk` volumes)."""
    return str(uuids.uuid5(uuids.NAMESPACE_URL, identity + "-inner"))


def sidecar_of(volume: Path) -> Path:
    """The file beside a volume that says what it is, and what made it."""
    return volume.with_name(volume.name + ".json")


def default_name(identity: str) -> str:
    return identity.replace("/", "--") + ".mpk"


def wrap(
    content: Source,
    identity: str,
    out: Path,
    *,
    jobs: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Volume:
    """Makes the volume `out` and `out`.json, whole or not at all.

    Raises Refused for an existing `out` without `force`, Unavailable for a missing tool, unreadable file
    or full disk.
    """
    return publish_volume(
        out, force, lambda folder: make(content, identity, folder, jobs=jobs, progress=progress)
    )


def publish_volume(out: Path, force: bool, make: Callable[[Path], tuple[Path, Volume]]) -> Volume:
    """Has `make` write the volume into a folder beside `out`, then gives it and its sidecar their names."""
    sidecar = sidecar_of(out)
    for path in (out, sidecar):
        if os.path.lexists(path) and not force:
            raise exists_already(path)
    with scratch(out) as folder:
        made, volume = make(folder)
        write_whole(sidecar, (json.dumps(volume.fields(), indent=2) + "\n").encode(), force=force)
        try:
            publish(made, out, force=force)
        except BaseException:
            sidecar.unlink()
            raise
    return volume


def make(
    content: Source, identity: str, folder: Path, *, jobs: int | None = None, progress: Progress | None = None
) -> tuple[Path, Volume]:
    """The same without final names: writes into the empty `folder` and returns the file."""
    check_identity(identity)
    mkfs = find_tool("mkfs.erofs")
    uuid = uuid_for(identity)
    made = folder / "volume"
    hashtree.prepare(content.size)
    try:
        shown = staged(progress, FILE_SYSTEM, content.size)
        write_image(content, uuid, mkfs, made, folder / "tree", shown)
        ref = append_tree(made, identity, jobs=jobs, progress=progress)
    except OSError as error:
        raise unavailable(error, folder.parent) from error
    size, tools = made.stat().st_size, {mkfs.name: version(mkfs)}
    return made, Volume(identity, ref, salt_for(identity), size, len(content.files), tools)


def append_tree(made: Path, identity: str, *, jobs: int | None, progress: Progress | None) -> VolumeRef:
    """The hash tree behind the file system in `made`, whose UUID is that of `identity`."""
    size, uuid = made.stat().st_size, uuid_for(identity)
    with _written_back(made):
        shown = staged(progress, HASH_TREE, size)
        verity = hashtree.append_tree(made, salt_for(identity), uuid, jobs=jobs, progress=shown)
    return VolumeRef(verity.root_hash, size, uuid)


def staged(progress: Progress | None, stage: str, total: int) -> Callable[[int], None] | None:
    """`progress` for one stage."""
    return progress and (lambda done: progress(stage, min(done, total), total))


@contextmanager
def _written_back(made: Path) -> Iterator[None]:
    """Sends the file's data to the disk meanwhile; after the hash tree that would take its time again."""
    with ThreadPoolExecutor(1) as threads:
        synced = threads.submit(sync, made)
        yield
        synced.result()
