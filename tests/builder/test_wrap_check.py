from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tinboot.builder import erofs_tree, hashtree
from tinboot.builder.weights_source import scan
from tinboot.builder.wrap import Volume, sidecar_of, wrap
from tinboot.builder.wrap_check import check, read_sidecar
from tinboot.formats.errors import Malformed, Mismatch, Refused, TinbootError
from tinboot.formats.verity import BLOCK, salt_for

REPO = "org/model@0123abcd"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "weights.bin").write_bytes(random.Random(0).randbytes(600_000))
    (tree / "sub" / "config.json").write_text("{}\n")
    (tree / "run.sh").write_text("#!/bin/sh\n")
    return tree


@pytest.fixture
def volume(tree: Path, tmp_path: Path) -> tuple[Path, Volume]:
    return tmp_path / "out.mpk", wrap(scan(tree), REPO, tmp_path / "out.mpk")


def test_a_good_volume_in_every_way(volume: tuple[Path, Volume], tree: Path) -> None:
    path, made = volume
    sidecar = read_sidecar(path)
    assert check(path, REPO, sidecar=sidecar, source=tree) == made
    assert check(path, REPO, expect=made.ref).ref == made.ref
    alone = check(path, REPO)
    assert (alone.ref, alone.size, alone.files, alone.tools) == (made.ref, made.size, made.files, {})
    assert sorted(p.name for p in path.parent.iterdir()) == ["out.mpk", "out.mpk.json", "tree"]


def test_nothing_is_written(volume: tuple[Path, Volume]) -> None:
    path, made = volume
    path.chmod(0o444)
    before = path.stat()
    check(path, REPO, expect=made.ref)
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_other_identity(volume: tuple[Path, Volume]) -> None:
    path, made = volume
    other = "org/model@0123abce"
    with pytest.raises(Mismatch, match="is of org/model@0123abcd, not of org/model@0123abce"):
        check(path, other, sidecar=read_sidecar(path))
    with pytest.raises(Mismatch, match="the UUID of org/model@0123abce"):
        check(path, other, expect=made.ref)
    with pytest.raises(Mismatch):
        check(path, other)


def test_every_part_of_the_line_counts(volume: tuple[Path, Volume]) -> None:
    path, made = volume
    for change, named in (
        ({"root_hash": "0" * 64}, "not to the root hash 0000"),
        ({"hash_offset": made.ref.hash_offset - BLOCK}, "the tree begins at"),
        ({"uuid": made.ref.uuid[:-1] + "x"}, "the config line says"),
    ):
        with pytest.raises(Mismatch, match=named):
            check(path, REPO, expect=made.ref._replace(**change))


def test_a_file_system_of_another_identity_under_a_matching_tree(
    volume: tuple[Path, Volume], tmp_path: Path
) -> None:
    """A tree made with the right salt and UUID over an image that says it is another."""
    path, made = volume
    forged = tmp_path / "forged"
    image = bytearray(path.read_bytes()[: made.ref.hash_offset])
    image[1024 + 48] ^= 1  # s_uuid
    forged.write_bytes(image)
    hashtree.append_tree(forged, salt_for(REPO), made.ref.uuid)
    with pytest.raises(Mismatch, match="the file system has the UUID"):
        check(forged, REPO)


def test_damage_is_named_by_block(volume: tuple[Path, Volume]) -> None:
    path, made = volume
    content = bytearray(path.read_bytes())
    content[50 * BLOCK] ^= 1
    path.write_bytes(content)
    with pytest.raises(Mismatch, match=r"data block 50 \(byte 204800\)"):
        check(path, REPO, expect=made.ref)


@pytest.mark.parametrize("content", [b"", bytes(BLOCK), bytes(100 * BLOCK), b"no volume\n" * 1000])
def test_what_is_no_volume(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(Malformed, match="is not a volume"):
        check(tmp_path / "x", REPO)


def test_an_image_without_its_tree(volume: tuple[Path, Volume]) -> None:
    path, made = volume
    path.write_bytes(path.read_bytes()[: made.ref.hash_offset])
    with pytest.raises(Malformed, match="is not a volume"):
        check(path, REPO)


@pytest.mark.parametrize("member", ["root_hash", "hash_offset", "uuid", "salt", "size", "files"])
def test_a_sidecar_that_lies(volume: tuple[Path, Volume], member: str) -> None:
    path, _ = volume
    fields = json.loads(sidecar_of(path).read_text())
    fields[member] = fields[member] + 1 if isinstance(fields[member], int) else fields[member][::-1]
    sidecar_of(path).write_text(json.dumps(fields))
    with pytest.raises(Mismatch, match=rf"out\.mpk\.json: {member} is"):
        check(path, REPO, sidecar=read_sidecar(path))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"repo": "a@b"}', '{"repo": "a@b", "repo": "a@b"}', "\xff"]
)
def test_what_is_no_sidecar(volume: tuple[Path, Volume], text: str) -> None:
    path, _ = volume
    sidecar_of(path).write_bytes(text.encode("latin-1"))
    with pytest.raises(Malformed, match=r"out\.mpk\.json"):
        read_sidecar(path)


def _grow(tree: Path) -> None:
    with (tree / "weights.bin").open("ab") as file:
        file.write(b"x")


def _byte(tree: Path) -> None:
    with (tree / "weights.bin").open("r+b") as file:
        file.seek(599_999)
        byte = file.read(1)[0]
        file.seek(599_999)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_byte, r"weights\.bin differs at byte 599999"),
        (_grow, r"weights\.bin is 600000 bytes long in it, 600001 in the source"),
        (lambda t: (t / "new").write_text("x"), "the source holds new, it does not"),
        (lambda t: (t / "run.sh").unlink(), r"it holds run\.sh, the source does not"),
        (lambda t: (t / "run.sh").chmod(0o755), r"run\.sh is executable in only one"),
        (lambda t: (t / "empty").mkdir(), "the directory empty is in only one"),
    ],
)
def test_the_difference_to_a_source_is_named(
    volume: tuple[Path, Volume], tree: Path, change: Callable[[Path], object], named: str
) -> None:
    path, made = volume
    change(tree)
    with pytest.raises(Mismatch, match=named):
        check(path, REPO, expect=made.ref, source=tree)
    assert sorted(p.name for p in path.parent.iterdir()) == ["out.mpk", "out.mpk.json", "tree"]


def test_a_source_that_no_volume_may_hold(volume: tuple[Path, Volume], tree: Path) -> None:
    (tree / "odd").symlink_to("nowhere")
    with pytest.raises(Refused, match="link to nothing"):
        check(volume[0], REPO, source=tree)


@pytest.mark.parametrize("seed", range(8))
def test_damaged_images_are_errors_and_not_tracebacks(volume: tuple[Path, Volume], seed: int) -> None:
    """The reader of images meets what a host may have made: any byte of the metadata may be anything."""
    path, made = volume
    image = path.read_bytes()[: made.ref.hash_offset]
    chosen = random.Random(seed)
    with path.open("r+b", buffering=0) as file:
        for _ in range(150):
            at = chosen.choice([chosen.randrange(1024, 1200), chosen.randrange(1024, 2 * BLOCK)])
            file.seek(at)
            file.write(chosen.randbytes(chosen.choice([1, 4])))
            try:
                for node in erofs_tree.read_tree(file.fileno()):
                    assert sum(map(len, erofs_tree.contents(file.fileno(), node))) == node.size
            except TinbootError:
                pass
            file.seek(at)
            file.write(image[at : at + 4])
