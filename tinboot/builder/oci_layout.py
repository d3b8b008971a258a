"""An OCI image layout, a directory or the tar archive of one, and one image in it.

OCI Image Format Specification 1.1, image-layout.md. Every byte that is used is compared with its digest: the
index of the layout alone has none, and only leads to an image whose digest the caller then names.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tinboot.builder import tar_entries
from tinboot.builder.output import unavailable
from tinboot.formats import ociimage
from tinboot.formats.errors import Malformed, Mismatch, Refused, Unavailable
from tinboot.formats.ociimage import Configuration, Descriptor, Manifest

PLATFORM = "linux/amd64"

_CHUNK = 1 << 20


class _Range(NamedTuple):
    """`size` bytes at `at` of an open file."""

    fd: int
    at: int
    size: int


class Image(NamedTuple):
    """One image of a layout. `digest`: of `documents[0]`, which is an index where the image was named by one;
    the last is the manifest. `config`: the configuration's bytes.
    """

    digest: str
    documents: tuple[bytes, ...]
    config: bytes
    manifest: Manifest
    configuration: Configuration


class Layout:
    """What is in a layout, by `open_layout`."""

    def __init__(self, path: Path, members: dict[str, _Range] | None) -> None:
        self.path = path
        self._members = members

    def index(self) -> tuple[Descriptor, ...]:
        """What the layout says is in it."""
        for name, read in (("oci-layout", ociimage.parse_layout), ("index.json", None)):
            with self._open(name) as found:
                if found.size > ociimage.LIMIT:
                    raise Malformed(f"{self.path}: {name} has {found.size} bytes")
                data = os.pread(found.fd, found.size, found.at)
            if read is not None:
                read(data)
        return ociimage.parse_index("index.json", data)

    def chunks(self, digest: str, size: int | None) -> Iterator[bytes]:
        """A blob; raises `Mismatch` at its end unless it has this digest and, where it is told, size."""
        state = hashlib.sha256()
        with self._open(f"blobs/sha256/{digest.removeprefix('sha256:')}") as found:
            if size is not None and found.size != size:
                raise Mismatch(
                    f"{self.path}: the blob {digest} has {found.size} bytes, its descriptor says {size}"
                )
            for at in range(0, found.size, _CHUNK):
                data = os.pread(found.fd, min(_CHUNK, found.size - at), found.at + at)
                state.update(data)
                yield data
        if f"sha256:{state.hexdigest()}" != digest:
            raise Mismatch(f"{self.path}: the blob {digest} hashes to sha256:{state.hexdigest()}")

    def document(self, digest: str, size: int | None) -> bytes:
        """A blob that is JSON."""
        data = bytearray()
        for chunk in self.chunks(digest, size):
            data += chunk
            if len(data) > ociimage.LIMIT:
                raise Malformed(f"{self.path}: {digest} has more than {ociimage.LIMIT} bytes: no document")
        return bytes(data)

    @contextmanager
    def _open(self, name: str) -> Iterator[_Range]:
        if self._members is not None:
            if name not in self._members:
                raise Malformed(f"{self.path} has no {name}", "is it the archive of an OCI image layout?")
            yield self._members[name]
            return
        try:
            fd = os.open(self.path / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise Unavailable(
                f"{self.path / name}: {error.strerror}", "is the directory an OCI image layout, and whole?"
            ) from error
        try:
            yield _Range(fd, 0, os.fstat(fd).st_size)
        finally:
            os.close(fd)


@contextmanager
def open_layout(path: Path) -> Iterator[Layout]:
    """`path` is a directory, or a file: a tar archive of one, not compressed."""
    if path.is_dir():
        yield Layout(path, None)
        return
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise unavailable(error, path) from error
    try:
        members: dict[str, _Range] = {}
        for entry in tar_entries.read(fd, str(path)):
            name = os.fsdecode(entry.path).removeprefix("./")
            if name in members:
                raise Malformed(f"{path}: {name!a} stands twice")
            if entry.kind == tar_entries.FILE:
                members[name] = _Range(fd, entry.at, entry.size)
        yield Layout(path, members)
    finally:
        os.close(fd)


def find(layout: Layout, ref: str | None, digest: str | None) -> Image:
    """The image called `ref`, or with that `digest`, or the only one; with both, one that is both.

    A digest is of a manifest, or of an index and then of its one image for linux/amd64. Raises `Refused`.
    """
    listed = [found for found in layout.index() if ref is None or found.name == ref]
    if digest is not None and ref is None:
        return _named(layout, digest, [found for found in listed if found.digest == digest])
    if len(listed) != 1:
        names = ", ".join(sorted({found.name or "without a name" for found in layout.index()})) or "nothing"
        raise Refused(
            f"{layout.path} has {len(listed)} images{f' called {ref!r}' if ref else ''}, expected one",
            f"there: {names}. Name one as LAYOUT:REF, or by its digest with --image",
        )
    if digest is not None and listed[0].digest != digest:
        raise Mismatch(f"{layout.path}: {ref} is {listed[0].digest}, expected {digest}")
    return _named(layout, listed[0].digest, listed)


def _named(layout: Layout, digest: str, described: list[Descriptor]) -> Image:
    """`described`: what the layout's index says of it, if anything: an image of an index is in no other."""
    data = layout.document(digest, described[0].size if described else None)
    index = ociimage.is_index(digest, data)
    if described and described[0].media_type not in (ociimage.INDEXES if index else ociimage.MANIFESTS):
        raise Refused(f"{layout.path}: {digest} has the media type {described[0].media_type!r}: no image")
    if not index:
        return _image(layout, digest, (data,))
    fitting = [found for found in ociimage.parse_index(digest, data) if found.platform == PLATFORM]
    if len(fitting) != 1:
        raise Refused(f"{layout.path}: {digest} has {len(fitting)} images for {PLATFORM}, expected one")
    return _image(layout, digest, (data, layout.document(fitting[0].digest, fitting[0].size)))


def _image(layout: Layout, digest: str, documents: tuple[bytes, ...]) -> Image:
    manifest = ociimage.parse_manifest(digest, documents[-1])
    config = layout.document(manifest.config.digest, manifest.config.size)
    configuration = ociimage.parse_configuration(manifest.config.digest, config)
    if configuration.platform != PLATFORM:
        raise Refused(f"{layout.path}: {digest} is for {configuration.platform}, expected {PLATFORM}")
    if len(configuration.diff_ids) != len(manifest.layers):
        raise Malformed(
            f"{layout.path}: {digest} has {len(manifest.layers)} layers, "
            f"its configuration {len(configuration.diff_ids)}"
        )
    return Image(digest, documents, config, manifest, configuration)
