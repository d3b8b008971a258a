"""Boots that succeed: what a good machine says, and what may differ without mattering."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from boot import finish
from serial_log import Outcome

from tinboot.formats import bootlog, cmdline

if TYPE_CHECKING:
    from guest import Guest


@pytest.fixture
def guest(guest: Guest, firmware: Path) -> Guest:
    """Good boots are the production's from the first instruction on."""
    return replace(guest, firmware=firmware)


def test_says_what_was_verified_and_powers_off_in_order(guest: Guest) -> None:
    with guest.machine() as machine:
        event = machine.wait(180)
        assert event.outcome is Outcome.UP, event
        machine.execute("system_powerdown")
        result = finish(machine, event, seconds=60)
    up = result.expect_up()
    assert up["profile"] == "release"
    boot = up["boot"]
    assert isinstance(boot, dict)
    assert boot["cmdline"] == guest.cmdline + cmdline.FIRMWARE_SUFFIX
    found = {hook["hook"]: hook["found"] for hook in boot["hooks"]}
    assert found["10-config"]["config_hash"] == hashlib.sha256(guest.config).hexdigest()
    assert found["20-root"] == {
        "root_hash": guest.line.root_hash,
        "blocks": guest.line.root_blocks,
    }
    assert result.powered_off
    assert "tinboot-power-off" in result.text()


def test_console_shows_each_hook(guest: Guest) -> None:
    result = guest.hands_over()
    passed = [bootlog.parse_passed(line) for line in result.lines() if line.startswith(bootlog.PASSED_PREFIX)]
    assert [p.hook for p in passed] == ["10-config", "20-root", "30-volumes", "40-gpu", "80-modules"]


@pytest.mark.parametrize("clock", ["1970-01-01T00:00:10", "2036-11-25T00:00:00"])
def test_clock_does_not_matter(guest: Guest, clock: str) -> None:
    guest.boot(extra=["-rtc", f"base={clock}"]).expect_up()


def test_several_cpus(guest: Guest) -> None:
    guest.boot(extra=["-smp", "2"]).expect_up()


def test_host_strings_do_not_reach_the_root(guest: Guest) -> None:
    """A hostile SMBIOS: serial, UUID, OEM strings that systemd would take for credentials."""
    extra = [
        *("-smbios", "type=1,uuid=11111111-2222-3333-4444-555555555555,serial=evil"),
        *("-smbios", "type=11,value=io.systemd.credential:system.hostname=evil"),
        *("-fw_cfg", "name=opt/io.systemd.credentials/system.machine_id,string=" + "6" * 32),
    ]
    result = guest.with_hook("85-look", LOOK).boot(extra=extra)
    result.expect_up()
    assert "late-look: host=tinboot id=bound credentials=[]" in result.text(), result.describe()


#: Looks at the running root from a process that outlives the hand-over.
LOOK = """
import os, time

def run(state):
    comm = os.open("/proc/1/comm", os.O_RDONLY)
    root = os.open("/proc/1", os.O_RDONLY)
    if os.fork():
        return {}
    os.setsid()
    while os.pread(comm, 64, 0) != b"systemd\\n":
        time.sleep(0.2)
    def read(path):
        fd = os.open("root/" + path, os.O_RDONLY, dir_fd=root)
        return os.read(fd, 100).decode().strip()
    for _ in range(200):  # systemd sets it early, though not at once
        host = read("proc/sys/kernel/hostname")
        if host != "(none)":
            break
        time.sleep(0.2)
    time.sleep(1)
    same = read("etc/machine-id") == read("run/tinboot/machine-id")
    try:
        fd = os.open("root/run/credentials", os.O_RDONLY, dir_fd=root)
        there = os.listdir(fd)
    except FileNotFoundError:
        there = []
    console = os.open("root/dev/console", os.O_WRONLY | os.O_NOCTTY, dir_fd=root)
    said = f"late-look: host={host} id={'bound' if same else 'other'} credentials={there}"
    os.write(console, f"\\n{said}\\n".encode())
    os._exit(0)
"""
