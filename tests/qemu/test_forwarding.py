"""The harness's network device is the launcher's, with a port that the kernel chooses."""

from __future__ import annotations

from typing import cast

import forwarding
import pytest
from machine import Machine

from tinboot.formats import cmdline, configdisk
from tinboot.formats.errors import Unavailable
from tinboot.formats.launchspec import Disk as LaunchDisk
from tinboot.formats.launchspec import Forward, LaunchSpec, Measured
from tinboot.host.launch import QEMU, Form, qemu_arguments

TABLE = """\
Hub -1 (net0):
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ
  TCP[ESTABLISHED]   41       127.0.0.1 43489       10.0.2.15   443     0     0
  TCP[HOST_FORWARD]  12       127.0.0.1 43489       10.0.2.15   443     0     0
  TCP[HOST_FORWARD]  13       127.0.0.1 40001       10.0.2.15    80     0     0
"""


class Monitor:
    """Answers `info usernet`."""

    def execute(self, command: str, arguments: dict[str, str]) -> object:
        assert (command, arguments) == ("human-monitor-command", {"command-line": "info usernet"})
        return TABLE


def test_arguments_are_the_launchers() -> None:
    line = cmdline.CommandLine("a" * 64, "b" * 64, "c" * 64, 7)
    spec = LaunchSpec(
        Measured(None, "/k", "/i", line, 1),
        1024,
        (LaunchDisk("config", "/c", configdisk.SERIAL), LaunchDisk("root", "/r", "b" * 20)),
        forwards=(Forward("127.0.0.1", 8443, 443), Forward("127.0.0.1", 8080, 80)),
    )
    listed = " ".join(qemu_arguments(spec, Form.HARNESS, QEMU))
    made = " ".join(forwarding.arguments(443, 80))
    assert made in listed.replace(":8443-", ":0-").replace(":8080-", ":0-")


def test_the_port_that_leads_to_another() -> None:
    machine = cast("Machine", Monitor())
    assert forwarding.port(machine, 443) == 43489
    assert forwarding.port(machine, 80) == 40001
    with pytest.raises(Unavailable, match="no port leads to 8080"):
        forwarding.port(machine, 8080)
