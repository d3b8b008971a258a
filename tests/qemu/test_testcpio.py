"""The test initrd: production bytes in front, test files behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import testcpio
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats import cpio

PRODUCTION_INIT = Path(__file__).resolve().parent.parent.parent / "initrd-hooks" / "init"


@given(st.integers(0, 9))
def test_production_stands_in_front_untouched(padding: int) -> None:
    production = cpio.write([cpio.directory("usr"), cpio.file("init", b"1")]) + bytes(padding)
    whole = testcpio.append(production, [testcpio.hook("35-fault", "def run(state): ...\n")])
    assert whole.startswith(production)
    first, second = cpio.read_all(whole)
    assert second.start % 4 == 0
    assert first.entries == cpio.read(production)
    assert [entry.path for entry in second.entries] == [
        "usr", "usr/lib", "usr/lib/tinboot", "usr/lib/tinboot/hooks", "usr/lib/tinboot/hooks/35-fault",
    ]  # fmt: skip
    assert second.entries[-1].data == b"def run(state): ...\n"


def test_behind_a_compressed_initrd_it_begins_at_a_multiple_of_four() -> None:
    whole = testcpio.append(b"\x28\xb5\x2f\xfd not a multiple", [cpio.file("a", b"")])
    at = whole.index(cpio.MAGIC)
    assert at % 4 == 0
    assert [entry.path for entry in cpio.read(whole[at:])] == ["a"]


def test_the_init_runs_first_and_then_becomes_the_production_s(tmp_path: Path) -> None:
    production = b"#!/usr/bin/python3 -ISEB\nimport os, sys\nprint('production', os.getpid(), sys.argv)\n"
    init, carried = testcpio.init("import os\nprint('first', os.getpid(), flush=True)", production)
    # the same two programs, under paths and an interpreter of this test
    moved = str(tmp_path / "production")
    (tmp_path / "init").write_bytes(init.data.replace(f"/{carried.path}".encode(), moved.encode()))
    (tmp_path / "production").write_bytes(carried.data.replace(b"/usr/bin/python3", sys.executable.encode()))
    for entry in (init, carried):
        assert entry.mode & 0o777 == 0o755
    (tmp_path / "production").chmod(0o755)
    said = subprocess.run(
        [sys.executable, tmp_path / "init"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    first, pid = said[0].split()
    assert first == "first"
    assert said[1].startswith(f"production {pid} [")


def test_the_repository_s_init_can_be_carried() -> None:
    init, carried = testcpio.init("", PRODUCTION_INIT.read_bytes())
    assert carried.data == PRODUCTION_INIT.read_bytes()
    assert init.data.splitlines()[0] == carried.data.splitlines()[0]
    assert init.path == "init"
    with pytest.raises(ValueError, match="expected #!"):
        testcpio.init("", b"\x7fELF")
