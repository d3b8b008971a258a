from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinboot.builder.hashtree import append_tree, stored_root, verify_tree
from tinboot.formats.errors import Malformed, Mismatch
from tinboot.formats.verity import BLOCK, Verity, file_blocks, level_starts

#: (data file, salt, UUID) -> root hash.
Format = Callable[[Path, str, str], str]

UUID = "6a3ce3b5-8f2c-5d3e-9a51-0123456789ab"
SALT = sha256(b"name@revision").hexdigest()


def data(path: Path, blocks: int, seed: int = 0) -> Path:
    path.write_bytes(random.Random(seed).randbytes(blocks * BLOCK))
    return path


def assert_like_veritysetup(folder: Path, blocks: int, salt: str, veritysetup_format: Format) -> None:
    ours, theirs = data(folder / "ours", blocks), data(folder / "theirs", blocks)
    verity = append_tree(ours, salt, UUID)
    assert verity == Verity(veritysetup_format(theirs, salt, UUID), salt, blocks)
    assert ours.read_bytes() == theirs.read_bytes()
    assert stored_root(ours, salt, blocks) == verity.root_hash
    verify_tree(ours, verity, UUID)
    ours.unlink()
    theirs.unlink()


# one block; one leaf, full and not; two leaves; two levels, full (all in this process) and three (in several)
@pytest.mark.parametrize("blocks", [1, 2, 127, 128, 129, 16384, 16385])
def test_same_bytes_as_veritysetup(tmp_path: Path, blocks: int, veritysetup_format: Format) -> None:
    assert_like_veritysetup(tmp_path, blocks, SALT, veritysetup_format)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(blocks=st.integers(1, 300), salt=st.binary(max_size=256))
def test_same_bytes_for_any_size_and_salt(
    tmp_path: Path, blocks: int, salt: bytes, veritysetup_format: Format
) -> None:
    assert_like_veritysetup(tmp_path, blocks, salt.hex(), veritysetup_format)


def test_number_of_processes_does_not_matter(tmp_path: Path) -> None:
    made = []
    for jobs in (1, 3):
        path = data(tmp_path / str(jobs), 5 * 4096 + 7)
        seen: list[int] = []
        append_tree(path, SALT, UUID, jobs=jobs, progress=seen.append)
        assert seen == sorted(seen)
        assert seen[-1] == (5 * 4096 + 7) * BLOCK
        made.append(sha256(path.read_bytes()).digest())
        path.unlink()
    assert made[0] == made[1]


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK + 512])
def test_data_must_be_whole_blocks(tmp_path: Path, size: int) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(size))
    with pytest.raises(Malformed, match=f"{size} bytes long"):
        append_tree(path, SALT, UUID)
    assert path.stat().st_size == size


@pytest.mark.parametrize("salt", ["AB", "abc", "zz", "00" * 257, "ab cd"])
def test_salt_must_be_canonical(tmp_path: Path, salt: str) -> None:
    path = data(tmp_path / "data", 1)
    with pytest.raises(ValueError, match=r"salt|hex"):
        append_tree(path, salt, UUID)


@pytest.mark.parametrize("blocks", [300, 5 * 4096])
def test_interrupted_work_leaves_the_data_alone(tmp_path: Path, blocks: int) -> None:
    path = data(tmp_path / "data", blocks)
    before = path.read_bytes()

    def stop(_done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        append_tree(path, SALT, UUID, jobs=2, progress=stop)
    assert path.read_bytes() == before
    path.unlink()


BLOCKS = 16384 + 300  # three levels: 131 leaves, 2 blocks, the top
LEAVES, MIDDLE, TOP = level_starts(BLOCKS)


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Verity]]:
    path = data(tmp_path_factory.mktemp("hashtree") / "volume", BLOCKS)
    yield path, append_tree(path, SALT, UUID)
    path.unlink()


@contextmanager
def flipped(path: Path, *places: int) -> Iterator[None]:
    def flip() -> None:
        with path.open("r+b") as file:
            for place in places:
                file.seek(place)
                byte = file.read(1)[0]
                file.seek(place)
                file.write(bytes([byte ^ 1]))

    flip()
    try:
        yield
    finally:
        flip()


@pytest.mark.parametrize(
    ("byte", "named"),
    [
        (0, "data block 0 "),
        (BLOCK * 8000 + 17, "data block 8000 "),
        (BLOCK * BLOCKS - 1, f"data block {BLOCKS - 1} "),
        (BLOCK * BLOCKS + 100, "superblock"),
        (BLOCK * (BLOCKS + 1) - 1, "superblock"),
        (BLOCK * TOP, "top of the hash tree"),
        (BLOCK * (TOP + 1) - 1, "top of the hash tree"),
        (BLOCK * (MIDDLE + 1) + 40, f"block {MIDDLE + 1}, of tree level 2"),
        (BLOCK * (LEAVES + 64), f"block {LEAVES + 64}, of tree level 1"),
        (
            BLOCK * file_blocks(BLOCKS) - 1,
            f"block {LEAVES + 130}, of tree level 1",
        ),  # padding of the last leaf
    ],
)
def test_one_wrong_byte_is_named(volume: tuple[Path, Verity], byte: int, named: str) -> None:
    path, verity = volume
    with flipped(path, byte), pytest.raises(Mismatch, match=named):
        verify_tree(path, verity, UUID)


def test_the_first_of_two_wrong_blocks_is_named(volume: tuple[Path, Verity]) -> None:
    path, verity = volume
    with flipped(path, BLOCK * 16000, BLOCK * 300), pytest.raises(Mismatch, match="data block 300 "):
        verify_tree(path, verity, UUID, jobs=2)


@pytest.mark.parametrize("change", [-BLOCK, -1, 1, BLOCK])
def test_length_must_fit(tmp_path: Path, change: int) -> None:
    path = data(tmp_path / "volume", 200)
    verity = append_tree(path, SALT, UUID)
    size = path.stat().st_size + change
    os.truncate(path, size)
    with pytest.raises(Mismatch, match=f"{size} bytes long"):
        verify_tree(path, verity, UUID)


def test_every_parameter_counts(volume: tuple[Path, Verity]) -> None:
    path, verity = volume
    verify_tree(path, verity, UUID)
    for wrong in (
        verity._replace(root_hash="0" * 64),
        verity._replace(salt="00" * 32),
        verity._replace(blocks=BLOCKS - 1),
    ):
        with pytest.raises(Mismatch):
            verify_tree(path, wrong, UUID)
    with pytest.raises(Mismatch, match="superblock"):
        verify_tree(path, verity, UUID.replace("6a", "6b"))


def test_a_wrong_single_block(tmp_path: Path) -> None:
    path = data(tmp_path / "one", 1)
    verity = append_tree(path, SALT, UUID)
    with flipped(path, 9), pytest.raises(Mismatch, match=r"\(block 0\)"):
        verify_tree(path, verity, UUID)
