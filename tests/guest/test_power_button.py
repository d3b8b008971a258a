"""Input events, as evdev gives them, and the word to systemd."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tinboot.guest.power_button import EV_KEY, EVENT, KEY_POWER, presses_power, ready


def event(kind: int, code: int, value: int) -> bytes:
    return EVENT.pack(1, 2, kind, code, value)


PRESS = event(EV_KEY, KEY_POWER, 1)


def test_a_press_among_other_events() -> None:
    assert presses_power(event(EV_KEY, 30, 1) + PRESS + event(0, 0, 0))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        event(EV_KEY, KEY_POWER, 0),
        event(EV_KEY, KEY_POWER, 2),
        event(EV_KEY, 30, 1),
        event(0, KEY_POWER, 1),
        PRESS[:-1],
    ],
    ids=["nothing", "release", "repeat", "another key", "another type", "cut"],
)
def test_what_is_no_press(data: bytes) -> None:
    assert not presses_power(data)


def test_says_that_it_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        ready()
        assert server.recv(100) == b"READY=1"
