"""Container images for tests: layers from lists of members, and layouts in which one thing can be wrong."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tinboot.builder.tools import find_tool

OCI = "application/vnd.oci.image."
LAYER = OCI + "layer.v1.tar"


class Made(NamedTuple):
    """A blob: media type, digest, bytes, as a descriptor and as such."""

    descriptor: dict[str, object]
    data: bytes

    @property
    def digest(self) -> str:
        return str(self.descriptor["digest"])


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def blob(media_type: str, data: bytes, **more: object) -> Made:
    descriptor = {"mediaType": media_type, "digest": digest_of(data), "size": len(data), **more}
    return Made(descriptor, data)


def document(media_type: str, value: object, **more: object) -> Made:
    return blob(media_type, json.dumps(value).encode(), **more)


class Member(tarfile.TarInfo):
    """With its bytes."""

    data = b""


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> Member:
    """Of a layer; `fields` are attributes."""
    info = Member(name)
    info.type = kind
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def folder(name: str, **fields: object) -> Member:
    return member(name, tarfile.DIRTYPE, **fields)


def tar(members: Sequence[Member], form: int = tarfile.PAX_FORMAT) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as archive:
        for info in members:
            info.size = len(info.data)
            archive.addfile(info, io.BytesIO(info.data))
    return made.getvalue()


def compressed(data: bytes, how: str) -> bytes:
    if how == "gzip":
        return gzip.compress(data, mtime=0)
    if how == "zstd":
        command = [*find_tool("zstd").argv, "--quiet", "--stdout"]
        return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout
    return data


class Layout:
    """A layout that is written by `write` or `archive`; tests change `index`, `blobs` or `mark` before."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.index: dict[str, object] = {"schemaVersion": 2, "manifests": []}
        self.mark: object = {"imageLayoutVersion": "1.0.0"}

    def add(self, made: Made) -> dict[str, object]:
        self.blobs[made.digest] = made.data
        return made.descriptor

    def image(
        self,
        layers: Sequence[bytes],
        how: str = "",
        config: Mapping[str, object] | None = None,
        manifest: Mapping[str, object] | None = None,
    ) -> Made:
        """Adds an image of these layers' tars, not to the index; `config`, `manifest`: members to replace."""
        suffix = f"+{how}" if how else ""
        described = [self.add(blob(LAYER + suffix, compressed(data, how))) for data in layers]
        configuration = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": ["/serve"]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(data) for data in layers]},
            **(config or {}),
        }
        value = {
            "schemaVersion": 2,
            "mediaType": OCI + "manifest.v1+json",
            "config": self.add(document(OCI + "config.v1+json", configuration)),
            "layers": described,
            **(manifest or {}),
        }
        made = document(OCI + "manifest.v1+json", value)
        self.add(made)
        return made

    def entry(self, made: Made, ref: str | None = None, **more: object) -> None:
        """Puts an image into the layout's index."""
        annotations = {"annotations": {"org.opencontainers.image.ref.name": ref}} if ref else {}
        manifests = self.index["manifests"]
        assert isinstance(manifests, list)
        manifests.append({**made.descriptor, **annotations, **more})

    def files(self) -> dict[str, bytes]:
        named = {f"blobs/sha256/{digest[7:]}": data for digest, data in self.blobs.items()}
        documents = {"oci-layout": self.mark, "index.json": self.index}
        return named | {name: json.dumps(value).encode() for name, value in documents.items()}

    def write(self, path: Path) -> Path:
        for name, data in self.files().items():
            target = path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        return path

    def archive(self, path: Path) -> Path:
        path.write_bytes(tar([member(name, data=data) for name, data in self.files().items()]))
        return path
