"""A build directory as the launcher reads it: the manifest, its files checked, its volumes found.

Every byte that QEMU will be given is compared with the manifest before anything starts. The guest
checks all of it again; here it turns a halt at boot into an error that names the file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from tinboot.formats import (
    bootlog,
    cmdline,
    config,
    configdisk,
    gpugate,
    launchspec,
    manifest,
    operatorinput,
    verity,
)
from tinboot.formats.errors import Malformed, Mismatch, Refused, TinbootError, Unavailable
from tinboot.formats.halt import Refusal
from tinboot.formats.launchspec import Disk, Forward, LaunchSpec, Measured
from tinboot.formats.manifest import Artefact, Manifest, Volume

_CHUNK = 1 << 20
_CHANGED = "the file changed after the build; build again, or restore it"

#: Called with the name of a file and the bytes of it that were read since the last call.
Progress = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Build:
    """A directory whose kernel, initrd, root and config disk are the manifest's."""

    directory: Path
    manifest: Manifest


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a build directory; nothing else is looked at."""
    path = directory / manifest.FILE
    with _naming(path, "is this a directory that `tinboot build` made?"):
        _size(path)
        with path.open("rb") as file:
            data = file.read(manifest.LIMIT + 1)
        return Manifest.load(data)


def check(directory: Path, found: Manifest, progress: Progress = lambda _name, _size: None) -> Build:
    """Reads each file of the build once; raises `Mismatch` for the first that is not the manifest's."""
    for artefact in (found.kernel, found.initrd, found.root):
        _check_artefact(directory / artefact.file, artefact, progress)
    _check_config(directory / manifest.CONFIG_DISK, found.config)
    return Build(directory, found)


def match_volumes(found: Manifest, given: Sequence[str]) -> dict[str, Path]:
    """Volume name -> file, for every volume of the config; `given` are `NAME=PATH` or `PATH`.

    A file is told by its content: the top block of its hash tree hashes to the root hash, which the
    config names together with where the tree begins. One read of 4096 bytes for each candidate.
    """
    volumes = {volume.name: volume for volume in found.volumes}
    matched: dict[str, Path] = {}
    for text in given:
        name, equals, rest = text.partition("=")
        if equals and name in volumes:
            path, candidates = Path(rest), [volumes[name]]
        else:
            path, candidates = Path(text), list(found.volumes)
        fitting = [volume for volume in candidates if _is_volume(path, volume)]
        if not fitting:
            raise Mismatch(
                f"{path}: not {_any_of(candidates)}",
                "the top of its hash tree does not hash to the config's root hash: is it another revision?",
            )
        open_ones = [volume for volume in fitting if volume.name not in matched]
        if not open_ones:
            raise Refused(f"{path}: the volume {fitting[0].name} is given twice")
        matched[open_ones[0].name] = path
    if missing := [name for name in volumes if name not in matched]:
        raise Refused(
            f"the config names {_count(len(volumes))}, no file is given for {', '.join(missing)}",
            f"add --volume {missing[0]}=FILE; the guest halts when a volume is missing",
        )
    return matched


def launch_spec(
    build: Build,
    volumes: dict[str, Path],
    firmware: Path | None,
    gpus: Sequence[str],
    forwards: Sequence[Forward],
    ocsp: Path | None = None,
    operator: Path | None = None,
) -> LaunchSpec:
    """The specification of a launch of `build`, with absolute paths, not yet validated.

    `ocsp`: a disk. `operator`: the JSON itself, which QEMU reads as a disk with NULs up to the sector.
    """
    found = build.manifest
    here = build.directory.absolute()
    refs = {volume.name: volume.ref for volume in found.volumes}
    return LaunchSpec(
        measured=Measured(
            firmware=None if firmware is None else str(firmware.absolute()),
            kernel=str(here / found.kernel.file),
            initrd=str(here / found.initrd.file),
            command_line=cmdline.parse(found.command_line),
            vcpus=found.cpus,
        ),
        memory=found.memory,
        disks=(
            Disk("config", str(here / manifest.CONFIG_DISK), configdisk.SERIAL),
            Disk("root", str(here / found.root.file), verity.serial_for(found.verity.root_hash)),
            *(
                Disk("volume", str(path.absolute()), verity.serial_for(refs[name].root_hash))
                for name, path in volumes.items()
            ),
            *(
                Disk(role, str(path.absolute()), serial)
                for role, path, serial in (
                    ("gpu-ocsp", ocsp, gpugate.OCSP_SERIAL),
                    ("operator", operator, bootlog.OPERATOR_SERIAL),
                )
                if path is not None
            ),
        ),
        gpus=tuple(gpus),
        forwards=tuple(forwards),
    )


