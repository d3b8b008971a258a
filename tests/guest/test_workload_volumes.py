"""Places to write: in memory, of whom the config says, with programs only where it says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from workload_configs import config

from tinboot.guest import workload_volumes
from tinboot.guest.workload_volumes import NODEV, NOEXEC, NOSUID

VOLUMES = "volumes:\n  - name: w\n    owner: 1000\n  - name: x\n    exec: true\n  - name: unused\n"


def test_each_is_a_tmpfs_of_its_own(tmp_path: Path) -> None:
    made: list[tuple[str, int, str]] = []
    loaded = config(VOLUMES, a="", b='volumes: ["w:/w", "x:/x"]')
    folder = tmp_path / "volumes"
    workload_volumes.mount(loaded, folder, lambda target, *rest: made.append((target.name, *rest)))
    first = (1 << 20) + (1 << 16)  # the second container's 0
    assert made == [
        ("w", NOSUID | NODEV | NOEXEC, f"size=50%,mode=0755,uid={first + 1000},gid={first + 1000}"),
        ("x", NOSUID | NODEV, f"size=50%,mode=0755,uid={first},gid={first}"),
        ("unused", NOSUID | NODEV | NOEXEC, "size=50%,mode=0755,uid=0,gid=0"),
    ]
    assert folder.stat().st_mode & 0o777 == 0o711
    assert sorted(path.name for path in folder.iterdir()) == ["unused", "w", "x"]


def test_what_is_mounted_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda self: self.name == "w")
    made: list[str] = []
    workload_volumes.mount(config(VOLUMES), tmp_path, lambda target, *_: made.append(target.name))
    assert made == ["x", "unused"]


def test_a_mount_that_fails_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot be mounted"):
        workload_volumes.tmpfs(tmp_path / "nothing", 0, "size=50%")
