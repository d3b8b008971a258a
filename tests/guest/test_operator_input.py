"""The operator's disk: the one with the serial, read once and no further than it may be long."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tinboot.formats.bootlog import OPERATOR_SERIAL
from tinboot.formats.config import Config
from tinboot.formats.config_container import Container
from tinboot.formats.halt import Refusal
from tinboot.formats.operatorinput import MAX_SIZE, NOTHING, OperatorInput, pad
from tinboot.guest import operator_input

CONFIG = Config(1, 64)
ASKING = Config(1, 64, containers=(Container("a", "localhost/a@sha256:" + "0" * 64, secrets=("KEY",)),))


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder with `block` and `dev`, and two disks of others."""
    for number, serial in enumerate(("tinboot-config", None)):
        disk(tmp_path, f"vd{'ab'[number]}", serial, b"")
    return tmp_path


def disk(folder: Path, name: str, serial: str | None, content: bytes) -> None:
    (folder / "block" / name).mkdir(parents=True)
    (folder / "dev").mkdir(exist_ok=True)
    if serial is not None:
        (folder / "block" / name / "serial").write_text(serial)
    (folder / "dev" / name).write_bytes(content)


def load(folder: Path, config: Config = CONFIG) -> OperatorInput:
    return operator_input.load(config, folder / "block", folder / "dev")


def refused(folder: Path, config: Config = CONFIG) -> str:
    with pytest.raises(Refusal) as caught:
        load(folder, config)
    return caught.value.reason


def test_no_disk_is_nothing_given(machine: Path) -> None:
    assert load(machine) == NOTHING


def test_the_disk_with_the_serial(machine: Path) -> None:
    disk(machine, "vdc", OPERATOR_SERIAL, pad(b'{"secrets":{"KEY":"x"}}'))
    assert load(machine, ASKING).secrets == {"KEY": "x"}


@pytest.mark.parametrize("serial", ["tinboot-operator-2", "tinboot-operato", "Tinboot-Operator", ""])
def test_another_serial_is_anothers(machine: Path, serial: str) -> None:
    disk(machine, "vdc", serial, pad(b"{}"))
    assert operator_input.find(machine / "block", machine / "dev") is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{}".ljust(MAX_SIZE + 512), b"{}" + bytes(600)])
def test_malformed(machine: Path, content: bytes) -> None:
    disk(machine, "vdc", OPERATOR_SERIAL, content)
    assert refused(machine) == "operator-malformed"


def test_a_disk_that_cannot_be_read(machine: Path) -> None:
    disk(machine, "vdc", OPERATOR_SERIAL, b"")
    (machine / "dev/vdc").unlink()
    assert refused(machine) == "operator-malformed"


def test_no_more_is_read_than_shows_that_it_is_too_large(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(machine, "vdc", OPERATOR_SERIAL, b"")
    os.truncate(machine / "dev/vdc", 1 << 40)
    taken = 0
    real = os.read

    def counted(descriptor: int, size: int) -> bytes:
        nonlocal taken
        data = real(descriptor, size)
        taken += len(data)
        return data

    monkeypatch.setattr(os, "read", counted)
    assert refused(machine) == "operator-malformed"
    assert taken == MAX_SIZE + 1


def test_undeclared_and_missing(machine: Path) -> None:
    assert refused(machine, ASKING) == "operator-missing"
    disk(machine, "vdc", OPERATOR_SERIAL, pad(b'{"env":{"KEY":"x"}}'))
    assert refused(machine, ASKING) == "operator-undeclared"
