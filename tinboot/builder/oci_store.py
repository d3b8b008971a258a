"""The store that Podman's library reads an image from, as one tar archive for mkfs.erofs.

containers/storage, driver overlay (store.go, layers.go, images.go, drivers/overlay/overlay.go), laid out as a
pull leaves it, but for what names a time, a machine or a random number, and without what only a push needs:

    overlay-images/images.json            the image: name, digest, top layer
    overlay-images/<image>/...            manifest and configuration
    overlay-layers/layers.json            the layers, lowest first
    overlay/<layer>/{diff/,link,lower}    a layer's files; its short name; those of the layers below it
    overlay/l/<short name>                -> ../<layer>/diff
    */*.lock                              empty; readers lock them

Podman looks an image up by name and digest in images.json and never reads a layer against its digest again:
that the content is right is settled by whoever calls this, once, and by the volume's root hash from then on.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterator
from typing import NamedTuple

from tinboot.builder import tar_entries as tar
from tinboot.builder.oci_layer import Tree
from tinboot.builder.oci_layout import Image
from tinboot.builder.tar_entries import BLOCK, XATTR
from tinboot.formats import ociimage
from tinboot.formats.ociimage import Descriptor

#: containers/storage, pkg/archive: Compression.
_COMPRESSION = {"": 0, "gzip": 2, "zstd": 4}

_EPOCH = "1970-01-01T00:00:00Z"
_CHUNK = 1 << 20


class Layer(NamedTuple):
    """`id`: SHA-256 of the chain of layers up to this one, in hex (config.md, "Layer ChainID"); `fd`: its
    uncompressed tar, of `size` bytes."""

    id: str
    blob: Descriptor
    diff_id: str
    fd: int
    size: int
    tree: Tree


class Member(NamedTuple):
    """One member of the archive; its bytes are `data`, or `size` of them at `at` of `fd`."""

    path: bytes
    kind: bytes = tar.FILE
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    target: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    data: bytes = b""
    fd: int = -1
    at: int = 0
    size: int = 0


def chain_ids(diff_ids: tuple[str, ...]) -> list[str]:
    """In hex, one for each layer."""
    chain: list[str] = []
    for diff_id in diff_ids:
        joined = f"sha256:{chain[-1]} {diff_id}".encode() if chain else b""
        chain.append(hashlib.sha256(joined).hexdigest() if chain else diff_id.removeprefix("sha256:"))
    return chain


def archive(name: str, image: Image, layers: list[Layer]) -> Iterator[bytes]:
    """The whole of it, in parts. `name`: of the image, without a tag, with its digest."""
    for member in _members(name, image, layers):
        yield header(member)
        if member.fd < 0:
            yield member.data
        else:
            yield from _stored(member)
        yield bytes(-member.size % BLOCK)
    yield bytes(2 * BLOCK)


def header(member: Member) -> bytes:
    """Its header blocks: ustar, and pax's before it for what ustar cannot hold."""
    extended = {XATTR + key: value for key, value in member.xattrs}
    if len(member.path) > 100:
        extended[b"path"] = member.path
    if len(member.target) > 100:
        extended[b"linkpath"] = member.target
    numbers = {b"uid": (member.uid, 7), b"gid": (member.gid, 7), b"size": (member.size, 11)}
    for key, (number, digits) in numbers.items():
        if number >= 8**digits:
            extended[key] = b"%d" % number
    mtime = min(member.mtime, 8**11 - 1)
    if mtime != member.mtime:
        extended[b"mtime"] = b"%d" % member.mtime
    short = member._replace(
        path=member.path[:100],
        target=member.target[:100],
        uid=0 if b"uid" in extended else member.uid,
        gid=0 if b"gid" in extended else member.gid,
        size=0 if b"size" in extended else member.size,
        mtime=mtime,
    )
    if not extended:
        return _ustar(short)
    records = b"".join(_record(key, value) for key, value in sorted(extended.items()))
    before = _ustar(Member(b"pax", b"x", size=len(records)))
    return before + records + bytes(-len(records) % BLOCK) + _ustar(short)


def _ustar(member: Member) -> bytes:
    block = bytearray(BLOCK)
    block[0 : len(member.path)] = member.path
    block[100:108] = b"%07o\0" % member.mode
    block[108:116] = b"%07o\0" % member.uid
    block[116:124] = b"%07o\0" % member.gid
    block[124:136] = b"%011o\0" % member.size
    block[136:148] = b"%011o\0" % member.mtime
    block[148:156] = b" " * 8
    block[156:157] = member.kind
    block[157 : 157 + len(member.target)] = member.target
    block[257:265] = b"ustar\x0000"
    block[329:345] = b"0000000\0" * 2
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return str(length).encode() + rest


