"""The EROFS superblock against mkfs.erofs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats.erofs import MAGIC, OFFSET, Superblock, parse_superblock

UUID = "0f98fbd8-f18a-5628-948d-11a952f8b391"
MKFS = shutil.which("mkfs.erofs")


@pytest.mark.skipif(MKFS is None, reason="mkfs.erofs is not installed (erofs-utils)")
@pytest.mark.parametrize("size", [0, 1, 4096, 100_000, 3_000_000])
def test_reads_what_mkfs_wrote(tmp_path: Path, size: int) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "file").write_bytes(bytes(range(251)) * (size // 251) + b"x" * (size % 251))
    image = tmp_path / "image"
    command = [str(MKFS), "--quiet", "--all-root", "-T0", f"-U{UUID}", str(image), str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    data = image.read_bytes()
    found = parse_superblock(data[:4096])
    assert found == Superblock(block_bits=12, blocks=len(data) // 4096, uuid=UUID)
    assert len(data) % 4096 == 0


def superblock(magic: int = MAGIC, bits: int = 12, blocks: int = 7, uuid: bytes = bytes(16)) -> bytes:
    fields = bytearray(128)
    fields[0:4] = magic.to_bytes(4, "little")
    fields[12] = bits
    fields[36:40] = blocks.to_bytes(4, "little")
    fields[48:64] = uuid
    return bytes(OFFSET) + bytes(fields)


@given(st.integers(0, 255), st.integers(0, 2**32 - 1), st.uuids())
def test_reads_each_field(bits: int, blocks: int, uuid: object) -> None:
    wanted = str(uuid)
    found = parse_superblock(
        superblock(bits=bits, blocks=blocks, uuid=bytes.fromhex(wanted.replace("-", "")))
    )
    assert found == Superblock(bits, blocks, wanted)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (b"", "0 bytes are too few for an EROFS superblock at 1024"),
        (superblock()[:-1], "1151 bytes are too few"),
        (bytes(4096), "EROFS magic is 0x00000000, not 0xe0f5e1e2"),
        (superblock(magic=MAGIC - 1), "EROFS magic is 0xe0f5e1e1, not 0xe0f5e1e2"),
        (b"x" + superblock(), "EROFS magic is"),
    ],
)
def test_refuses(block: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_superblock(block)


@given(st.binary(max_size=4096))
def test_other_bytes_are_a_value_error(block: bytes) -> None:
    with pytest.raises(ValueError, match=r"too few|magic"):
        parse_superblock(block)
