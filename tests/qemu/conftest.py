"""A stand-in for QEMU: a Python program that prints what a guest would and reports its end as QEMU does."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import machine
import pytest

_HEAD = """#!{python}
import json, os, re, signal, sys, time
if sys.argv[1:] == ["--version"]:
    print("QEMU emulator version 7.2.22")
    sys.exit()
qmp = int(re.search(r"fd=(\\d+)", " ".join(sys.argv))[1])

def say(text):
    sys.stdout.write(text)
    sys.stdout.flush()

def end(reason):
    event = {{"event": "SHUTDOWN", "data": {{"guest": True, "reason": reason}}}}
    os.write(qmp, json.dumps(event).encode() + b"\\r\\n")
    sys.exit()

"""


@pytest.fixture
def fake_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Called with the body of the program, it makes that the QEMU of this test."""

    def make(body: str) -> Path:
        program = tmp_path / "fake-qemu"
        program.write_text(_HEAD.format(python=sys.executable) + body)
        program.chmod(0o755)
        monkeypatch.setenv("TINBOOT_QEMU", str(program))
        machine.find_qemu.cache_clear()
        return program

    yield make
    machine.find_qemu.cache_clear()
