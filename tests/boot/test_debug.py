"""The debug image is another image: it says so, gives a shell, and the release image never does."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from arguments import arguments
from guest import make_guest
from machine import find_qemu
from psp import Psp
from serial_log import Outcome

from tinboot.guest import status

if TYPE_CHECKING:
    from guest import Guest, Wrapped

    from tinboot.builder import image

PROMPT = "tinboot DEBUG# "
#: Seconds for an emulated boot on a loaded machine.
DEADLINE = 240.0


class Console:
    """QEMU with its serial line on its standard input and output, for a person's dialogue."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._timer = threading.Timer(DEADLINE, self._process.kill)
        self._timer.start()
        self.text = ""

    def until(self, pattern: str) -> str:
        """Reads until the text since the last call matches; what was read. Fails at the end of output."""
        assert self._process.stdout is not None
        said = ""
        while not re.search(pattern, said):
            part = self._process.stdout.read1(4096)  # type: ignore[attr-defined] # a BufferedReader
            said += part.decode("utf-8", "replace")
            self.text += part.decode("utf-8", "replace")
            assert part, f"QEMU ended before {pattern!r}: {self.text[-3000:]}"
        return said

    def type(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def close(self) -> None:
        self._timer.cancel()
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def console(
    debug: image.Image, wrapped: tuple[Wrapped, Wrapped], log_dir: Path, disk_dir: Path
) -> Iterator[Console]:
    guest = make_guest(debug, wrapped, log_dir, disk_dir)
    command = list(arguments(debug.folder / "kernel", guest.initrd(), guest.cmdline, guest.disks))
    with Psp() as psp:
        opened = Console([find_qemu(), *command, *psp.arguments])
        yield opened
        (log_dir / "boot.log").write_text(opened.text)
        opened.close()


def test_says_what_it_is_and_gives_a_shell(console: Console) -> None:
    said = console.until(re.escape(PROMPT))
    assert status.DEBUG_BANNER in said
    assert '"profile":"debug"' in said
    console.type("echo id=$EUID $(</usr/lib/tinboot/profile); ps -p 1 -o comm=; systemctl --version")
    answer = console.until(r"systemd\s+systemd [0-9]")
    assert "id=0 debug" in answer
    console.type("findmnt -n -o OPTIONS /; echo > /etc/x")
    answer = console.until("Read-only file system")
    assert re.search(r"^ro,", answer, re.MULTILINE)


def test_the_release_image_asks_nobody(guest: Guest) -> None:
    result = guest.boot()
    result.expect_up()
    assert result.outcome is Outcome.UP
    for word in (PROMPT, "DEBUG", "login:", "bash", "# "):
        assert word not in result.text(), result.describe()
