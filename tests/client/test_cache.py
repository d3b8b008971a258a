"""The cache: whole files or none, nothing large or old; a folder that cannot be used costs no answer."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tinboot.client.cache import Cache, default_folder


def test_what_was_put_is_there(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "a" / "b")
    assert cache.get("x") is None
    cache.put("x", b"1")
    cache.put("x", b"2")
    assert cache.get("x") == b"2"
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["x"]
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_what_is_old_is_not_there(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put("x", b"1")
    assert cache.get("x", 60) == b"1"
    for offset in (-61, 61):  # a clock that was set back makes files of the future
        os.utime(tmp_path / "x", (time.time() + offset,) * 2)
        assert cache.get("x", 60) is None
    assert cache.get("x") == b"1"


def test_what_is_large_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes((1 << 20) + 1))
    assert Cache(tmp_path).get("x") is None


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = Cache(tmp_path / "file")
    cache.put("x", b"1")
    assert cache.get("x") is None
    (tmp_path / "x").mkdir()
    cache = Cache(tmp_path)
    cache.put("x", b"1")
    assert cache.get("x") is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "x"]


def test_no_file_stays_open(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(3):
        cache.put(f"{number}", b"1")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_no_folder() -> None:
    cache = Cache(None)
    cache.put("x", b"1")
    assert cache.get("x") is None


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_folder() == Path("/somewhere/tinboot/kds")
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert default_folder() == tmp_path / ".cache/tinboot/kds"
