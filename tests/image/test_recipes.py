"""Both distributions' recipes, as mkosi reads them. Ubuntu's is complete though nothing here builds it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tinboot.builder import inventory, lockfile, mkosi_tool, modules, places, recipe, relock
from tinboot.verify import gpu_roots

IMAGES = {"kernel", "initrd", "root"}
#: Packages with another name in the other distribution.
KERNELS = {"debian": "linux-image-cloud-amd64", "ubuntu": "linux-image-generic-hwe-24.04"}
#: NVIDIA's in the root; Debian's is no driver (docs/build.md).
NVIDIA = {
    "debian": {"libnvidia-cfg1", "libnvidia-ml1", "nvidia-persistenced"},
    "ubuntu": {
        "libnvidia-cfg1-{}-server",
        "libnvidia-compute-{}-server",
        "linux-modules-nvidia-{}-server-open-generic-hwe-24.04",
        "nvidia-compute-utils-{}-server",
        "nvidia-kernel-common-{}-server",
    },
}
DRIVER = places.REPOSITORY / "mkosi.images/root/mkosi.conf.d/ubuntu.conf"


def branch() -> str:
    """Of NVIDIA's driver, from the one file that has it."""
    (found,) = set(re.findall(r"^ +lib\S+-([0-9]+)-server$", DRIVER.read_text(), re.MULTILINE))
    return str(found)


class Summary(NamedTuple):
    """What the tests look at of `mkosi summary` for one image."""

    distribution: str
    release: str
    architecture: str
    repositories: frozenset[str]
    packages: frozenset[str]
    epoch: int
    network: bool
    trees: frozenset[str]


