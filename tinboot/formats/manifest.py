"""`manifest.json`: what one build made, from what, and how it is started.

JSON, UTF-8, keys sorted, two spaces of indentation, one newline at the end. The reader is strict
(no unknown, missing or duplicate key, no number but a whole one) and refuses a manifest whose parts
contradict each other; the writer refuses what the reader would not give back.

    {"artefacts": {"kernel"|"initrd"|"root": {"file", "sha256", "size"}},
     "command_line": "...", "config": {"file", "sha256", "size"},
     "cpus": n, "distribution": "...", "gpu_reference_values": [{"file", "sha256", "size"}],
     "gpus": n, "memory": MiB, "name": "...",
     "packages": [{"architecture", "image", "name", "sha256", "version"}], "profile": "...",
     "root": {"blocks", "hash_offset", "root_hash", "salt"}, "schema": 2,
     "source_date_epoch": s, "tools": {"name": "version or digest"},
     "volumes": [{"name", "ref", "repo"}]}

`config` is the file that the config was read from: the SHA-256 and size are of its bytes, without the
padding of its disk, which lies beside the manifest as `config.disk`. `gpu_reference_values` are the files
inside the root that its GPU gate verifies by, `reference-values.json` and the RIMs that it names; none: such
an image refuses every GPU.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from tinboot.formats import cmdline, configdisk, verity
from tinboot.formats.errors import Malformed
from tinboot.formats.halt import Refusal
from tinboot.formats.jsonfields import Fields, parse_object

FILE = "manifest.json"
CONFIG_DISK = "config.disk"

SCHEMA = 2

#: In the root, what names and abridges the other files of `gpu_reference_values`.
REFERENCE_VALUES = "reference-values.json"

#: Bytes. A thousand packages take 250 kB.
LIMIT = 4 << 20


class Artefact(NamedTuple):
    """A file beside the manifest: base name, SHA-256 in lower-case hex, size in bytes."""

    file: str
    sha256: str
    size: int


class Root(NamedTuple):
    """The root's dm-verity parameters: hex, hex, data blocks of 4096 bytes, bytes of data."""

    root_hash: str
    salt: str
    blocks: int
    hash_offset: int


class Volume(NamedTuple):
    """A volume that the config names; `ref` as in the config, `repo` gives the salt, and an image a name."""

    name: str
    repo: str
    ref: verity.VolumeRef


class Package(NamedTuple):
    """A binary package in an image ("initrd", "root", …) and the SHA-256 of its archive."""

    image: str
    name: str
    version: str
    architecture: str
    sha256: str


class Manifest(NamedTuple):
    """One build. `memory` in MiB, `source_date_epoch` in seconds; packages, tools and the files of reference
    values are sorted."""

    name: str
    distribution: str
    profile: str
    kernel: Artefact
    initrd: Artefact
    root: Artefact
    verity: Root
    config: Artefact
    command_line: str
    cpus: int
    memory: int
    gpus: int
    volumes: tuple[Volume, ...]
    packages: tuple[Package, ...]
    tools: tuple[tuple[str, str], ...]
    source_date_epoch: int
    gpu_reference_values: tuple[Artefact, ...] = ()

    @classmethod
    def load(cls, data: bytes) -> Manifest:
        """Raises `Malformed`, naming the member, unless `data` is a consistent manifest."""
        return _load(data)

    def dump(self) -> bytes:
        """The canonical bytes; raises `Malformed` where `load` would not give this value back."""
        data = json.dumps(_document(self), indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"
        if _load(data) != self:
            raise Malformed("the manifest does not survive writing and reading")
        return data


def _document(m: Manifest) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "name": m.name,
        "distribution": m.distribution,
        "profile": m.profile,
        "artefacts": {
            "kernel": m.kernel._asdict(),
            "initrd": m.initrd._asdict(),
            "root": m.root._asdict(),
        },
        "root": m.verity._asdict(),
        "config": m.config._asdict(),
        "command_line": m.command_line,
        "cpus": m.cpus,
        "memory": m.memory,
        "gpus": m.gpus,
        "gpu_reference_values": [file._asdict() for file in m.gpu_reference_values],
        "volumes": [{"name": v.name, "repo": v.repo, "ref": str(v.ref)} for v in m.volumes],
        "packages": [p._asdict() for p in m.packages],
        "tools": dict(m.tools),
        "source_date_epoch": m.source_date_epoch,
    }


