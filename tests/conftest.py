"""The images of this checkout, for every test that looks into one or boots it.

Built once and shared by all workers, by tinboot's own cache and lock; a test that takes one is marked
`boot` or `build`.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tinboot.builder.image import Image


# Under nohup the signal is ignored here and so in every program that a test starts, which then rightly goes
# on ignoring it: the tests that send it need what a person at a terminal has.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def build_image(profile: str) -> Image:
    """From the cache of builds, where it is there."""
    from tinboot.builder import image, places, prepare, recipe

    wanted = recipe.this_checkout(recipe.default_distribution(), profile)
    chain = prepare.toolchain(wanted.distribution, lambda _: None, lambda *_: None)
    folder = places.build_folder() / "images"
    return image.build(wanted, chain, folder, lambda _: None)


@pytest.fixture(scope="session")
def firmware() -> Path:
    """The firmware of this checkout, which is the pinned one; from the cache, where it is there."""
    from tinboot.builder import firmware, places, prepare

    built = firmware.build(
        places.REPOSITORY, lambda: prepare.firmware_kit(lambda _: None, lambda *_: None), lambda _: None
    )
    firmware.require_pinned(built.sha256, places.REPOSITORY)
    return built.path


@pytest.fixture(scope="session")
def release() -> Image:
    return build_image("release")


@pytest.fixture(scope="session")
def debug() -> Image:
    return build_image("debug")
