"""The folder of `tinboot gpu pin` goes into an image as it was pinned, or not at all."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fake_reference import NAMES, write

from tinboot.builder import gpu_reference, payload, places, recipe
from tinboot.formats import gpureference
from tinboot.formats.errors import Malformed, Mismatch, Refused, Unavailable


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "pinned")


def test_as_it_was_pinned(folder: Path, tmp_path: Path) -> None:
    found = gpu_reference.read(folder)
    assert [path for path, _ in found.files] == [
        "reference-values.json",
        *(f"rims/{n}.xml" for n in NAMES.values()),
    ]
    assert found.digests[1] == (f"rims/{NAMES['driver']}.xml", hashlib.sha256(b"driver").hexdigest(), 6)
    (tmp_path / "copy").mkdir()
    found.write(tmp_path / "copy")
    assert gpu_reference.read(tmp_path / "copy") == found
    python = tmp_path / "python"
    (python / "nv-verifier").mkdir(parents=True)
    (python / "pynvml.py").touch()
    payload.stage(tmp_path / "tree", python, found)
    in_image = tmp_path / "tree/usr/lib/tinboot/gpu"
    assert gpu_reference.read(in_image) == found
    payload.stage(tmp_path / "without", python, None)
    assert [*(tmp_path / "without/usr/lib/tinboot/gpu").rglob("*")] == [
        tmp_path / "without/usr/lib/tinboot/gpu/rims"
    ]


def test_what_was_read_is_what_is_used(folder: Path, tmp_path: Path) -> None:
    found = gpu_reference.read(folder)
    (folder / "reference-values.json").write_text("{}")
    (tmp_path / "copy").mkdir()
    found.write(tmp_path / "copy")
    assert gpu_reference.read(tmp_path / "copy").values == found.values


@pytest.mark.parametrize(
    "name", ["device-root.pem", "rims/other.xml", "modules", "more/deep", "rims/.hidden"]
)
def test_nothing_else_comes_along(folder: Path, name: str) -> None:
    """Above all no root."""
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("x")
    with pytest.raises(Refused, match=r"which its reference-values\.json does not name") as refused:
        gpu_reference.read(folder)
    assert name in refused.value.message


@pytest.mark.parametrize("kind", ["driver", "vbios"])
def test_a_rim_that_is_missing_or_another(folder: Path, kind: str) -> None:
    path = folder / "rims" / f"{NAMES[kind]}.xml"
    path.write_text("other")
    with pytest.raises(Mismatch, match=f"{NAMES[kind]}.xml has SHA-256 .*, reference-values.json has "):
        gpu_reference.read(folder)
    path.write_bytes(bytes(gpu_reference.MAX_RIM + 1))
    with pytest.raises(Malformed, match="more than 1048576 bytes"):
        gpu_reference.read(folder)
    path.unlink()
    with pytest.raises(Refused, match=f"lacks rims/{NAMES[kind]}.xml"):
        gpu_reference.read(folder)


@pytest.mark.parametrize("kind", ["driver", "vbios"])
def test_one_kind_alone_verifies_no_gpu(tmp_path: Path, kind: gpureference.Kind) -> None:
    with pytest.raises(Refused, match=f"only RIMs of the kind {kind}"):
        gpu_reference.read(write(tmp_path / "pinned", (kind,)))


@pytest.mark.parametrize("change", [b" ", b"\n", b"x"])
def test_values_that_something_else_wrote(folder: Path, change: bytes) -> None:
    path = folder / "reference-values.json"
    path.write_bytes(path.read_bytes() + change)
    with pytest.raises(Malformed, match=r"reference-values\.json") as refused:
        gpu_reference.read(folder)
    assert "tinboot gpu pin" in refused.value.hint


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"reference-values\.json: No such file") as refused:
        gpu_reference.read(tmp_path / "none")
    assert "tinboot gpu pin" in refused.value.hint


def test_the_images_driver_must_be_pinned(folder: Path) -> None:
    found = gpu_reference.read(folder)
    found.require_driver("580.95.05")
    with pytest.raises(Refused, match=r"driver is 580\.105\.08, the reference values are for 580\.95\.05"):
        found.require_driver("580.105.08")


def test_they_are_part_of_the_recipe(folder: Path, tmp_path: Path) -> None:
    """Each file counts, and the list of what the image may hold has two lines more."""
    found = gpu_reference.read(folder)
    plain = recipe.Recipe(places.REPOSITORY, "debian", "release")
    one = recipe.Recipe(places.REPOSITORY, "debian", "release", found)
    values = found.values._replace(created=datetime(2026, 11, 26, tzinfo=UTC))
    (folder / "reference-values.json").write_bytes(gpureference.render(values))
    other = recipe.Recipe(places.REPOSITORY, "debian", "release", gpu_reference.read(folder))
    assert len({wanted.digest("27.1") for wanted in (plain, one, other)}) == 3
    names = [path.name for path in one.inventories("root")]
    assert [*names] == [*(path.name for path in plain.inventories("root")), "inventory.reference-values"]
    assert "inventory.reference-values" not in [path.name for path in one.inventories("initrd")]
