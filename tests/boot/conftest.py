"""Boots of the real kernel, initrd and root.

The image is built once and shared by all workers (tinboot's own cache and lock). Disks are copies in a
folder that goes away; logs stay when a test fails (qemu/boot_fixtures.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import probe_image
import pytest
from boot_fixtures import disk_dir, log_dir, pytest_runtest_makereport
from guest import Guest, Wrapped, make_guest, make_volume
from hostile_disks import Change, changed

from tinboot.builder import image

__all__ = ["disk_dir", "log_dir", "pytest_runtest_makereport"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test in this folder boots: `pytest -m "not boot"` leaves them out."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.boot)


@pytest.fixture(scope="session")
def wrapped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Wrapped, Wrapped]:
    """Two volumes of 300 data blocks: a tree of two levels, so that a leaf is not the top."""
    return (
        make_volume(tmp_path_factory.mktemp("a"), "alpha", "test/alpha@1", seed=1),
        make_volume(tmp_path_factory.mktemp("b"), "beta", "test/beta@1", seed=2),
    )


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Wrapped:
    """The volume of an image whose program tells what its container is like."""
    return probe_image.make(tmp_path_factory.mktemp("probe"))


@pytest.fixture
def guest(release: image.Image, wrapped: tuple[Wrapped, Wrapped], log_dir: Path, disk_dir: Path) -> Guest:
    """A machine that boots: one CPU, no GPU, two volumes."""
    return make_guest(release, wrapped, log_dir, disk_dir)


@pytest.fixture
def copy(disk_dir: Path) -> Callable[..., Path]:
    """`copy(path, *changes)`: a changed copy of a disk (qemu/hostile_disks.py)."""

    def make(path: Path, *changes: Change) -> Path:
        return changed(path, disk_dir, *changes)

    return make
