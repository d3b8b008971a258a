"""From an image and a config to a build: everything that a launch needs, in one folder.

kernel initrd root           the image's, hard-linked where the file system allows
config.yml config.disk       the config's bytes, and the same padded for its disk
cmdline                      the kernel command line, no newline
manifest.json                what all of it is (tinboot/formats/manifest.py)
{kernel,initrd,root}.cdx.json  bills of materials
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from tinboot.builder import output
from tinboot.builder.image import Image
from tinboot.builder.mkosi import Mkosi
from tinboot.builder.recipe import Recipe
from tinboot.formats import cmdline, config, config_supported, config_workload, configdisk, manifest, verity
from tinboot.formats.errors import Malformed, Refused, Unavailable
from tinboot.formats.halt import Refusal

#: The second that every time stamp in an image is; mkosi.conf's SourceDateEpoch=, and a test compares.
SOURCE_DATE_EPOCH = 1756857600

_FROM_IMAGE = ("kernel", "initrd", "root", "kernel.cdx.json", "initrd.cdx.json", "root.cdx.json")


def read_config(path: Path) -> tuple[bytes, config.Config]:
    """The config's bytes and meaning.

    Raises `Malformed` with file and line, `Refused` for what no image does, `Unavailable` if unreadable.
    """
    try:
        with path.open("rb") as file:
            data = file.read(configdisk.LIMIT + 1)
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error
    try:
        configdisk.pad(data)
        parsed = config.load(data)
    except Refusal as refusal:
        raise Malformed(
            f"{path}: {refusal.detail}", f"{refusal.reason}: docs/config.md has every key and its rules"
        ) from refusal
    try:
        config_supported.check(parsed)
        for container in parsed.containers:
            config_workload.check(parsed, container)
    except Refused as error:
        raise Refused(f"{path}: {error.message}", "docs/config.md lists what is not there yet") from error
    return data, parsed


def assemble(path: Path, image: Image, recipe: Recipe, mkosi: Mkosi, final: Path) -> manifest.Manifest:
    """The build of the config at `path` in the folder `final`, whole or not at all.

    A former build at `final` is replaced; anything else there is refused.
    """
    data, parsed = read_config(path)
    check_output(final)
    line = cmdline.CommandLine(hashlib.sha256(data).hexdigest(), *image.verity)
    opened = image.verity
    described = manifest.Manifest(
        name=recipe.name,
        distribution=recipe.distribution,
        profile=recipe.profile,
        kernel=_artefact(image.folder, "kernel"),
        initrd=_artefact(image.folder, "initrd"),
        root=_artefact(image.folder, "root"),
        verity=manifest.Root(*opened, opened.blocks * verity.BLOCK),
        config=manifest.Artefact("config.yml", line.config_hash, len(data)),
        command_line=cmdline.render(line),
        cpus=parsed.cpus,
        memory=parsed.memory,
        gpus=parsed.gpus,
        volumes=_volumes(parsed),
        packages=image.packages,
        tools=(
            ("mkosi", mkosi.version),
            ("tools.lock", _sha256(recipe.repository / "packages/tools.lock")),
        ),
        source_date_epoch=SOURCE_DATE_EPOCH,
        gpu_reference_values=_reference_files(recipe),
    )
    with output.scratch(final) as scratch:
        folder = scratch / "build"
        try:
            folder.mkdir(mode=0o755)
            for name in _FROM_IMAGE:
                _link(image.folder / name, folder / name)
            (folder / "config.yml").write_bytes(data)
            (folder / manifest.CONFIG_DISK).write_bytes(configdisk.pad(data))
            (folder / "cmdline").write_text(described.command_line, "ascii")
            (folder / manifest.FILE).write_bytes(described.dump())
            for made in folder.iterdir():
                output.sync(made)
            output.replace_folder(folder, final)
        except OSError as error:
            raise output.unavailable(error, final) from error
    return described


def check_output(final: Path) -> None:
    """`Refused` if something else than a build is there, `Unavailable` if nothing can be made there."""
    if os.path.lexists(final) and not (final / manifest.FILE).exists():
        raise Refused(
            f"{final} is there and is no build", "choose another folder with --output, or remove it"
        )
    with output.scratch(final):
        pass


def _volumes(parsed: config.Config) -> tuple[manifest.Volume, ...]:
    models = (manifest.Volume(model.name, model.repo, model.volume) for model in parsed.models)
    images = (manifest.Volume(image.image, image.image, image.volume) for image in parsed.images)
    return (*models, *images)


def _artefact(folder: Path, name: str) -> manifest.Artefact:
    return manifest.Artefact(name, _sha256(folder / name), (folder / name).stat().st_size)


def _reference_files(recipe: Recipe) -> tuple[manifest.Artefact, ...]:
    found = recipe.reference.digests if recipe.reference is not None else ()
    return tuple(sorted(manifest.Artefact(path.rpartition("/")[2], digest, n) for path, digest, n in found))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # another file system
        shutil.copyfile(source, target)