def check_operator(build: Build, path: Path) -> None:
    """That the file has what the config asks for and nothing else; its errors are the guest's refusals."""
    with _naming(path, "docs/launch.md says what an operator may give"):
        _size(path)
        with path.open("rb") as file:
            data = file.read(operatorinput.MAX_SIZE + 1)
        given = operatorinput.parse(data)
    try:
        disk = (build.directory / manifest.CONFIG_DISK).read_bytes()  # `check` has compared it
        loaded = config.load(configdisk.unpad(disk))
    except Refusal as error:
        raise Mismatch(f"the config of {build.directory}: {error.detail}", "build again") from error
    with _naming(path, "the guest would halt"):
        if not loaded.has_services:
            raise Refused("the config has no services, so that nobody reads it")
        operatorinput.check(given, loaded)


def pci_address(text: str) -> str:
    """`text` in lower case and with its domain; raises `Refused` unless it is a PCI address."""
    address = text.lower()
    if address.count(":") == 1:
        address = f"0000:{address}"
    if not launchspec.PCI_ADDRESS.fullmatch(address):
        raise Refused(f"{text!r} is not a PCI address like 0000:41:00.0", "lspci -D -d 10de: lists them")
    return address


def _check_artefact(path: Path, artefact: Artefact, progress: Progress) -> None:
    with _naming(path, "build again: the directory is not complete"):
        if (size := _size(path)) != artefact.size:
            raise Mismatch(f"{size} bytes, the manifest has {artefact.size}", _CHANGED)
        digest = sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                progress(artefact.file, len(chunk))
        if digest.hexdigest() != artefact.sha256:
            raise Mismatch(f"SHA-256 {digest.hexdigest()}, the manifest has {artefact.sha256}", _CHANGED)


def _check_config(path: Path, config: Artefact) -> None:
    with _naming(path, "build again: the directory is not complete"):
        _size(path)
        with path.open("rb") as file:
            disk = file.read(configdisk.LIMIT + configdisk.SECTOR + 1)
        try:
            content = configdisk.unpad(disk)
        except Refusal as error:
            raise Mismatch(f"{error.reason}: {error.detail}", _CHANGED) from error
        got = sha256(content).hexdigest()
        if (len(content), got) != (config.size, config.sha256):
            raise Mismatch(
                f"a config of {len(content)} bytes with SHA-256 {got}, "
                f"the manifest has {config.size} bytes with {config.sha256}",
                _CHANGED,
            )


def _is_volume(path: Path, volume: Volume) -> bool:
    blocks = volume.ref.hash_offset // verity.BLOCK
    top = verity.level_starts(blocks)[-1] if blocks > 1 else 0
    with _naming(path, "give a file that `tinboot wrap` made"):
        if _size(path) != verity.file_blocks(blocks) * verity.BLOCK:
            return False
        with path.open("rb") as file:
            file.seek(top * verity.BLOCK)
            block = file.read(verity.BLOCK)
    salt = bytes.fromhex(verity.salt_for(volume.repo))
    return verity.block_digest(salt, block).hex() == volume.ref.root_hash


def _size(path: Path) -> int:
    """Bytes of a file or a block device; anything else is not opened at all, for it might never end."""
    info = path.stat()
    if stat.S_ISBLK(info.st_mode):
        with path.open("rb") as device:
            return device.seek(0, os.SEEK_END)
    if not stat.S_ISREG(info.st_mode):
        raise Malformed("neither a file nor a block device")
    return info.st_size


@contextmanager
def _naming(path: Path, missing: str) -> Iterator[None]:
    """Puts the path in front of an error, and makes one of ours from an OSError."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}", missing) from error
    except TinbootError as error:
        raise type(error)(f"{path}: {error.message}", error.hint) from error


def _any_of(volumes: Sequence[Volume]) -> str:
    if not volumes:
        return "wanted: the config names no volume"
    return "the volume " + " or ".join(volume.name for volume in volumes)


def _count(volumes: int) -> str:
    return "one volume" if volumes == 1 else f"{volumes} volumes"
