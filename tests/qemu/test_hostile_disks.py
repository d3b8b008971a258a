"""Changes to copies of disks, against the same changes to bytes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hostile_disks import Append, Change, Flip, Resize, Write, changed, config_disk, from_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from tinboot.formats import configdisk
from tinboot.formats.halt import Refusal

changes = st.one_of(
    st.builds(Flip, st.integers(-600, 600), st.integers(0, 7)),
    st.builds(Write, st.integers(-600, 600), st.binary(max_size=40)),
    st.builds(Append, st.binary(max_size=40)),
    st.builds(Resize, st.integers(-300, 300)),
)


def model(data: bytes, change: Change) -> bytes | None:
    match change:
        case Append(more):
            return data + more
        case Resize(by):
            return None if len(data) + by < 0 else (data + bytes(max(0, by)))[: len(data) + by]
        case Flip(offset) | Write(offset):
            at = offset if offset >= 0 else len(data) + offset
            new = change.data if isinstance(change, Write) else b""
            if not 0 <= at < len(data) or at + len(new) > len(data):
                return None
            if isinstance(change, Flip):
                new = bytes([data[at] ^ 1 << change.bit])
            return data[:at] + new + data[at + len(new) :]


@given(st.binary(max_size=500), st.lists(changes, max_size=4))
@settings(max_examples=30, deadline=None)
def test_changes(data: bytes, wanted: list[Change]) -> None:
    expected: bytes | None = data
    for change in wanted:
        expected = None if expected is None else model(expected, change)
    with tempfile.TemporaryDirectory() as name:
        good = from_bytes(data, Path(name), "good")
        if expected is None:
            with pytest.raises(ValueError, match="good"):
                changed(good, Path(name), *wanted)
        else:
            assert changed(good, Path(name), *wanted).read_bytes() == expected
        assert good.read_bytes() == data


def test_every_copy_has_a_name_of_its_own_and_may_be_written(tmp_path: Path) -> None:
    good = from_bytes(b"x" * 512, tmp_path, "root")
    good.chmod(0o400)
    copies = [changed(good, tmp_path) for _ in range(3)]
    assert [copy.name for copy in copies] == ["root-2", "root-3", "root-4"]
    Flip(-1, 7).apply(copies[0])
    assert copies[0].read_bytes() == b"x" * 511 + b"\xf8"
    assert good.read_bytes() == copies[1].read_bytes() == b"x" * 512


def test_a_sparse_disk_stays_sparse(tmp_path: Path) -> None:
    good = tmp_path / "good"
    with good.open("wb") as file:
        file.truncate(64 << 20)
    copy = changed(good, tmp_path, Flip(-1))
    assert copy.stat().st_size == 64 << 20
    assert copy.stat().st_blocks * 512 < 1 << 20


def test_the_config_disk_is_the_launcher_s(tmp_path: Path) -> None:
    assert configdisk.unpad(config_disk(b"a: 1\n", tmp_path).read_bytes()) == b"a: 1\n"
    with pytest.raises(Refusal):
        config_disk(b"", tmp_path)
