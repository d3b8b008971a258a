"""The verity layout against `veritysetup format` on files, and the strict volume reference."""

from __future__ import annotations

import shutil
import subprocess
import uuid
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats import verity
from tinboot.formats.verity import BLOCK, PER_BLOCK, Verity, VolumeRef, parse_volume_ref

VERITYSETUP = shutil.which("veritysetup", path="/usr/sbin:/sbin:/usr/bin:/bin")
needs_veritysetup = pytest.mark.skipif(
    VERITYSETUP is None, reason="veritysetup is not installed (cryptsetup-bin)"
)
SALT = verity.salt_for("org/model@1")
UUID = uuid.UUID("0f98fbd8-f18a-5628-948d-11a952f8b391")

#: One block; the first and last of one level, of two; three levels.
BLOCK_COUNTS = [1, 2, 127, 128, 129, 300, PER_BLOCK**2, PER_BLOCK**2 + 1]


def format_file(path: Path, blocks: int) -> str:
    """`path` gets distinct data blocks, then what veritysetup writes behind them; returns the root hash."""
    with path.open("wb") as file:
        file.writelines(number.to_bytes(8, "big") * (BLOCK // 8) for number in range(blocks))
    done = subprocess.run(
        [
            *(str(VERITYSETUP), "format", "--hash=sha256", f"--salt={SALT}", f"--uuid={UUID}"),
            *(f"--data-blocks={blocks}", f"--hash-offset={blocks * BLOCK}", str(path), str(path)),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.split("Root hash:")[1].split()[0]


@needs_veritysetup
@pytest.mark.parametrize("blocks", BLOCK_COUNTS)
def test_lays_a_file_out_as_veritysetup_does(tmp_path: Path, blocks: int) -> None:
    path = tmp_path / "volume"
    root_hash = format_file(path, blocks)
    data = path.read_bytes()
    path.unlink()  # pytest would keep 64 MiB of it
    assert len(data) == verity.file_blocks(blocks) * BLOCK

    at = blocks * BLOCK
    assert data[at : at + BLOCK] == verity.superblock(Verity(root_hash, SALT, blocks), UUID.bytes)

    def block(number: int) -> bytes:
        return data[number * BLOCK : (number + 1) * BLOCK]

    salt, starts, sizes = bytes.fromhex(SALT), verity.level_starts(blocks), verity.level_sizes(blocks)
    top = block(starts[-1]) if starts else block(0)
    assert verity.block_digest(salt, top).hex() == root_hash
    below = [*([0] if starts else []), *starts[:-1]]
    covered = [blocks, *sizes[:-1]]
    for start, size, first, count in zip(starts, sizes, below, covered, strict=False):
        digests = b"".join(verity.block_digest(salt, block(first + number)) for number in range(count))
        assert b"".join(block(start + number) for number in range(size)) == digests.ljust(size * BLOCK, b"\0")


@needs_veritysetup
def test_veritysetup_accepts_the_superblock(tmp_path: Path) -> None:
    """It reads salt, count and sizes from the superblock of ours and verifies the whole tree with them."""
    path = tmp_path / "volume"
    root_hash = format_file(path, 300)
    with path.open("r+b") as file:
        file.seek(300 * BLOCK)
        file.write(verity.superblock(Verity(root_hash, SALT, 300), UUID.bytes))
    command = [str(VERITYSETUP), "verify", f"--hash-offset={300 * BLOCK}", str(path), str(path), root_hash]
    subprocess.run(command, check=True, capture_output=True)


@given(st.integers(1, 1 << 40))
def test_levels_fill_the_file_without_gap_or_overlap(blocks: int) -> None:
    sizes, starts = verity.level_sizes(blocks), verity.level_starts(blocks)
    at = blocks + 1
    for start, size in reversed(list(zip(starts, sizes, strict=True))):
        assert start == at
        at += size
    assert at == verity.file_blocks(blocks)
    for below, size in zip([blocks, *sizes], sizes, strict=False):
        assert (size - 1) * PER_BLOCK < below <= size * PER_BLOCK
    assert sizes[-1:] == ([1] if blocks > 1 else [])


def test_the_table() -> None:
    assert verity.table(Verity("b" * 64, SALT, 300), "254:0") == (
        f"1 254:0 254:0 4096 4096 300 301 sha256 {'b' * 64} {SALT} 2 panic_on_corruption panic_on_error"
    )


def test_salt_and_serial() -> None:
    assert verity.salt_for("org/model@1") == sha256(b"org/model@1").hexdigest()
    assert verity.serial_for("0123456789abcdef" * 4) == "0123456789abcdef0123"
    assert len(verity.serial_for("a" * 64)) == verity.SERIAL_DIGITS


references = st.builds(
    VolumeRef,
    st.binary(min_size=32, max_size=32).map(bytes.hex),
    st.integers(1, 10**16 // BLOCK - 1).map(lambda blocks: blocks * BLOCK),
    st.uuids().map(str),
)


@given(references)
def test_parse_inverts_str(reference: VolumeRef) -> None:
    assert parse_volume_ref(str(reference)) == reference


GOOD = f"{'b' * 64}_8192_{UUID}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected <roothash>_<hashoffset>_<uuid>"),
        (GOOD + "_", "expected <roothash>_<hashoffset>_<uuid>"),
        (GOOD.replace("_", "-"), "expected <roothash>_<hashoffset>_<uuid>"),
        (GOOD[1:], "the root hash 'b{63}' is not 64 lower-case hex digits"),
        ("b" + GOOD, "the root hash 'b{65}' is not 64 lower-case hex digits"),
        (GOOD.replace("b" * 64, "B" * 64), "the root hash 'B{64}' is not 64"),
        (GOOD.replace("b" * 64, "\u0661" * 64), "the root hash .* is not 64"),
        (GOOD.replace("8192", ""), "the hash offset '' is not a positive decimal number"),
        (GOOD.replace("8192", "0"), "the hash offset '0' is not a positive"),
        (GOOD.replace("8192", "08192"), "the hash offset '08192' is not a positive"),
        (GOOD.replace("8192", "+8192"), r"the hash offset '\+8192' is not a positive"),
        (GOOD.replace("8192", "\u0668192"), "the hash offset .* is not a positive"),
        (GOOD.replace("8192", str(BLOCK * 10**13)), "the hash offset '40960{13}' is not a positive"),
        (GOOD.replace("8192", "8193"), "the hash offset 8193 is not a multiple of 4096"),
        (GOOD.upper().replace("B" * 64, "b" * 64), "the UUID .* is not in lower-case 8-4-4-4-12 form"),
        (GOOD[:-1], "the UUID .* is not in lower-case"),
        (GOOD.replace("-", ""), "the UUID .* is not in lower-case"),
        (GOOD.replace("8192_0f", "8192_{0f"), "the UUID .* is not in lower-case"),
        (GOOD + "\n", "the UUID .* is not in lower-case"),
    ],
)
def test_refuses(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_volume_ref(text)
