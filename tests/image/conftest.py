"""Looks into the built release image. Every test here needs it: marked `build`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from artefacts import Packaged, initrd_entries, packaged

from tinboot.builder import recipe, tools
from tinboot.builder.image import Image
from tinboot.formats import cpio


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For `pytest -m "not build"`."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.build)


@pytest.fixture(scope="session")
def wanted() -> recipe.Recipe:
    """The recipe of the release image."""
    return recipe.this_checkout(recipe.default_distribution(), "release")


@pytest.fixture(scope="session")
def initrd(release: Image) -> dict[str, cpio.Entry]:
    """Every member of the initrd by its path."""
    return initrd_entries(release.folder / "initrd")


@pytest.fixture(scope="session")
def root(release: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root's tree, extracted."""
    tree = tmp_path_factory.mktemp("root") / "tree"
    command = [
        *tools.tool("fsck.erofs"),
        f"--extract={tree}",
        "--preserve-perms",
        "--xattrs",
        str(release.folder / "root"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return tree


@pytest.fixture(scope="session")
def initrd_packages(release: Image, wanted: recipe.Recipe) -> dict[str, Packaged]:
    return packaged(release, "initrd", wanted.distribution)


@pytest.fixture(scope="session")
def root_packages(release: Image, wanted: recipe.Recipe) -> dict[str, Packaged]:
    return packaged(release, "root", wanted.distribution)


@pytest.fixture(scope="session")
def kernel_packages(release: Image, wanted: recipe.Recipe) -> dict[str, Packaged]:
    return packaged(release, "kernel", wanted.distribution)
