"""`tinboot wrap --oci`: a container's image -> a volume from which Podman runs it in place.

    layout -> image, each blob compared with its digest -> the layers' archives -> store -> EROFS -> tree

Nothing is unpacked into directories: mkfs.erofs reads one archive with the owners, modes and devices that the
store has, so that neither root nor a user name space is needed, and no file system has a say.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tinboot.builder import (
    erofs_image,
    hashtree,
    oci_layer,
    oci_layout,
    oci_store,
    tar_entries,
    wrap,
    wrap_check,
)
from tinboot.builder.oci_layout import Image, Layout
from tinboot.builder.oci_store import Layer
from tinboot.builder.output import scratch, unavailable
from tinboot.builder.tools import find_tool, version
from tinboot.builder.wrap import FILE_SYSTEM, Progress, Volume
from tinboot.formats import ociimage
from tinboot.formats.config_values import stored_image
from tinboot.formats.errors import Malformed, Mismatch, Unavailable
from tinboot.formats.ociimage import Descriptor
from tinboot.formats.verity import BLOCK, VolumeRef, salt_for

LAYERS = "layers"

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """The image called `ref` in `layout`, or its only one. `name`: what the config calls it, without digest;
    `digest`: what it must have, if that is known."""

    layout: Path
    ref: str | None
    name: str
    digest: str | None


def parse_layout(text: str) -> tuple[Path, str | None]:
    """`LAYOUT[:REF]`; a path that is there is taken whole."""
    path, colon, ref = text.rpartition(":")
    if not colon or Path(text).exists():
        return Path(text), None
    return Path(path), ref


def parse_name(text: str) -> tuple[str, str | None]:
    """`NAME[@sha256:DIGEST]`; raises ValueError unless a config could have it."""
    name, at, digest = text.partition("@")
    stored_image(text if at else f"{text}@sha256:{'0' * 64}")
    return name, digest if at else None


def default_name(source: Source) -> str:
    return source.name.replace("/", "--").replace(":", "-") + ".mpk"


def wrap_image(
    source: Source,
    out: Path,
    *,
    jobs: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Volume:
    """Makes the volume `out` and `out`.json, whole or not at all.

    Raises Mismatch for a blob that is not its digest's, Refused for what no volume may hold, Malformed for
    damaged documents and archives, Unavailable for a missing tool or full disk.
    """
    return wrap.publish_volume(out, force, lambda folder: make(source, folder, jobs=jobs, progress=progress))


def make(
    source: Source, folder: Path, *, jobs: int | None = None, progress: Progress | None = None
) -> tuple[Path, Volume]:
    """The same without final names: writes into the empty `folder` and returns the file."""
    mkfs = find_tool("mkfs.erofs")
    made = folder / "volume"
    try:
        with oci_layout.open_layout(source.layout) as layout, ExitStack() as opened:
            image = oci_layout.find(layout, source.ref, source.digest)
            identity = stored_image(f"{source.name}@{image.digest}")
            layers = _unpack(layout, image, folder, opened, progress)
            _write(identity, image, layers, list(mkfs.argv), made, progress)
        ref = wrap.append_tree(made, identity, jobs=jobs, progress=progress)
    except OSError as error:
        raise unavailable(error, folder.parent) from error
    size, tools = made.stat().st_size, {mkfs.name: version(mkfs)}
    return made, Volume(identity, ref, salt_for(identity), size, None, tools, "image")


def check(
    volume: Path,
    identity: str,
    *,
    expect: VolumeRef | None = None,
    sidecar: wrap_check.Sidecar | None = None,
    source: Source | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Volume:
    """Raises Mismatch naming what differs, Malformed if `volume` is none; as `wrap_check.check`."""
    found = wrap_check.check(
        volume, identity, expect=expect, sidecar=sidecar, key="image", jobs=jobs, progress=progress
    )
    if source is None:
        return found
    with scratch(volume) as folder:
        _, again = make(source, folder, jobs=jobs, progress=progress)
    if again.identity != identity:
        raise Mismatch(f"{volume} is of {identity}, the layout has {again.identity}")
    if again.ref != found.ref:
        before, now = found.tools.get("mkfs.erofs", "of unknown version"), again.tools["mkfs.erofs"]
        raise Mismatch(
            f"{volume} does not come from this image: its line is {found.ref}, made again {again.ref}; "
            f"made by mkfs.erofs {before}, compared with {now}"
        )
    return found


def _write(
    identity: str, image: Image, layers: list[Layer], mkfs: list[str], made: Path, progress: Progress | None
) -> None:
    uuid = wrap.uuid_for(identity)
    files = [entry.size for layer in layers for entry in layer.tree.values()]
    total = sum(-(-size // BLOCK) * BLOCK for size in files)
    erofs_image.require_space(total, len(files), made.parent)
    hashtree.prepare(total)
    # each file keeps its layer's time: a .pyc that is checked against its source would else be stale
    options = ["--quiet", "--tar=f", "--sort=none", "-T0", "--mkfs-time", f"-U{uuid}"]
    name = identity.partition("@")[0]
    slash = name.rpartition("/")
    untagged = f"{slash[0]}/{slash[2].partition(':')[0]}@{image.digest}"
    feed = oci_store.archive(untagged, image, layers)
    erofs_image.run([*mkfs, *options, str(made)], made, wrap.staged(progress, FILE_SYSTEM, total), feed)
    fd = os.open(made, os.O_RDWR)
    try:
        erofs_image.complete(fd, uuid)
    finally:
        os.close(fd)


def _unpack(
    layout: Layout, image: Image, folder: Path, opened: ExitStack, progress: Progress | None
) -> list[Layer]:
    """Each layer's tar as a file without a name, open as long as `opened`, and what is in it."""
    total = sum(blob.size for blob in image.manifest.layers)
    done = 0
    below: tar_entries.Entry | None = None
    layers: list[Layer] = []
    identifiers = oci_store.chain_ids(image.configuration.diff_ids)
    described = zip(identifiers, image.manifest.layers, image.configuration.diff_ids, strict=True)
    for number, (identifier, blob, diff_id) in enumerate(described, 1):
        what = f"layer {number} ({blob.digest[:19]})"
        fd = os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        opened.callback(os.close, fd)
        _decompress(layout, blob, fd, what, wrap.staged(progress, LAYERS, total), done)
        done += blob.size
        found = f"sha256:{_hash(fd)}"
        if found != diff_id:
            raise Mismatch(f"{what} is {found} when unpacked, the image's configuration has {diff_id}")
        tree = oci_layer.unpack(tar_entries.read(fd, what), below, what)
        below = tree[b""]
        layers.append(Layer(identifier, blob, diff_id, fd, os.fstat(fd).st_size, tree))
    return layers


