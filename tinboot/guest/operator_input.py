"""The operator's disk, if there is one: found by its serial, read once, bounded."""

from __future__ import annotations

import os
from pathlib import Path

from tinboot.formats import operatorinput
from tinboot.formats.bootlog import OPERATOR_SERIAL
from tinboot.formats.config import Config
from tinboot.formats.errors import Malformed, Mismatch, Refused
from tinboot.formats.halt import Refusal
from tinboot.formats.operatorinput import OperatorInput

_BLOCK = Path("/sys/block")
_DEV = Path("/dev")
_SERIAL_BYTES = 20  # VIRTIO_BLK_ID_BYTES, Virtio 1.2, 5.2.6.1


def load(config: Config, block: Path = _BLOCK, dev: Path = _DEV) -> OperatorInput:
    """Raises `Refusal` with operator-malformed, operator-undeclared or operator-missing.

    30-volumes has let at most one disk with the serial in.
    """
    node = find(block, dev)
    try:
        given = operatorinput.NOTHING if node is None else operatorinput.parse(_read(node))
        operatorinput.check(given, config)
    except (Malformed, OSError) as error:
        raise Refusal("operator-malformed", str(error)) from error
    except Refused as error:
        raise Refusal("operator-undeclared", error.message) from error
    except Mismatch as error:
        raise Refusal("operator-missing", error.message) from error
    return given


def find(block: Path, dev: Path) -> Path | None:
    """The disk's node. `block`: /sys/block."""
    for folder in sorted(block.iterdir()):
        try:
            with (folder / "serial").open("rb") as file:
                serial = file.read(_SERIAL_BYTES + 1)
        except OSError:  # a device without a serial, or that does not answer
            continue
        if serial.strip() == OPERATOR_SERIAL.encode():
            return dev / folder.name
    return None


def _read(node: Path) -> bytes:
    """As much as `parse` needs to refuse what is too large."""
    disk = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = b""
        while part := os.read(disk, operatorinput.MAX_SIZE + 1 - len(data)):
            data += part
        return data
    finally:
        os.close(disk)
