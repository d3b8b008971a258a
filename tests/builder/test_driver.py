"""NVIDIA's driver in a root: modules in load order, all parts of one version, for the kernel that boots."""

from __future__ import annotations

import lzma
import subprocess
import sys
from pathlib import Path

import pytest

from tinboot.builder import driver, places
from tinboot.formats.errors import Malformed, Refused
from tinboot.formats.manifest import Package

VERSION = "580.95.05"
KERNEL = "7.0.0-14-generic"
#: modules.dep of a kernel as Ubuntu's, where `ecc` is shared and the driver has a folder of its own.
DEP = """\
kernel/crypto/ecc.ko.zst:
kernel/crypto/ecdsa_generic.ko.xz: kernel/crypto/ecc.ko.zst
kernel/crypto/ecdh_generic.ko: kernel/crypto/ecc.ko.zst
kernel/nvidia-580srv-open/nvidia.ko:
kernel/nvidia-580srv-open/nvidia-uvm.ko: kernel/nvidia-580srv-open/nvidia.ko
kernel/drivers/other.ko:
"""
LIST = "# first\necdh_generic\necdsa_generic  # then\n\nnvidia\nnvidia-uvm\n"
ORDER = ["crypto/ecc", "crypto/ecdh_generic", "crypto/ecdsa_generic"]
ORDER += ["nvidia-580srv-open/nvidia", "nvidia-580srv-open/nvidia-uvm"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """/usr/lib/modules/<version> of a root before its inventory was applied."""
    folder = tmp_path / "modules" / KERNEL
    files = {line.split(":")[0] for line in DEP.splitlines()}
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = f"module\0version={VERSION}\0license=Dual MIT/GPL\0".encode()
        if name.endswith(".zst"):
            subprocess.run(["zstd", "-q", "-o", path], input=data, check=True)
        else:
            path.write_bytes(lzma.compress(data) if name.endswith(".xz") else data)
    (folder / "modules.dep").write_text(DEP)
    (folder / "modules.builtin").write_text("kernel/crypto/rsa_generic.ko\nkernel/lib/a-b.ko\n")
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A root with the driver's library and firmware, and the empty list that the finalize script wrote."""
    root = tmp_path / "root"
    for path in (
        f"usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{VERSION}",
        f"usr/lib/firmware/nvidia/{VERSION}/gsp_ga10x.bin",
        driver.ORDER,
    ):
        (root / path).parent.mkdir(parents=True)
        (root / path).touch()
    (root / "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1").symlink_to(f"libnvidia-ml.so.{VERSION}")
    return root


def stage(source: Path, tree: Path, text: str = LIST) -> None:
    driver.stage(driver.parse("list", text), source, tree)


def test_dependencies_first_and_unpacked(source: Path, tree: Path) -> None:
    stage(source, tree)
    paths = [f"/usr/lib/modules/{KERNEL}/kernel/{name}.ko" for name in ORDER]
    assert (tree / driver.ORDER).read_text().splitlines() == paths
    for path in paths:
        file = tree / path.removeprefix("/")
        assert file.read_bytes().startswith(b"module\0")
        assert file.stat().st_mode & 0o7777 == 0o644
        assert file.parent.stat().st_mode & 0o7777 == 0o755
    assert not (tree / f"usr/lib/modules/{KERNEL}/kernel/drivers").exists()


def test_what_is_built_in_is_passed_over(source: Path, tree: Path) -> None:
    stage(source, tree, "rsa_generic\na_b\nnvidia\n")
    assert len((tree / driver.ORDER).read_text().splitlines()) == 1


def test_what_is_absent_is_named(source: Path, tree: Path) -> None:
    with pytest.raises(Refused, match=r"neither built in nor there: gcm, sha512_generic$"):
        stage(source, tree, "gcm\nnvidia\nsha512-generic\n")


@pytest.mark.parametrize("part", ["library", "firmware", "module", "untold", "two libraries", "no firmware"])
def test_versions_must_be_one(source: Path, tree: Path, part: str) -> None:
    other = "580.105.08"
    libraries, firmware = tree / "usr/lib/x86_64-linux-gnu", tree / "usr/lib/firmware/nvidia"
    module = source / "kernel/nvidia-580srv-open/nvidia.ko"
    match part:
        case "library":
            (libraries / f"libnvidia-ml.so.{VERSION}").rename(libraries / f"libnvidia-ml.so.{other}")
        case "two libraries":
            (libraries / f"libnvidia-ml.so.{other}").touch()
        case "firmware":
            (firmware / VERSION).rename(firmware / other)
        case "no firmware":
            (firmware / VERSION / "gsp_ga10x.bin").unlink()
        case "module":
            module.write_bytes(module.read_bytes().replace(VERSION.encode(), other.encode()))
        case "untold":
            module.write_bytes(b"srcversion=1\0")
    with pytest.raises(Refused, match=r"of different versions: nvidia\.ko .*libnvidia-ml .*GSP firmware"):
        stage(source, tree)


@pytest.mark.parametrize(
    "text", ["nvidia.ko\n", "kernel/a\n", "nvidia\nnvidia\n", "a-b\na_b\n", "Nvidia\n", "a b\n"]
)
def test_a_bad_list_names_file_and_line(text: str) -> None:
    with pytest.raises(Malformed, match=r"^list:\d: "):
        driver.parse("list", text)


def test_as_the_recipe_starts_it(source: Path, tree: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list"
    listed.write_text(LIST)
    command = [sys.executable, "-m", "tinboot.builder.driver", str(listed), str(source), str(tree)]
    done = subprocess.run(command, cwd=places.REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    listed.write_text("gone\n")
    done = subprocess.run(command, cwd=places.REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "error: of the driver's modules these are neither built in nor there: gone" in done.stderr
    command.insert(-1, str(source.with_name("7.0.0-13-generic")))
    done = subprocess.run(command, cwd=places.REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"error: the root has modules of 2 kernels: {KERNEL} 7.0.0-13-generic\n"


def package(image: str, name: str, version: str = "1") -> Package:
    return Package(image, name, version, "amd64", "0" * 64)


def test_the_version_in_an_image() -> None:
    assert driver.version([package("root", "libnvidia-ml1", "550.163.01-2")]) is None
    found = [package("kernel", "libnvidia-compute-580-server", "9"), package("root", "bash")]
    assert driver.version(found) is None
    found.append(package("root", "libnvidia-compute-580-server", "580.95.05-0ubuntu0.24.04.1"))
    assert driver.version(found) == "580.95.05"


def test_the_kernel_of_the_modules() -> None:
    image = package("kernel", f"linux-image-{KERNEL}")
    meta = package("root", "linux-modules-nvidia-580-server-open-generic-hwe-24.04")
    prefixes = ("linux-image-", "linux-image-unsigned-", "linux-modules-nvidia-580-server-open-")
    for prefix in prefixes:
        driver.check_kernel([image, meta, package("root", prefix + KERNEL)])
        with pytest.raises(
            Refused, match=r"are for the kernel 7\.0\.0-13-generic, the image's is 7\.0\.0-14-generic"
        ):
            driver.check_kernel([image, meta, package("root", f"{prefix}7.0.0-13-generic")])
    both = [package("root", f"{prefixes[0]}7.0.0-{number}-generic") for number in (13, 14)]
    with pytest.raises(Refused, match=r"7\.0\.0-13-generic, 7\.0\.0-14-generic, the image's is 7\.0\.0-14"):
        driver.check_kernel([image, *both])
    with pytest.raises(Refused, match="are for the kernel none that is named, the image's is 7"):
        driver.check_kernel([image, meta])
