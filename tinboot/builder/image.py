"""Builds an image with mkosi, from locked packages, without a network: kernel, initrd, root.

An image is cached in `build/images/<name>-<digest of its recipe>/` and is independent of any config:
    kernel  initrd  root  kernel.config  {kernel,initrd,root}.cdx.json  image.json
Builds are hard links into it, so what was written to one of them was written to all: such an image is made
again, as the hashes in its image.json tell.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tinboot.builder import cache, driver, hashtree, initrd, kernel_options, output, payload, sbom
from tinboot.builder.lockfile import Lock
from tinboot.builder.mkosi import Report
from tinboot.builder.prepare import Toolchain
from tinboot.builder.recipe import PYTHON, Recipe
from tinboot.formats import erofs, verity
from tinboot.formats.errors import Malformed, Refused
from tinboot.formats.manifest import Package

#: mkosi's names of what the three images give, and ours.
_FROM_MKOSI = {"kernel.vmlinuz": "kernel", "root.root.raw": "root", "kernel.config": "kernel.config"}

_IMAGES = ("kernel", "initrd", "root")

#: Images of one name that stay: one of 60 MB for each state of the recipe that is worked on.
_KEPT = 4

#: The UUID in the root's verity superblock, which nothing reads; the same as mkosi's Seed= for the root.
ROOT_UUID = "7f2c1d54-0b5a-4a1e-9d55-3d2f6f0c9a01"


@dataclass(frozen=True, slots=True)
class Image:
    """A finished image. `folder` holds the files; `packages` says what is in each of the three."""

    folder: Path
    verity: verity.Verity
    packages: tuple[Package, ...]

    @classmethod
    def read(cls, folder: Path) -> Image:
        """From a folder that `build` completed."""
        fields = json.loads((folder / "image.json").read_text("utf-8"))
        return cls(
            folder,
            verity.Verity(**fields["verity"]),
            tuple(Package(**package) for package in fields["packages"]),
        )


def build(recipe: Recipe, chain: Toolchain, images: Path, report: Report) -> Image:
    """The image of `recipe`, from the cache in `images` if it is there.

    Raises `Unavailable` if mkosi fails, with the end of its output and the place of the rest, `Refused`
    for a path it would split.
    """
    for folder in (recipe.repository, images):
        if any(c.isspace() or c in ":,%" for c in str(folder)):
            raise Refused(
                f"mkosi cannot take {str(folder)!r}: a space, colon, comma or percent sign is in it",
                "move the checkout, or name another folder with TINBOOT_BUILD",
            )
    final = images / f"{recipe.name}-{recipe.digest(chain.mkosi.version)[:16]}"
    with cache.alone(images / f".{recipe.name}.lock", report):
        if final.exists() and not _intact(final):
            report(f"{final.name} was changed since it was made: making it again")
            shutil.rmtree(final)
        if not final.exists():
            cache.prune(images, recipe.name, _KEPT - 1)
            try:
                with output.scratch(final) as scratch:
                    _run(recipe, chain, scratch, images / f"{recipe.name}.log", report)
                    _complete(recipe, scratch / "mkosi", scratch / "image")
                    (scratch / "image").replace(final)
            except OSError as error:
                raise output.unavailable(error, images) from error
        cache.used(final)
    return Image.read(final)


def _intact(folder: Path) -> bool:
    try:
        files = json.loads((folder / "image.json").read_text("utf-8"))["files"]
        return all(_sha256(folder / name) == digest for name, digest in files.items())
    except (OSError, ValueError, KeyError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _run(recipe: Recipe, chain: Toolchain, scratch: Path, log: Path, report: Report) -> None:
    """mkosi's outputs, under its names, into `scratch`/mkosi."""
    options = [
        f"--directory={recipe.repository}",
        f"--distribution={recipe.distribution}",
        *(["--profile=debug"] if recipe.profile == "debug" else []),
        f"--tools-tree={chain.tools}",
        f"--package-directory={chain.packages}",
        f"--package-cache-directory={scratch / 'cache'}",
        f"--output-directory={scratch / 'mkosi'}",
    ]
    (scratch / "cache").mkdir()
    (scratch / "mkosi").mkdir()
    payload.stage(scratch / "mkosi" / payload.FOLDER, chain.python, recipe.reference)
    chain.mkosi.build(options, sources="", scratch=scratch, log=log, network=False, report=report)


def _complete(recipe: Recipe, made: Path, folder: Path) -> None:
    """From mkosi's outputs in `made` to an image: nodes in the initrd, hash tree behind the root, SBOMs."""
    folder.mkdir()
    for theirs, ours in _FROM_MKOSI.items():
        (made / theirs).replace(folder / ours)
    values = {"python": PYTHON[recipe.distribution], "triplet": "x86_64-linux-gnu"}
    lists = recipe.inventories("initrd")
    (folder / "initrd").write_bytes(initrd.finish(made / "initrd.cpio.zst", lists, values))
    opened = _append_tree(folder / "root", f"tinboot-root@{recipe.name}")
    for image in _IMAGES:
        sbom.write(made / f"{image}.dpkg-status", folder / f"{image}.cdx.json", recipe, image)
    packages = _packages(made, recipe.lock())
    if loaded := recipe.driver_modules():
        kernel_options.check((folder / "kernel.config").read_text("utf-8"), loaded)
        driver.check_kernel(packages)
    fields = {
        "verity": opened._asdict(),
        "packages": [package._asdict() for package in packages],
        "files": {path.name: _sha256(path) for path in sorted(folder.iterdir())},
    }
    (folder / "image.json").write_text(json.dumps(fields, indent=1) + "\n", "utf-8")
    for path in folder.iterdir():
        path.chmod(0o644)


def _append_tree(root: Path, identity: str) -> verity.Verity:
    """Cuts the partition to its file system, whose block count the guest compares, and adds the tree."""
    with root.open("rb") as file:
        superblock = erofs.parse_superblock(file.read(verity.BLOCK))
    length = superblock.blocks << superblock.block_bits
    if length % verity.BLOCK or length > root.stat().st_size:
        raise Malformed(
            f"the root's file system says {length} bytes, its partition has {root.stat().st_size}"
        )
    os.truncate(root, length)
    return hashtree.append_tree(root, verity.salt_for(identity), ROOT_UUID)


def _packages(folder: Path, lock: Lock) -> tuple[Package, ...]:
    """mkosi's own lists, with the hashes of the lock; raises `Refused` for a package that is not in it."""
    locked = {(p.name, p.version, p.architecture): p.sha256 for p in lock.packages}
    found = []
    for image in _IMAGES:
        listed = json.loads((folder / f"{image}.manifest").read_text("utf-8"))["packages"]
        for entry in listed:
            key = (entry["name"], entry["version"], entry["architecture"])
            if key not in locked:
                raise Refused(
                    f"{image} holds {' '.join(key)}, which packages/{lock.distribution}.lock does not"
                )
            found.append(Package(image, *key, locked[key]))
    return tuple(sorted(found))
