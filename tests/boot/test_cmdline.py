"""The command line: whatever is not the template, to the letter, ends the boot in 10-config."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from guest import Guest

KEYS = ("config-hash", "root-hash", "root-salt", "root-blocks")


def value(line: str, key: str) -> str:
    return next(w.split("=", 1)[1] for w in line.split() if w.startswith(f"tinboot.{key}="))


@pytest.mark.parametrize("key", KEYS)
def test_parameter_missing(guest: Guest, key: str) -> None:
    line = " ".join(word for word in guest.cmdline.split() if not word.startswith(f"tinboot.{key}="))
    guest.boot(line).expect_halt("cmdline-malformed", hook="10-config")


@pytest.mark.parametrize("key", ["config-hash", "root-hash"])
def test_parameter_twice(guest: Guest, key: str) -> None:
    """The same value, so that it is the repetition that is refused."""
    line = f"{guest.cmdline} tinboot.{key}={value(guest.cmdline, key)}"
    guest.boot(line).expect_halt("cmdline-duplicate", hook="10-config")


def test_second_root_hash(guest: Guest) -> None:
    line = f"{guest.cmdline} tinboot.root-hash={'0' * 64}"
    guest.boot(line).expect_halt("cmdline-duplicate", hook="10-config")


@pytest.mark.parametrize("key", ["config-hash", "root-hash", "root-salt"])
@pytest.mark.parametrize(
    "change", [str.upper, lambda h: h[:-1], lambda h: h + "0"], ids=["upper", "63", "65"]
)
def test_hash_form(guest: Guest, key: str, change: object) -> None:
    assert callable(change)
    good = value(guest.cmdline, key)
    assert change(good) != good
    line = guest.cmdline.replace(f"{key}={good}", f"{key}={change(good)}")
    guest.boot(line).expect_halt("cmdline-malformed", hook="10-config")


@pytest.mark.parametrize(
    "word",
    [
        "init=/usr/bin/python3",
        "rdinit=/init",
        "rd.break",
        "systemd.unit=rescue.target",
        "systemd.import_credentials=yes",
        "modprobe.blacklist=dm_verity",
        "tinboot.debug=1",
        "tinboot.profile=debug",
        "PYTHONPATH=/dev",
        "single",
    ],
)
def test_word_that_is_not_in_the_template(guest: Guest, word: str) -> None:
    guest.boot(f"{guest.cmdline} {word}").expect_halt("cmdline-malformed", hook="10-config")


def test_word_in_front(guest: Guest) -> None:
    guest.boot(f"loglevel=7 {guest.cmdline}").expect_halt("cmdline-malformed", hook="10-config")


def test_firmware_suffix_boots(guest: Guest) -> None:
    """What OVMF appends is allowed, at the very end."""
    guest.hands_over(f"{guest.cmdline} initrd=initrd")


@pytest.mark.parametrize("tail", [" initrd=initrd quiet", " initrd=initrd initrd=initrd", " initrd=other"])
def test_text_after_the_firmware_suffix(guest: Guest, tail: str) -> None:
    guest.boot(guest.cmdline + tail).expect_halt("cmdline-malformed", hook="10-config")
