"""The last hook: what it seals, the order of the switch, and how far the wipe reaches."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from fakeguest import HOOKS, Executed, FakeKernel, Guest
from stage.worker import load_hook

from tinboot.formats.bootlog import Passed
from tinboot.formats.halt import Refusal


class LookingKernel(FakeKernel):
    """Reads the sealed files at the moment of sealing: afterwards the wipe takes this fake's files too."""

    sealed: dict[str, str]
    modules_disabled: str

    def mount(self, source: str, target: str, kind: str, flags: int, data: str = "") -> None:
        super().mount(source, target, kind, flags, data)
        if flags & 32:
            self.sealed = {p.name: p.read_text() for p in self.guest.sealed.iterdir()}
        if flags == 8192:  # MS_MOVE; soon after, all that a file system of the test's holds is gone
            self.modules_disabled = (self.guest.proc / "sys/kernel/modules_disabled").read_text()

    def execute(self, words: tuple[str, ...], environment: dict[str, str]) -> None:  # type: ignore[override]
        # closerange ran: nothing of the test may be open above 2 but what the stand-in below left
        super().execute(words, environment)


@pytest.fixture
def ready(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> Guest:
    guest.kernel = LookingKernel(guest)
    guest.state.kernel = guest.kernel
    guest.state.passed = [Passed("10-config", 3, {"models": 0})]
    (guest.proc / "cmdline").write_text("console=ttyS0 quiet\n")
    (guest.proc / "sys/kernel").mkdir(parents=True)
    init = Path(guest.places.sysroot, "usr/lib/systemd/systemd")
    init.parent.mkdir(parents=True)
    init.touch(0o755)
    monkeypatch.setattr(os, "closerange", lambda low, high: None)  # pytest's own files
    return guest


def run(guest: Guest) -> None:
    load_hook(str(HOOKS / "90-handover"))(guest.state)


def test_switches(ready: Guest) -> None:
    with pytest.raises(Executed):
        run(ready)
    places, sysroot, calls = ready.places, ready.places.sysroot, ready.kernel.calls
    assert calls == [
        ("mount", f"{places.sealed}/machine-id", f"{sysroot}/etc/machine-id", "", 4096, ""),
        ("mount", "tinboot", places.sealed, "tmpfs", 32 | 1 | 2 | 4 | 8, ""),
        ("mount", "tmpfs", f"{sysroot}/tmp", "tmpfs", 2 | 4 | 8, "mode=1777,size=25%"),
        ("mount", "tmpfs", f"{sysroot}/var", "tmpfs", 2 | 4 | 8, "mode=0755,size=25%"),
        *(
            ("mount", f"{places.root}/{name}", f"{sysroot}/{name}", "", 8192, "")
            for name in ("dev", "proc", "sys", "run")
        ),
        ("enter", sysroot),
        ("forgo_modules",),
        ("execute", ("/usr/lib/systemd/systemd",), {"TERM": "dumb"}),
    ]


def test_forbids_modules(ready: Guest) -> None:
    with pytest.raises(Executed):
        run(ready)
    assert isinstance(ready.kernel, LookingKernel)
    assert ready.kernel.modules_disabled == "1"


def test_modules_that_cannot_be_forbidden_end_the_boot(ready: Guest) -> None:
    (ready.proc / "sys/kernel").rmdir()
    with pytest.raises(Refusal, match="modules_disabled"):
        run(ready)


def test_seals(ready: Guest) -> None:
    with pytest.raises(Executed):
        run(ready)
    assert isinstance(ready.kernel, LookingKernel)
    sealed = ready.kernel.sealed
    report = json.loads(sealed["boot.json"])
    assert report["cmdline"] == "console=ttyS0 quiet"
    assert report["hooks"] == [{"hook": "10-config", "ms": 3, "found": {"models": 0}}]
    assert len(bytes.fromhex(sealed["machine-id"].removesuffix("\n"))) == 16
    assert sealed["machine-id"].endswith("\n")


@pytest.mark.parametrize("call", ["mount", "enter", "forgo_modules"])
def test_fails_by_name(ready: Guest, call: str) -> None:
    ready.kernel.fail[call] = OSError(22, "Invalid argument")
    with pytest.raises(Refusal) as caught:
        run(ready)
    assert caught.value.reason == "handover-failed"


def test_root_without_init(ready: Guest) -> None:
    Path(ready.places.sysroot, "usr/lib/systemd/systemd").chmod(0o644)
    with pytest.raises(Refusal) as caught:
        run(ready)
    assert caught.value.reason == "handover-failed"
    assert ready.kernel.calls == []


def test_wipe_takes_all_of_one_file_system(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").touch()
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "kept").touch()
    (tmp_path / "a/link").symlink_to(outside)
    (tmp_path / "dangling").symlink_to("nowhere")
    wipe(tmp_path, tmp_path.stat().st_dev)
    assert list(tmp_path.iterdir()) == []
    assert (outside / "kept").exists()


def test_wipe_leaves_other_file_systems(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "file").touch()
    wipe(tmp_path, tmp_path.stat().st_dev + 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "file"]


def wipe(folder: Path, device: int) -> None:
    scope = load_hook(str(HOOKS / "90-handover")).__globals__
    scope["wipe"](f"{folder}/", device)
