"""docs/build.md says what the code does."""

from __future__ import annotations

import re

import pytest

from tinboot.builder import assemble, image, places, recipe
from tinboot.builder.rebuild import OTHER, PLAIN

TEXT = (places.REPOSITORY / "docs/build.md").read_text()


@pytest.mark.parametrize(
    "name", [*assemble._FROM_IMAGE, "config.yml", "config.disk", "cmdline", "manifest.json"]
)
def test_every_file_of_a_build_is_described(name: str) -> None:
    assert f"`{name}`" in TEXT


def test_conditions_of_a_rebuild() -> None:
    for conditions in (PLAIN, OTHER):
        for value in (conditions.locale, conditions.zone, conditions.host, f"{conditions.umask:03o}"):
            assert value in TEXT
        assert f"/{conditions.folder}" in TEXT


def test_kernels_and_interpreters() -> None:
    for name in recipe.DISTRIBUTIONS:
        conf = (places.REPOSITORY / f"mkosi.images/kernel/mkosi.conf.d/{name}.conf").read_text()
        packages = re.search(r"^Packages=(\S+)", conf, re.MULTILINE)
        assert packages is not None
        assert f"`{packages[1]}`" in TEXT
        assert f" {recipe.PYTHON[name].removeprefix('python')} |" in TEXT


def test_how_many_are_kept() -> None:
    assert image._KEPT == 4
    assert "newest four" in TEXT


def test_locks_that_are_there() -> None:
    """The sentence about Ubuntu goes when its lock comes."""
    there = (places.REPOSITORY / "packages/ubuntu.lock").exists()
    assert ("Ubuntu's image has not been built yet" in TEXT) != there
