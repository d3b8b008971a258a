"""docs/ehbp.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tinboot.ehbp import messages
from tinboot.guest import ehbp, ehbp_exchange, ehbp_gateway
from tinboot.guest.ehbp_exchange import Patience, Settings

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs/ehbp.md").read_text("utf-8")
UNIT = (REPOSITORY / "mkosi.images/root/mkosi.extra/usr/lib/systemd/system/tinboot-ehbp.service").read_text(
    "utf-8"
)


@pytest.mark.parametrize(
    ("row", "value"),
    [
        ("requests at a time", f"{ehbp_gateway.REQUESTS}; the next"),
        ("head, first frame", f"{Patience().head:g} and {Patience().first:g} seconds"),
        ("nothing moves either way", f"{Patience().idle / 3600:g} hour"),
        (
            "a request, a response",
            f"{messages.Limits().total >> 30} GiB, {Settings._field_defaults['response_limit'] >> 30} GiB",
        ),
        (
            "frames that have not arrived whole",
            f"{ehbp_exchange._HIGH >> 10} KiB a request, and {ehbp_gateway.MEMORY >> 20} MiB",
        ),
    ],
)
def test_limits(row: str, value: str) -> None:
    (line,) = re.findall(rf"^\| {row}[^|]*\|(.*)\|$", PAGE, re.MULTILINE)
    assert value in line


def test_frames() -> None:
    written, read = messages.FRAME >> 10, messages.Limits().frame >> 20
    assert f"hold up to {written} KiB; frames that are read may have {read} MiB" in PAGE
    assert f"a frame of more than {read} MiB" in PAGE


def test_statuses() -> None:
    told = {int(status) for status in re.findall(r"^\| (\d{3}) \|", PAGE, re.MULTILINE)}
    assert told == {messages.MISMATCH_STATUS, *(status for _, status in ehbp_exchange._STATUS)}
    assert set(ehbp_exchange._REASONS) == told


def test_processes() -> None:
    assert ehbp._PROCESSES == 8
    assert "at most eight" in PAGE


def test_the_unit() -> None:
    assert f"LoadCredential={ehbp.CREDENTIAL}:" in UNIT
    assert "\nCapabilityBoundingSet=\n" in UNIT
    assert f"RuntimeDirectory={ehbp.SOCKET.parent.name}\n" in UNIT
