"""The three JSON documents of a container image: index, manifest, configuration.

OCI Image Format Specification 1.1: descriptor.md, image-index.md, manifest.md, config.md; and Docker's image
manifest version 2, schema 2, whose documents have the same members under other media types. What is used here
is read strictly; other members, which the specification allows everywhere, are passed over.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tinboot.formats.errors import Malformed, Refused
from tinboot.formats.jsonfields import Fields, parse_object

#: Bytes of one document; registries and container engines take manifests of at most 4 MiB.
LIMIT = 4 << 20

_OCI, _DOCKER = "application/vnd.oci.image.", "application/vnd.docker."

INDEXES = (_OCI + "index.v1+json", _DOCKER + "distribution.manifest.list.v2+json")
MANIFESTS = (_OCI + "manifest.v1+json", _DOCKER + "distribution.manifest.v2+json")
CONFIGS = (_OCI + "config.v1+json", _DOCKER + "container.image.v1+json")

#: Media type of a layer -> how its tar is compressed.
LAYERS = {
    _OCI + "layer.v1.tar": "",
    _OCI + "layer.v1.tar+gzip": "gzip",
    _OCI + "layer.v1.tar+zstd": "zstd",
    _DOCKER + "image.rootfs.diff.tar.gzip": "gzip",
}

#: layer.md, "Non-Distributable Layers", and Docker's foreign ones: their bytes are somewhere else.
_ELSEWHERE = (
    *(f"{_OCI}layer.nondistributable.v1.tar{suffix}" for suffix in ("", "+gzip", "+zstd")),
    _DOCKER + "image.rootfs.foreign.diff.tar.gzip",
)

#: As overlayfs can stack, beneath a container's own (fs/overlayfs/params.h, OVL_MAX_STACK 500), rounded down.
MAX_LAYERS = 480

_MAX_BLOB = 1 << 40
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

#: Annotation of a descriptor in a layout's index: what a person calls the image (annotations.md).
_REF_NAME = "org.opencontainers.image.ref.name"


class Descriptor(NamedTuple):
    """Points at a blob: `digest` is sha256:<64 hex>, `size` in bytes. `name`: the annotation, or nothing;
    `platform`: such as linux/amd64, or nothing."""

    media_type: str
    digest: str
    size: int
    name: str = ""
    platform: str = ""


class Manifest(NamedTuple):
    """One image for one platform; layers from the lowest up."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


class Configuration(NamedTuple):
    """`diff_ids`: digests of the layers' uncompressed tars, from the lowest up."""

    platform: str
    diff_ids: tuple[str, ...]


def digest_of(text: str) -> str:
    """Raises ValueError unless `text` is the SHA-256 digest of a blob; no other algorithm is taken."""
    if not _DIGEST.fullmatch(text):
        raise ValueError(f"{text[:80]!a} is not sha256:<64 lower-case hex digits>")
    return text


def parse_layout(data: bytes) -> None:
    """The file `oci-layout`; raises `Malformed` unless it marks a layout of version 1."""
    found = parse_object("oci-layout", data, 4096).text("imageLayoutVersion")
    if found != "1.0.0":
        raise Malformed(f"oci-layout.imageLayoutVersion is {found!r}, expected '1.0.0'")


def parse_index(where: str, data: bytes) -> tuple[Descriptor, ...]:
    """Of what it lists only the descriptors; raises `Malformed`."""
    top = _document(where, data, INDEXES, ("config", "layers"))
    return tuple(_descriptor(item) for item in top.records("manifests"))


def parse_manifest(where: str, data: bytes) -> Manifest:
    """Raises `Malformed`, or `Refused` for layers that are no tars, or are somewhere else."""
    top = _document(where, data, MANIFESTS, ("manifests",))
    config = _descriptor(top.record("config"))
    if config.media_type not in CONFIGS:
        raise Refused(
            f"{where}.config has the media type {config.media_type!r}: no container image",
            "an artefact of another kind may be in the same layout: name the image",
        )
    layers = []
    for fields in top.records("layers"):
        elsewhere = fields.has("urls")
        layer = _descriptor(fields)
        if elsewhere or layer.media_type in _ELSEWHERE:
            raise Refused(f"{fields.where} is a foreign layer, fetched from somewhere else")
        if layer.media_type not in LAYERS:
            raise Refused(
                f"{fields.where} has the media type {layer.media_type!r}, expected one of {', '.join(LAYERS)}"
            )
        layers.append(layer)
    if not 0 < len(layers) <= MAX_LAYERS:
        raise Refused(f"{where} has {len(layers)} layers, expected 1 to {MAX_LAYERS}")
    return Manifest(config, tuple(layers))


def parse_configuration(where: str, data: bytes) -> Configuration:
    """Raises `Malformed`."""
    top = parse_object(where, data, LIMIT)
    platform = f"{top.text('os')}/{top.text('architecture')}"
    rootfs = top.record("rootfs")
    rootfs.one_of("type", ("layers",))
    diff_ids = tuple(_digest(f"{where}.rootfs.diff_ids", d) for d in rootfs.texts("diff_ids", distinct=False))
    return Configuration(platform, diff_ids)


def is_index(where: str, data: bytes) -> bool:
    """Of a document that no descriptor described: what its members, not its media type, make of it."""
    return parse_object(where, data, LIMIT).has("manifests")


def _document(where: str, data: bytes, types: tuple[str, ...], foreign: tuple[str, ...]) -> Fields:
    """One document must not be readable as two (OCI distribution-spec, GHSA-mc8v-mgrf-8f4m)."""
    top = parse_object(where, data, LIMIT)
    top.integer("schemaVersion", 2, 2)
    if top.has("mediaType"):
        top.one_of("mediaType", types)
    for name in foreign:
        if top.has(name):
            raise Malformed(f"{where} has the member {name!r}: it could be read as something else")
    return top


def _descriptor(fields: Fields) -> Descriptor:
    media_type = fields.text("mediaType")
    digest = _digest(f"{fields.where}.digest", fields.text("digest"))
    size = fields.integer("size", 0, _MAX_BLOB)
    name = platform = ""
    if fields.has("annotations"):
        annotations = fields.record("annotations")
        name = annotations.text(_REF_NAME) if annotations.has(_REF_NAME) else ""
    if fields.has("platform"):
        told = fields.record("platform")
        platform = f"{told.text('os')}/{told.text('architecture')}"
    return Descriptor(media_type, digest, size, name, platform)


def _digest(where: str, text: str) -> str:
    try:
        return digest_of(text)
    except ValueError as error:
        raise Malformed(f"{where}: {error}") from None