def _members(name: str, image: Image, layers: list[Layer]) -> Iterator[Member]:
    yield _folder(b".")
    yield from _images(name, image, layers)
    yield _folder(b"overlay-layers")
    yield _file(b"overlay-layers/layers.json", _json(_described(layers)))
    yield _file(b"overlay-layers/layers.lock", b"")
    yield _folder(b"overlay")
    yield _folder(b"overlay/l")
    for layer in layers:
        target = f"../{layer.id}/diff".encode()
        yield Member(f"overlay/l/{_link(layer)}".encode(), tar.SYMLINK, 0o777, target=target)
    for at, layer in enumerate(layers):
        place = f"overlay/{layer.id}".encode()
        yield _folder(place)
        yield _file(place + b"/link", _link(layer).encode())
        if at:
            lower = ":".join(f"l/{_link(below)}" for below in reversed(layers[:at]))
            yield _file(place + b"/lower", lower.encode())
        yield from _diff(place + b"/diff", layer)


def _diff(place: bytes, layer: Layer) -> Iterator[Member]:
    """Names in their order. Of several names of one file the first has the bytes."""
    first: dict[int, bytes] = {}
    for path, entry in sorted(layer.tree.items()):
        full = place + b"/" + path if path else place
        kept = Member(full, entry.kind, entry.mode, entry.uid, entry.gid, entry.mtime, xattrs=entry.xattrs)
        if entry.kind == tar.SYMLINK:
            kept = kept._replace(target=entry.target, mode=0o777)
        elif entry.kind == tar.FILE:
            kept = kept._replace(fd=layer.fd, at=entry.at, size=entry.size)
        made = entry.kind == tar.FOLDER or entry.header < 0  # a directory's may be a lower layer's
        known = full if made else first.setdefault(entry.header, full)
        if known != full:
            kept = Member(full, tar.LINK, target=known)
        yield kept


def _images(name: str, image: Image, layers: list[Layer]) -> Iterator[Member]:
    """Each document under its digest, the manifest also as such: containers/image, storage_dest.go."""
    config = image.manifest.config.digest
    kept = {f"manifest-{_digest(data)}": data for data in image.documents}
    kept |= {"manifest": image.documents[-1], config: image.config}
    described = {
        "id": config.removeprefix("sha256:"),
        "digest": image.digest,
        "names": [name],
        "layer": layers[-1].id,
        "metadata": "{}",
        "big-data-names": sorted(kept),
        "big-data-sizes": {key: len(data) for key, data in sorted(kept.items())},
        "big-data-digests": {key: _digest(data) for key, data in sorted(kept.items())},
        "created": _EPOCH,
    }
    yield _folder(b"overlay-images")
    yield _file(b"overlay-images/images.json", _json([described]))
    yield _file(b"overlay-images/images.lock", b"")
    place = f"overlay-images/{described['id']}".encode()
    yield _folder(place)
    for key, data in sorted(kept.items()):
        # makeBigDataBaseName of containers/storage: what is not all of a-z, 0-9 and '.' is in base64
        plain = key == "manifest"
        yield _file(place + b"/" + (key.encode() if plain else b"=" + base64.b64encode(key.encode())), data)


def _described(layers: list[Layer]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for at, layer in enumerate(layers):
        entry: dict[str, object] = {"id": layer.id}
        if at:
            entry["parent"] = layers[at - 1].id
        entry |= {
            "created": _EPOCH,
            "compressed-diff-digest": layer.blob.digest,
            "compressed-size": layer.blob.size,
            "diff-digest": layer.diff_id,
            "diff-size": layer.size,
            "compression": _COMPRESSION[ociimage.LAYERS[layer.blob.media_type]],
            "uidset": sorted({entry.uid for entry in layer.tree.values()}),
            "gidset": sorted({entry.gid for entry in layer.tree.values()}),
        }
        found.append(entry)
    return found


def _link(layer: Layer) -> str:
    """26 characters of base32, as the driver draws them at random."""
    return base64.b32encode(hashlib.sha256(layer.id.encode()).digest()).decode()[:26]


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _folder(path: bytes) -> Member:
    return Member(path, tar.FOLDER, 0o755)


def _file(path: bytes, data: bytes) -> Member:
    return Member(path, data=data, size=len(data))


def _stored(member: Member) -> Iterator[bytes]:
    for at in range(0, member.size, _CHUNK):
        yield os.pread(member.fd, min(_CHUNK, member.size - at), member.at + at)
