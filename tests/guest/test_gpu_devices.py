"""Device nodes as /proc/devices numbers them; how the daemon is started. That it runs: test_gpu_gate.py."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest

from tinboot.formats.halt import Refusal
from tinboot.guest import gpu_devices

NUMBERED = """\
Character devices:
  1 mem
195 nvidia
195 nvidiactl
236 nvidia-uvm

Block devices:
254 nvidia-frontend
"""


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int, int]]:
    """name -> major, minor, mode, of what is asked of the kernel; a test may not make device nodes."""
    nodes: dict[str, tuple[int, int, int]] = {}

    def mknod(path: str, mode: int, device: int) -> None:
        assert stat.S_ISCHR(mode)
        nodes[Path(path).name] = (os.major(device), os.minor(device), stat.S_IMODE(mode))
        Path(path).touch()

    monkeypatch.setattr(os, "mknod", mknod)
    return nodes


def test_one_for_the_driver_each_gpu_and_memory(
    made: dict[str, tuple[int, int, int]], tmp_path: Path
) -> None:
    gpu_devices.make_nodes(NUMBERED, 3, tmp_path)
    assert made == {
        "nvidiactl": (195, 255, 0o666),
        "nvidia0": (195, 0, 0o666),
        "nvidia1": (195, 1, 0o666),
        "nvidia2": (195, 2, 0o666),
        "nvidia-uvm": (236, 0, 0o666),
    }
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o666 for path in tmp_path.iterdir())


def test_an_older_drivers_name(made: dict[str, tuple[int, int, int]], tmp_path: Path) -> None:
    gpu_devices.make_nodes(NUMBERED.replace("195 nvidia\n", "195 nvidia-frontend\n"), 1, tmp_path)
    assert made["nvidia0"] == (195, 0, 0o666)


def test_none_without_a_driver(made: dict[str, tuple[int, int, int]], tmp_path: Path) -> None:
    gpu_devices.make_nodes("Character devices:\n  1 mem\n\nBlock devices:\n195 nvidia\n", 2, tmp_path)
    assert not made


def test_a_node_that_is_there_is_made_anew(made: dict[str, tuple[int, int, int]], tmp_path: Path) -> None:
    (tmp_path / "nvidia0").symlink_to("/dev/null")
    gpu_devices.make_nodes(NUMBERED, 1, tmp_path)
    assert not (tmp_path / "nvidia0").is_symlink()


def test_the_daemon_is_told_to_keep_unified_memory(tmp_path: Path) -> None:
    """Its own default is not to; NVIDIA's manual of confidential computing starts it so."""
    program, told, pid = tmp_path / "daemon", tmp_path / "told", tmp_path / "pid"
    program.write_text(f'#!/bin/sh\necho "$@" > {told}\necho $PPID > {pid}\n')
    program.chmod(0o755)
    gpu_devices.Starting(gpu_devices.Daemon(str(program), pid_file=pid)).finish(20)
    assert told.read_text() == "--uvm-persistence-mode\n"


def test_a_daemon_that_cannot_be_killed_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that hangs in the driver."""
    program = tmp_path / "daemon"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    starting = gpu_devices.Starting(gpu_devices.Daemon(str(program), pid_file=tmp_path / "pid"))
    killed: list[tuple[int, int]] = []
    with monkeypatch.context() as patched:
        patched.setattr(os, "kill", lambda *call: killed.append(call))
        with pytest.raises(Refusal, match=r"was not up within 0\.1 s"):
            starting.finish(0.1)
    assert killed == [(starting.pid, signal.SIGKILL)]
    assert os.waitpid(starting.pid, os.WNOHANG) == (0, 0)
    os.kill(starting.pid, signal.SIGTERM)
    os.waitpid(starting.pid, 0)