def _decompress(
    layout: Layout,
    blob: Descriptor,
    fd: int,
    what: str,
    report: Callable[[int], None] | None,
    before: int,
) -> None:
    """The blob's tar into `fd`. A wrong digest is said before what it led to."""
    chunks = _counted(layout.chunks(blob.digest, blob.size), report, before)
    try:
        unpackers = {"": _plain, "gzip": _gunzip, "zstd": _unzstd}
        unpackers[ociimage.LAYERS[blob.media_type]](chunks, fd, what)
    except Malformed:
        for _ in chunks:
            pass
        raise


def _counted(chunks: Iterator[bytes], report: Callable[[int], None] | None, before: int) -> Iterator[bytes]:
    done = before
    for chunk in chunks:
        done += len(chunk)
        if report:
            report(done)
        yield chunk


def _plain(chunks: Iterator[bytes], fd: int, _what: str) -> None:
    for chunk in chunks:
        _write_all(fd, chunk)


def _gunzip(chunks: Iterator[bytes], fd: int, what: str) -> None:
    """RFC 1952: one member or several behind each other, and nothing else."""
    state = None
    try:
        for chunk in chunks:
            rest = chunk
            while rest:
                state = state or zlib.decompressobj(wbits=31)
                _write_all(fd, state.decompress(rest, _CHUNK))
                rest = state.unconsumed_tail
                if state.eof:
                    rest, state = state.unused_data, None
    except zlib.error as error:
        raise Malformed(f"{what} is not in gzip: {error}") from error
    if state is not None:
        raise Malformed(f"{what} ends within its gzip")


def _unzstd(chunks: Iterator[bytes], fd: int, what: str) -> None:
    command = [*find_tool("zstd").argv, "--decompress", "--stdout", "--quiet", "--no-progress"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=fd, stderr=subprocess.DEVNULL, env={"LC_ALL": "C"}, bufsize=0
    ) as child:
        assert child.stdin is not None  # noqa: S101 - asked for above
        try:
            for chunk in chunks:
                _write_all(child.stdin.fileno(), chunk)
        except BrokenPipeError:
            pass
        except BaseException:
            child.kill()
            raise
    if child.returncode:
        state = os.fstatvfs(fd)
        if not state.f_bavail:
            raise Unavailable(f"no space left to unpack {what}")
        raise Malformed(f"{what} is not in zstd, or cut off")


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _hash(fd: int) -> str:
    os.lseek(fd, 0, os.SEEK_SET)
    with os.fdopen(os.dup(fd), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
