"""Hooks that misbehave, and machines that do not suit: each ends in one halt line and power-off."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from guest import make_config

if TYPE_CHECKING:
    from guest import Guest

#: What a hook does instead of its work -> the reason it ends with.
FAULTS = {
    "raises": ("raise RuntimeError('planted')", "hook-failed"),
    "is out of memory": ("raise MemoryError", "hook-failed"),
    "does not compile": ("return (", "hook-failed"),
    "exits": ("import sys; sys.exit(0)", "hook-exited"),
    "exits at once": ("import os; os._exit(0)", "hook-exited"),
    "is killed": ("import os; os.kill(os.getpid(), 9)", "hook-killed"),
    "crashes": ("import ctypes; ctypes.string_at(0)", "hook-killed"),
    "hangs": ("while True: pass", "hook-timeout"),
    "hangs deaf": (
        """import signal, time
    for number in {*range(1, 32)} - {9, 19}:
        signal.signal(number, signal.SIG_IGN)
    time.sleep(600)""",
        "hook-timeout",
    ),
    "sleeps in a child that keeps the pipe": (
        "import os, time\n    if os.fork(): os._exit(3)\n    time.sleep(600)",
        "hook-exited",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_hook_that(guest: Guest, fault: str) -> None:
    body, reason = FAULTS[fault]
    faulty = guest.with_hook("35-fault", f"def run(state):\n    {body}\n")
    halted = faulty.boot().expect_halt(reason, hook="35-fault")
    if fault == "raises":
        assert "planted" in halted.detail


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise RuntimeError('planted')", "hook-failed"),
        ("return None", "hook-exited"),
        ("import sys; sys.exit(0)", "hook-exited"),
        ("import time; time.sleep(600)", "hook-timeout"),
    ],
    ids=["raises", "returns", "exits", "hangs"],
)
def test_last_hook_that(guest: Guest, body: str, reason: str) -> None:
    """90-handover runs in PID 1 itself."""
    faulty = guest.with_hook("90-handover", f"def run(state):\n    {body}\n")
    faulty.boot().expect_halt(reason, hook="90-handover")


def test_no_last_hook(guest: Guest) -> None:
    """A hook behind the hand-over would never run; it is refused before any does."""
    faulty = guest.with_hook("95-late", "def run(state):\n    return {}\n")
    faulty.boot().expect_halt("hook-failed", hook="runner")


def test_root_without_init(guest: Guest) -> None:
    """The hand-over looks before it leaps."""
    hide = (
        "def run(state):\n"
        "    state.kernel.mount('tmpfs', '/sysroot/usr/lib/systemd', 'tmpfs', 0)\n"
        "    return {}\n"
    )
    guest.with_hook("85-hide", hide).boot().expect_halt("handover-failed", hook="90-handover")


def test_cpu_without_rdrand(guest: Guest) -> None:
    guest.boot(cpu="qemu64").expect_halt("cpu-no-rdrand", hook="runner")


def test_too_little_memory(guest: Guest) -> None:
    """The config says 1024 MiB; the initrd itself would be content with this."""
    guest.boot(memory=512).expect_halt("memory-too-small", hook="10-config")


@pytest.mark.parametrize("device", ["VGA", "virtio-vga"])
def test_gpu_that_nobody_asked_for(guest: Guest, device: str) -> None:
    """Another vendor's display; QEMU can pretend to be NVIDIA's only through vfio (tests/hooks has that)."""
    guest.boot(extra=["-device", device]).expect_halt("gpu-unexpected", hook="40-gpu")


def test_gpu_that_is_not_there(guest: Guest, disk_dir: Path) -> None:
    config = make_config(guest.volumes, "gpus: 1")
    guest.with_config(config, disk_dir).boot().expect_halt("gpu-count", hook="40-gpu")
