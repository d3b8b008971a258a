"""The config on its disk: the file's bytes, NUL-padded to the sector, and nothing else."""

from __future__ import annotations

from tinboot.formats.halt import Refusal

#: virtio serial of the config's disk.
SERIAL = "tinboot-config"

SECTOR = 512
LIMIT = 1 << 20  # bytes of config; Tinfoil's published schema has the same bound


def pad(config: bytes) -> bytes:
    """The disk for `config`; raises `Refusal` where `unpad` would not give the same bytes back."""
    disk = config + bytes(-len(config) % SECTOR)
    if not config:
        raise Refusal("config-empty", "the config has no bytes")
    if unpad(disk) != config:
        raise Refusal("config-padding", "the config ends in NUL")
    return disk


def unpad(disk: bytes) -> bytes:
    """The config's bytes from a whole disk of at most `LIMIT` bytes, or a `Refusal`."""
    if len(disk) > LIMIT:
        raise Refusal("config-too-large", f"the disk holds more than {LIMIT} bytes")
    config, nul, rest = disk.partition(b"\0")
    if not config:
        raise Refusal("config-empty", "the disk begins with NUL" if disk else "the disk is empty")
    if rest.strip(b"\0"):
        at = len(config) + 1 + len(rest) - len(rest.lstrip(b"\0"))
        raise Refusal("config-padding", f"byte {at} is not NUL, but byte {len(config)} is")
    if len(nul + rest) >= SECTOR:
        raise Refusal("config-padding", f"{len(nul + rest)} bytes of padding, a sector has {SECTOR}")
    return config
