"""docs/firmware.md says what the code does."""

from __future__ import annotations

import re

from tinboot.builder import firmware, places

TEXT = (places.REPOSITORY / "docs/firmware.md").read_text("utf-8")


def test_every_patch_is_described_and_no_other() -> None:
    named = re.findall(r"^\| `(\d{4}-[a-z-]+)` \|", TEXT, re.MULTILINE)
    assert named == sorted(path.stem for path in (places.REPOSITORY / "ovmf/patches").iterdir())


def test_every_input_is_named() -> None:
    for name in (
        "ovmf/sources.lock",
        "ovmf/patches/",
        "packages/firmware.lock",
        "ovmf/build",
        "mkosi.firmware/",
    ):
        assert f"`{name}`" in TEXT
        assert (places.REPOSITORY / name).exists()
    assert f"ovmf/{firmware.IMAGE}.sha256" in TEXT


def test_what_the_firmware_says_is_what_the_patch_has_it_say() -> None:
    patch = (places.REPOSITORY / "ovmf/patches/0004-start-nothing-but-the-kernel.patch").read_text("utf-8")
    said = re.search(r"^    BdsDxe: (.*)$", TEXT, re.MULTILINE)
    assert said is not None
    assert f'"%a: {said[1]}\\n"' in patch
