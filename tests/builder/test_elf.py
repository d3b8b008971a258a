"""DT_NEEDED, against what the dynamic loader says."""

from __future__ import annotations

import contextlib
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.builder import elf
from tinboot.formats.errors import Malformed, Refused

PYTHON = Path("/usr/bin/python3").resolve()


def test_agrees_with_the_loader() -> None:
    """The loader traces the whole closure: each direct need is in it, and each of it is somebody's need."""
    traced = subprocess.run(["ldd", PYTHON], check=True, capture_output=True, text=True).stdout
    paths = {Path(path).name: Path(path) for path in re.findall(r"=> (/\S+)", traced)}
    direct = elf.needed(PYTHON.read_bytes())
    assert direct
    indirect = [name for path in paths.values() for name in elf.needed(path.read_bytes())]
    loader = {name for name in (*direct, *indirect) if name.startswith("ld-linux")}
    assert set(paths) == {*direct, *indirect} - loader


def test_other_files_need_nothing() -> None:
    assert elf.needed(b"") == elf.needed(b"#!/bin/sh\n") == elf.needed(b"\x7fELF\x01\x01" + bytes(60)) == []


@given(st.binary(max_size=400))
def test_garbage_is_malformed_or_needs_nothing(data: bytes) -> None:
    with contextlib.suppress(Malformed):
        assert isinstance(elf.needed(b"\x7fELF\x02\x01" + data), list)


def test_a_cut_file_is_malformed() -> None:
    data = PYTHON.read_bytes()
    with pytest.raises(Malformed, match="damaged ELF file"):
        elf.needed(data[:100])


def test_check(tmp_path: Path) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/python").write_bytes(PYTHON.read_bytes())
    with pytest.raises(Refused) as refused:
        elf.check(tmp_path)
    assert "usr/python needs libc.so.6" in refused.value.message
    for name in elf.needed(PYTHON.read_bytes()):
        (tmp_path / "usr/lib" / name).touch()
    elf.check(tmp_path)
