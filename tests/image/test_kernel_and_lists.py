"""The kernel is the package's, the lists of packages and the bills of materials say what is in the images."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from artefacts import Packaged

from tinboot.builder import kernel_options, recipe
from tinboot.builder.image import Image

IMAGES = ("kernel", "initrd", "root")


def test_kernel_is_the_packages(release: Image, kernel_packages: dict[str, Packaged]) -> None:
    found = {path: file for path, file in kernel_packages.items() if path.startswith("boot/")}
    (vmlinuz,) = [file.data for path, file in found.items() if path.startswith("boot/vmlinuz-")]
    (config,) = [file.data for path, file in found.items() if path.startswith("boot/config-")]
    assert (release.folder / "kernel").read_bytes() == vmlinuz
    assert (release.folder / "kernel.config").read_bytes() == config


def test_kernel_has_what_the_design_needs(release: Image) -> None:
    """SNP guest, its report interfaces, verified roots (facts of the kernels, docs/build.md)."""
    lines = (release.folder / "kernel.config").read_text().splitlines()
    on = {line.partition("=")[0]: line.partition("=")[2] for line in lines if line.startswith("CONFIG_")}
    for name in ("AMD_MEM_ENCRYPT", "UNACCEPTED_MEMORY", "MODULE_SIG", "RD_ZSTD", "VIRTIO_PCI"):
        assert on.get(f"CONFIG_{name}") == "y", name
    for name in ("SEV_GUEST", "TSM_REPORTS", "DM_VERITY", "EROFS_FS", "VIRTIO_BLK"):
        assert on.get(f"CONFIG_{name}") in {"y", "m"}, name


def test_what_a_driver_would_lack(release: Image) -> None:
    """Debian's cloud kernel, by the list for Ubuntu's: all cryptography, some as modules, and no DRM."""
    config = (release.folder / "kernel.config").read_text()
    ubuntus = recipe.this_checkout("ubuntu", "release").driver_modules()
    found = [line.split(",")[0] for line in kernel_options.problems(config, ubuntus)]
    assert found == ["CONFIG_DRM is not set", "CONFIG_CRYPTO_GHASH is the module ghash_generic"]
    alone = {line.split()[0] for line in kernel_options.problems(config, []) if "module" in line}
    assert alone == {f"CONFIG_CRYPTO_{name}" for name in ("ECDH", "GCM", "GHASH")}


@pytest.mark.parametrize("name", IMAGES)
def test_packages_are_the_locked_ones(release: Image, wanted: recipe.Recipe, name: str) -> None:
    locked = {(p.name, p.version, p.architecture, p.sha256) for p in wanted.lock().packages}
    found = [(p.name, p.version, p.architecture, p.sha256) for p in release.packages if p.image == name]
    assert len(found) > 30
    assert set(found) <= locked
    assert len({p[0] for p in found}) == len(found)


@pytest.mark.parametrize("name", IMAGES)
def test_bill_of_materials_lists_exactly_the_packages(release: Image, name: str) -> None:
    document = json.loads((release.folder / f"{name}.cdx.json").read_text())
    assert document["bomFormat"] == "CycloneDX"
    binary = [
        c
        for c in document["components"]
        if c["purl"].startswith("pkg:deb/") and "arch=source" not in c["purl"]
    ]
    assert {(c["name"], c["version"]) for c in binary} == {
        (p.name, p.version) for p in release.packages if p.image == name
    }
    assert document["metadata"]["component"]["name"].endswith(f"-{name}")


def test_debug_is_another_image(release: Image, debug: Image) -> None:
    assert debug.verity.root_hash != release.verity.root_hash
    assert debug.verity.salt != release.verity.salt
    same = ("kernel", "initrd", "kernel.config")
    assert [n for n in same if _sha256(debug.folder / n) != _sha256(release.folder / n)] == []
    more = {p.name for p in debug.packages} - {p.name for p in release.packages}
    assert "procps" in more


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
