"""A difference planted in the real artefacts is named: file and byte."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from tinboot.builder import compare, initrd, tools
from tinboot.builder.image import Image
from tinboot.formats import cpio

Entries = dict[str, cpio.Entry]


@pytest.fixture
def other(release: Image, tmp_path: Path) -> Path:
    """A folder with the same files, as links."""
    folder = tmp_path / "other"
    folder.mkdir()
    for path in release.folder.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def test_none(release: Image, other: Path) -> None:
    assert compare.first_difference(release.folder, other) is None


def test_a_byte_inside_the_initrd(release: Image, other: Path, initrd: Entries) -> None:
    victim = initrd["usr/lib/tinboot/hooks/20-root"]
    data = bytearray(victim.data)
    data[100] ^= 1
    plant(other, {**initrd, victim.path: victim._replace(data=bytes(data))})
    found = compare.first_difference(release.folder, other)
    assert found is not None
    assert (found.artefact, found.inside) == ("initrd", "usr/lib/tinboot/hooks/20-root from byte 100 on")


def test_a_mode_inside_the_initrd(release: Image, other: Path, initrd: Entries) -> None:
    victim = initrd["init"]
    plant(other, {**initrd, "init": victim._replace(mode=stat.S_IFREG | 0o4755)})
    found = compare.first_difference(release.folder, other)
    assert found is not None
    assert found.inside == "init has mode 100755 and 104755"


def plant(folder: Path, entries: Entries) -> None:
    inner = [entry for path, entry in entries.items() if path not in {e.path for e in initrd.NODES}]
    archive = cpio.write(cpio.with_parents(inner))
    packed = subprocess.run([*tools.tool("zstd"), "-qc"], input=archive, stdout=subprocess.PIPE, check=True)
    (folder / "initrd").unlink()
    (folder / "initrd").write_bytes(cpio.write(initrd.NODES) + packed.stdout)


@pytest.mark.parametrize("what", ["byte", "mode"])
def test_inside_the_root(release: Image, other: Path, root: Path, what: str) -> None:
    """The tree is put together again with one file changed, and changed back for the next test."""
    victim = root / "etc/hosts"
    before, mode = victim.read_bytes(), victim.stat().st_mode
    try:
        if what == "byte":
            victim.write_bytes(before[:5] + bytes([before[5] ^ 1]) + before[6:])
        else:
            victim.chmod(0o600)
        (other / "root").unlink()
        make = [*tools.tool("mkfs.erofs"), "--quiet", "-T0", "--all-root"]
        subprocess.run([*make, str(other / "root"), str(root)], check=True, capture_output=True)
    finally:
        victim.write_bytes(before)
        victim.chmod(mode)
    found = compare.first_difference(release.folder, other)
    assert found is not None
    assert found.artefact == "root"
    inside = {"byte": "etc/hosts from byte 5 on", "mode": "etc/hosts has mode 100644 and 100600"}
    assert found.inside == inside[what]


def test_a_flipped_bit_in_the_root_image(release: Image, other: Path) -> None:
    data = bytearray((release.folder / "root").read_bytes())
    data[20_000_000] ^= 0x10
    (other / "root").unlink()
    (other / "root").write_bytes(data)
    found = compare.first_difference(release.folder, other)
    assert found is not None
    assert (found.artefact, found.byte) == ("root", 20_000_000)
    assert found.inside
