"""The padded config: back and forth, and each refusal."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats.configdisk import LIMIT, SECTOR, SERIAL, pad, unpad
from tinboot.formats.halt import Refusal

configs = st.binary(min_size=1, max_size=3 * SECTOR).filter(lambda config: b"\0" not in config)


@given(configs)
def test_unpad_inverts_pad(config: bytes) -> None:
    disk = pad(config)
    assert unpad(disk) == config
    assert len(disk) % SECTOR == 0
    assert 0 <= len(disk) - len(config) < SECTOR


@given(st.lists(st.sampled_from([b"a", b"\0", bytes(511), bytes(512), b"b" * 512]), max_size=6).map(b"".join))
def test_every_disk_is_the_one_of_its_config_or_refused(disk: bytes) -> None:
    """So a config has one disk, and nothing hides behind it."""
    disk += bytes(-len(disk) % SECTOR)
    with contextlib.suppress(Refusal):
        assert pad(unpad(disk)) == disk


@pytest.mark.parametrize("length", [1, SECTOR - 1, SECTOR, SECTOR + 1, LIMIT - 1, LIMIT])
def test_lengths_at_the_edges(length: int) -> None:
    assert unpad(pad(b"a" * length)) == b"a" * length


@pytest.mark.parametrize(
    ("disk", "reason", "detail"),
    [
        (b"", "config-empty", "the disk is empty"),
        (bytes(SECTOR), "config-empty", "the disk begins with NUL"),
        (b"\0a", "config-empty", "the disk begins with NUL"),
        (b"a" * (LIMIT + 1), "config-too-large", f"the disk holds more than {LIMIT} bytes"),
        (b"ab\0c" + bytes(508), "config-padding", "byte 3 is not NUL, but byte 2 is"),
        (b"a" + bytes(510) + b"\n", "config-padding", "byte 511 is not NUL, but byte 1 is"),
        (b"a" * 512 + bytes(512), "config-padding", "512 bytes of padding, a sector has 512"),
        (b"a" + bytes(1023), "config-padding", "1023 bytes of padding, a sector has 512"),
    ],
)
def test_refuses_a_disk(disk: bytes, reason: str, detail: str) -> None:
    with pytest.raises(Refusal) as refused:
        unpad(disk)
    assert (refused.value.reason, refused.value.detail) == (reason, detail)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (b"", "config-empty"),
        (b"\0", "config-empty"),
        (b"a\0", "config-padding"),
        (b"a" * 511 + b"\0", "config-padding"),
        (b"a\0b", "config-padding"),
        (b"a" * (LIMIT + 1), "config-too-large"),
    ],
)
def test_refuses_a_config_that_would_not_come_back(config: bytes, reason: str) -> None:
    with pytest.raises(Refusal) as refused:
        pad(config)
    assert refused.value.reason == reason


def test_serial_fits_virtio() -> None:
    assert len(SERIAL.encode("ascii")) <= 20  # VIRTIO_BLK_ID_BYTES, Virtio 1.2, 5.2.6.1
