"""The test archive: marked as what it is, in its own folder, and only the interface that was asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import stub_files
from stub_files import Kind

from tinboot.builder import places

STUBS = places.REPOSITORY / "qemu/stubs"


@pytest.fixture(autouse=True)
def module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stub_files, "cuse_module", lambda: b"module")


@pytest.mark.parametrize(
    ("kind", "own"), [("cuse", {"cuse.ko", "stubs/cuse_sev_guest.py"}), ("tsm", {"stubs/fuse_tsm.py"})]
)
def test_what_is_in_it(kind: Kind, own: set[str]) -> None:
    entries = stub_files.entries(kind)
    hooks = [entry.path for entry in entries if entry.path.startswith("usr/lib/tinboot/hooks/")]
    rest = {e.path.removeprefix("usr/lib/tinboot-test/") for e in entries} - set(hooks)
    assert hooks == ["usr/lib/tinboot/hooks/85-stub-psp"]
    assert rest == {"usr/lib/tinboot/tinboot/formats/sevguest.py", "stubs/psp_port.py", *own}


@pytest.mark.parametrize("path", sorted(STUBS.glob("*.py")), ids=lambda path: path.name)
def test_each_says_that_it_is_for_tests(path: Path) -> None:
    assert path.read_text("utf-8").startswith('"""TEST ONLY, never in a production image: ')


def test_runs_behind_the_modules_and_before_the_hand_over() -> None:
    hooks = sorted(p.name for p in (places.REPOSITORY / "initrd-hooks").iterdir() if p.name[0].isdigit())
    assert sorted([*hooks, stub_files.HOOK])[-3:] == ["80-modules", stub_files.HOOK, "90-handover"]
