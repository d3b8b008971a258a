"""A small made-up build, as `tinboot build` leaves one: each file is the manifest's."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from tinboot.formats import cmdline, configdisk, manifest, verity

UUID = "00000000-0000-0000-0000-000000000000"


@dataclass
class Made:
    directory: Path
    manifest: manifest.Manifest
    volumes: dict[str, Path]


def _tree(path: Path, data: bytes, salt: str) -> str:
    """Writes data, superblock and a one-block tree (up to 128 data blocks); returns the root hash."""
    blocks = [data[at : at + verity.BLOCK] for at in range(0, len(data), verity.BLOCK)]
    digests = [verity.block_digest(bytes.fromhex(salt), block) for block in blocks]
    top = b"".join(digests).ljust(verity.BLOCK, b"\0")
    if len(blocks) == 1:
        path.write_bytes(data + bytes(verity.BLOCK))
        return digests[0].hex()
    path.write_bytes(data + bytes(verity.BLOCK) + top)
    return verity.block_digest(bytes.fromhex(salt), top).hex()


def _artefact(path: Path, content: bytes | None = None) -> manifest.Artefact:
    if content is not None:
        path.write_bytes(content)
    data = path.read_bytes()
    return manifest.Artefact(path.name, sha256(data).hexdigest(), len(data))


CONFIG = b"cpus: 2\nmemory: 1024\nshim: {upstream-port: 8080}\n"


def make(folder: Path, config: bytes = CONFIG) -> Made:
    """Two volumes in `folder`, and the build in `folder`/build."""
    directory = folder / "build"
    directory.mkdir()
    volumes, entries = {}, []
    for name, size in (("one", 1), ("two", 5)):
        path = folder / f"{name}.raw"
        root_hash = _tree(path, name.encode().ljust(size * 4096, b"\1"), verity.salt_for(f"org/{name}@1"))
        volumes[name] = path
        ref = verity.VolumeRef(root_hash, size * 4096, UUID)
        entries.append(manifest.Volume(name, f"org/{name}@1", ref))
    (directory / manifest.CONFIG_DISK).write_bytes(configdisk.pad(config))
    salt = "5" * 64
    root_hash = _tree(directory / "root.raw", bytes(7 * 4096), salt)
    config_hash = sha256(config).hexdigest()
    found = manifest.Manifest(
        name="tinboot",
        distribution="debian",
        profile="release",
        kernel=_artefact(directory / "vmlinuz", b"kernel"),
        initrd=_artefact(directory / "initrd", b"initrd"),
        root=_artefact(directory / "root.raw"),
        verity=manifest.Root(root_hash, salt, 7, 7 * 4096),
        config=manifest.Artefact("tinboot.yml", config_hash, len(config)),
        command_line=cmdline.render(cmdline.CommandLine(config_hash, root_hash, salt, 7)),
        cpus=2,
        memory=1024,
        gpus=0,
        volumes=tuple(entries),
        packages=(),
        tools=(),
        source_date_epoch=0,
    )
    write(directory, found)
    return Made(directory, found, volumes)


def write(directory: Path, value: manifest.Manifest) -> None:
    (directory / manifest.FILE).write_bytes(value.dump())