def _load(data: bytes) -> Manifest:
    top = parse_object("manifest", data, LIMIT)
    if (schema := top.integer("schema", 1, 1 << 31)) != SCHEMA:
        raise Malformed(
            f"manifest.schema is {schema}, expected {SCHEMA}", "build again with this version of tinboot"
        )
    artefacts, tools = top.record("artefacts"), top.record("tools")
    manifest = Manifest(
        name=top.text("name"),
        distribution=top.text("distribution"),
        profile=top.text("profile"),
        kernel=_artefact(artefacts.record("kernel")),
        initrd=_artefact(artefacts.record("initrd")),
        root=_artefact(artefacts.record("root")),
        verity=_root(top.record("root")),
        config=_artefact(top.record("config"), configdisk.LIMIT),
        command_line=top.text("command_line", cmdline.LIMIT),
        cpus=top.integer("cpus", 1, 1 << 16),
        memory=top.integer("memory", 1, 1 << 32),
        gpus=top.integer("gpus", 0, 1 << 8),
        volumes=tuple(_volume(v) for v in top.records("volumes")),
        packages=tuple(_package(p) for p in top.records("packages")),
        tools=tuple((name, tools.text(name)) for name in sorted(tools.names)),
        source_date_epoch=top.integer("source_date_epoch", 0, 1 << 40),
        gpu_reference_values=tuple(_artefact(file) for file in top.records("gpu_reference_values")),
    )
    artefacts.end()
    top.end()
    _consistent(manifest)
    return manifest


def _artefact(fields: Fields, limit: int = 1 << 46) -> Artefact:
    artefact = Artefact(
        fields.file_name("file"), fields.hexadecimal("sha256", 64), fields.integer("size", 1, limit)
    )
    fields.end()
    return artefact


def _root(fields: Fields) -> Root:
    root = Root(
        fields.hexadecimal("root_hash", 64),
        fields.hexadecimal("salt", 64),
        fields.integer("blocks", 1, 1 << 40),
        fields.integer("hash_offset", verity.BLOCK, 1 << 52),
    )
    fields.end()
    return root


def _volume(fields: Fields) -> Volume:
    name, repo, text = fields.text("name", 512), fields.text("repo", 512), fields.text("ref")
    fields.end()
    try:
        return Volume(name, repo, verity.parse_volume_ref(text))
    except ValueError as error:
        raise Malformed(f"{fields.where}.ref: {error}") from error


def _package(fields: Fields) -> Package:
    package = Package(
        fields.text("image"),
        fields.text("name"),
        fields.text("version"),
        fields.text("architecture"),
        fields.hexadecimal("sha256", 64),
    )
    fields.end()
    return package


def _consistent(m: Manifest) -> None:
    """One fact stands in more than one place here; a manifest that disagrees with itself starts nothing."""
    try:
        line = cmdline.parse(m.command_line)
    except Refusal as error:
        raise Malformed(f"manifest.command_line: {error.detail}") from error
    expected = cmdline.CommandLine(m.config.sha256, m.verity.root_hash, m.verity.salt, m.verity.blocks)
    for field, got, want in zip(expected._fields, line, expected, strict=True):
        if got != want:
            raise Malformed(f"manifest.command_line has {field} {got}, the rest of the manifest has {want}")
    if m.command_line != cmdline.render(line):
        raise Malformed("manifest.command_line has the firmware's suffix, which is no part of it")
    if m.verity.hash_offset != m.verity.blocks * verity.BLOCK:
        raise Malformed(
            f"manifest.root.hash_offset is {m.verity.hash_offset}, "
            f"expected {m.verity.blocks} blocks of {verity.BLOCK} bytes"
        )
    whole = verity.file_blocks(m.verity.blocks) * verity.BLOCK
    if m.root.size != whole:
        raise Malformed(f"manifest.artefacts.root.size is {m.root.size}, expected {whole} with its hash tree")
    files = (m.kernel.file, m.initrd.file, m.root.file, CONFIG_DISK, FILE)
    if len(set(files)) != len(files):
        raise Malformed(f"manifest.artefacts: one name stands for two files: {', '.join(sorted(files))}")
    names = [volume.name for volume in m.volumes]
    if len(set(names)) != len(names):
        raise Malformed("manifest.volumes: two have one name")
    named = [file.file for file in m.gpu_reference_values]
    if named and (REFERENCE_VALUES not in named or sorted(set(named)) != named):
        raise Malformed(
            f"manifest.gpu_reference_values is not {REFERENCE_VALUES} and RIMs, sorted by file, each once"
        )
    if any(a >= b for a, b in zip(m.packages, m.packages[1:], strict=False)):
        raise Malformed("manifest.packages is not sorted by image, name, version and architecture, each once")
