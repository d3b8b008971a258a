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

IMAGES = {"kernel", "initrd", "root"}
#: Packages with another name in the other distribution.
KERNELS = {"debian": "linux-image-cloud-amd64", "ubuntu": "linux-image-generic-hwe-24.04"}


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
        assert one.packages - {KERNELS["debian"]} == other.packages - {KERNELS["ubuntu"]}, name
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