def summary(distribution: str, profile: str = "release") -> dict[str, Summary]:
    tool = mkosi_tool.find_mkosi()
    options = [f"--directory={places.REPOSITORY}", f"--distribution={distribution}"]
    options += ["--profile=debug"] if profile == "debug" else []
    done = subprocess.run(
        [*tool.command, *options, "--output-directory=out", "--json", "summary"],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **tool.environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    return {
        found["Image"]: Summary(
            found["Distribution"],
            found["Release"],
            found["Architecture"],
            frozenset(found["Repositories"]),
            frozenset(found["Packages"]),
            found["SourceDateEpoch"],
            found["WithNetwork"],
            frozenset(Path(tree["Source"]).name for tree in found["ExtraTrees"]),
        )
        for found in json.loads(done.stdout)["Images"]
    }


@pytest.mark.parametrize("profile", recipe.PROFILES)
def test_ubuntu_has_all_that_debian_has(profile: str) -> None:
    debian, ubuntu = summary("debian", profile), summary("ubuntu", profile)
    assert debian.keys() == ubuntu.keys() == IMAGES | {"main"}
    for name in IMAGES:
        one, other = debian[name], ubuntu[name]
        nvidia = {word.format(branch()) for word in NVIDIA["ubuntu"]}
        debians, ubuntus = {KERNELS["debian"], *NVIDIA["debian"]}, {KERNELS["ubuntu"], *nvidia}
        assert one.packages - debians == other.packages - ubuntus, name
        if name == "root":
            assert (one.packages >= NVIDIA["debian"], other.packages >= nvidia) == (True, True)
        assert one.trees == other.trees
        assert (one.epoch, one.network) == (other.epoch, other.network)
    assert debian["kernel"].packages == {KERNELS["debian"]}
    assert ubuntu["kernel"].packages == {KERNELS["ubuntu"]}
    assert ("bash" in ubuntu["root"].packages) == (profile == "debug")


@pytest.mark.parametrize("name", recipe.DISTRIBUTIONS)
def test_release_components_and_isolation(name: str) -> None:
    for found in summary(name).values():
        assert (found.distribution, found.architecture, found.network) == (name, "x86-64", False)
        assert found.release == {"debian": "trixie", "ubuntu": "noble"}[name]
        assert found.repositories == set(relock.COMPONENTS[name].split()) - {"main"}


def test_ubuntu_is_the_default() -> None:
    assert "\nDistribution=ubuntu\n" in (places.REPOSITORY / "mkosi.conf").read_text()


@pytest.mark.parametrize("profile", recipe.PROFILES)
@pytest.mark.parametrize("name", recipe.DISTRIBUTIONS)
def test_inventories_parse(name: str, profile: str) -> None:
    wanted = recipe.this_checkout(name, profile)
    values = {"python": recipe.PYTHON[name], "triplet": "x86_64-linux-gnu"}
    for which in ("initrd", "root"):
        lines = inventory.read(wanted.inventories(which), values)
        texts = [line.text for line in lines]
        assert len(set(texts)) == len(texts)
        assert any(f"usr/bin/{recipe.PYTHON[name]}" == text for text in texts)


def test_the_interpreter_is_the_releases() -> None:
    """Debian's lock names it; Ubuntu 24.04's is 3.12 (its package python3 3.12.3-0ubuntu2)."""
    lock = recipe.read_lock(places.REPOSITORY, "debian")
    assert recipe.PYTHON["debian"] in {package.name for package in lock.packages}
    assert recipe.PYTHON["ubuntu"] == "python3.12"


def test_the_initrds_modules_exist_in_python_3_12() -> None:
    """Every file of the standard library that the initrd lists, by name, is one of 3.12 as well."""
    wanted = recipe.this_checkout("ubuntu", "release")
    values = {"python": recipe.PYTHON["ubuntu"], "triplet": "x86_64-linux-gnu"}
    lines = inventory.read(wanted.inventories("initrd"), values)
    prefix = "usr/lib/python3.12/"
    files = {line.text.removeprefix(prefix) for line in lines if line.text.startswith(prefix)}
    tops = {re.split(r"[/.]", name)[0] for name in files} - {"lib-dynload"}
    assert tops <= sys.stdlib_module_names  # of 3.11 to 3.13, whichever runs this: none of them is newer
    assert {"contextlib.pyc", "warnings.pyc"} <= files


def test_scripts_find_what_they_name() -> None:
    for name in recipe.DISTRIBUTIONS:
        path = places.REPOSITORY / "mkosi.images/initrd" / f"modules.{name}"
        assert modules.parse(path.name, path.read_text())


def test_locks_hold_the_recipes_packages() -> None:
    """What mkosi installs by name is locked; the rest of a lock is what those depend on."""
    names = {package.name for package in recipe.read_lock(places.REPOSITORY, "debian").packages}
    wanted = {package for found in summary("debian", "debug").values() for package in found.packages}
    assert wanted <= names
    tools = lockfile.parse("tools.lock", (places.REPOSITORY / "packages/tools.lock").read_text())
    conf = (places.REPOSITORY / "mkosi.tools/mkosi.conf").read_text()
    listed = re.search(r"^Packages=\n((?: +\S+\n)+)", conf, re.MULTILINE)
    assert listed is not None
    assert set(listed[1].split()) <= {package.name for package in tools.packages}


def test_the_drivers_branch_stands_in_one_file() -> None:
    """Whoever moves it on changes five lines of one file, then renews the lock."""
    text = re.sub(r"^#.*", "", DRIVER.read_text(), flags=re.MULTILINE)
    assert len(re.findall(rf"-{branch()}-server", text)) == len(re.findall(r"nvidia", text)) == 5
    recipes = [path for name in ("mkosi.conf", "mkosi.conf.d", "mkosi.images") for path in files(name)]
    assert [path for path in recipes if path != DRIVER and "-server" in path.read_text()] == []
    assert [path for path in recipes if re.search(rf"(?<!\d){branch()}(?!\d)", path.read_text())] == [DRIVER]


def files(name: str) -> list[Path]:
    top = places.REPOSITORY / name
    return [p for p in top.rglob("*") if p.is_file() and not p.is_symlink()] if top.is_dir() else [top]


def test_the_drivers_modules_and_firmware() -> None:
    """Cryptography before the driver that needs it; the firmware where the driver asks for it."""
    listed = recipe.this_checkout("ubuntu", "release").driver_modules()
    assert listed.index("nvidia") < listed.index("nvidia_uvm")
    assert {"ecdsa_generic", "ecdh_generic"} <= set(listed[: listed.index("nvidia")])
    assert recipe.this_checkout("debian", "release").driver_modules() == []
    wanted = recipe.this_checkout("ubuntu", "release")
    values = {"python": recipe.PYTHON["ubuntu"], "triplet": "x86_64-linux-gnu"}
    lines = inventory.read(wanted.inventories("root"), values)
    for path in (
        "usr/lib/firmware/nvidia/580.95.05/gsp_ga10x.bin",
        "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.580.95.05",
        "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
        "usr/lib/x86_64-linux-gnu/libnvidia-cfg.so.580.95.05",
        "usr/bin/nvidia-persistenced",
    ):
        assert any(line.pattern.fullmatch(path) for line in lines), path


def test_the_kernel_of_the_driver_is_the_images() -> None:
    """Both follow the same meta package of the archive; a build compares what came of it (driver.py)."""
    (modules_of,) = [w for w in summary("ubuntu")["root"].packages if w.startswith("linux-modules-nvidia")]
    assert modules_of.endswith(KERNELS["ubuntu"].removeprefix("linux-image"))


def test_the_device_root_is_nvidias() -> None:
    """The one that tinboot/verify pins, as the gate reads it."""
    path = places.REPOSITORY / "mkosi.images/root/mkosi.extra/usr/lib/tinboot/gpu/device-root.pem"
    assert gpu_roots.one_root(path.read_bytes()).fingerprint in gpu_roots.NVIDIA
