"""A guest made of files: /sys, /dev, /proc below a folder, and a kernel that remembers what it was asked."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NoReturn, cast

from stage.kernel import Kernel
from stage.places import Places
from stage.state import State
from stage.worker import load_hook

from tinboot.formats.bootlog import Found
from tinboot.formats.verity import Verity

HOOKS = Path(__file__).parents[2] / "initrd-hooks"
BLOCK = 4096
UUID = bytes(range(16))
UUID_TEXT = "00010203-0405-0607-0809-0a0b0c0d0e0f"


class Executed(Exception):
    """The kernel was asked to become another program."""


class FakeKernel(Kernel):
    """Device-mapper without a kernel: offsets are written out here, not taken from the code under test."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.calls: list[tuple[object, ...]] = []
        self.tables: dict[str, tuple[int, int, str, str]] = {}  # name -> flags, sectors, kind, parameters
        self.active: set[str] = set()
        self.fail: dict[str, OSError] = {}  # method -> what it raises

    def _note(self, *call: object) -> None:
        self.calls.append(call)
        error = self.fail.get(cast("str", call[0]))
        if error is not None:
            raise error

    def mount(self, source: str, target: str, kind: str, flags: int, data: str = "") -> None:
        self._note("mount", source, target, kind, flags, data)

    def load_module(self, path: str) -> None:
        self._note("load_module", path)

    def block_node(self, path: str, device: int) -> None:
        self._note("block_node", path, device)
        device_name = self.tables[Path(path).name][3].split()[1]
        backing = next(d for d in self.guest.block.iterdir() if (d / "dev").read_text() == device_name + "\n")
        Path(path).symlink_to(self.guest.dev / backing.name)

    def enter(self, root: str) -> None:
        self._note("enter", root)

    def own_mounts(self) -> None:
        self._note("own_mounts")

    def chroot(self, path: str) -> None:
        self._note("chroot", path)

    def forgo_modules(self) -> None:
        self._note("forgo_modules")

    def execute(self, words: tuple[str, ...], environment: dict[str, str]) -> NoReturn:
        self._note("execute", words, environment)
        raise Executed

    def ioctl(self, path: str, request: int, buffer: bytearray) -> None:
        assert path == str(self.guest.dev / "mapper/control")
        assert request >> 8 == 0xC138FD  # read and write, 312 bytes, type 0xfd
        major, minor, patch, size, start = struct.unpack_from("<5I", buffer, 0)
        assert (major, minor, patch, size, start) == (4, 0, 0, len(buffer), 312)
        flags = struct.unpack_from("<I", buffer, 28)[0]
        name = buffer[48 : 48 + 128].rstrip(b"\0").decode()
        number = request & 0xFF
        self._note({3: "create", 6: "resume", 9: "load", 12: "status"}[number], name)
        if number == 3:
            struct.pack_into("<Q", buffer, 40, 254 << 8 | len(self.tables))
        elif number == 9:
            assert struct.unpack_from("<I", buffer, 20)[0] == 1  # one target
            first, sectors, _, step = struct.unpack_from("<QQII", buffer, 312)
            text = bytes(buffer[352 : 312 + step]).rstrip(b"\0").decode()
            kind = bytes(buffer[336:352]).rstrip(b"\0").decode()
            assert first == 0
            assert step % 8 == 0
            self.tables[name] = (flags, sectors, kind, text)
        elif number == 6:
            self.active.add(name)
        elif number == 12:
            self._status(name, flags, buffer)

    def _status(self, name: str, flags: int, buffer: bytearray) -> None:
        loaded, sectors, kind, parameters = self.tables[name]
        text = parameters if flags & 16 else "V"
        active = 32 if name in self.active else 0
        struct.pack_into("<III", buffer, 20, 1, 0, loaded & 1 | active | flags)
        struct.pack_into("<QQII16s", buffer, 312, 0, sectors, 0, 0, kind.encode())
        buffer[352 : 352 + len(text) + 1] = text.encode() + b"\0"


class Guest:
    """Folders as the kernel shows them, and the `State` that hooks get."""

    def __init__(self, root: Path) -> None:
        self.places = Places(str(root))
        self.block, self.dev, self.proc = root / "sys/block", root / "dev", root / "proc"
        self.pci = root / "sys/bus/pci/devices"
        self.sealed = root / "run/tinboot"
        for folder in (self.block, self.dev / "mapper", self.proc, self.pci, self.sealed):
            folder.mkdir(parents=True)
        self.kernel = FakeKernel(self)
        self.state = State(self.kernel, self.places, [], 0.0)

    def disk(self, name: str, serial: str | None, data: bytes, read_only: bool = True) -> None:
        folder = self.block / name
        folder.mkdir()
        if serial is not None:
            (folder / "serial").write_text(serial)  # virtio-blk: without a newline
        (folder / "size").write_text(f"{len(data) // 512}\n")
        (folder / "ro").write_text(f"{int(read_only)}\n")
        (folder / "dev").write_text(f"253:{16 * len(list(self.block.iterdir()))}\n")
        (self.dev / name).write_bytes(data)

    def device(self, address: str, vendor: int, kind: int) -> None:
        folder = self.pci / address
        folder.mkdir()
        (folder / "vendor").write_text(f"{vendor:#06x}\n")
        (folder / "class").write_text(f"{kind:#08x}\n")

    def run(self, hook: str) -> Found:
        return load_hook(str(HOOKS / hook))(self.state)


def erofs(blocks: int, uuid: bytes = UUID, bits: int = 12, magic: int = 0xE0F5E1E2) -> bytes:
    """Data that begins like an EROFS of `blocks` blocks; the rest of each block is its number."""
    data = bytearray(b"".join(n.to_bytes(8, "little") * (BLOCK // 8) for n in range(blocks)))
    data[1024 : 1024 + 128] = bytes(128)
    struct.pack_into("<I", data, 1024, magic)
    data[1024 + 12] = bits
    struct.pack_into("<I", data, 1024 + 36, blocks)
    data[1024 + 48 : 1024 + 64] = uuid
    return bytes(data)


def with_tree(data: bytes, salt: bytes) -> tuple[bytes, Verity]:
    """`data`, an unreadable superblock and the hash tree; written here from the format's definition."""
    levels: list[bytes] = []
    level: Sequence[bytes] = _digests(data, salt)
    while len(level) > 1:
        joined = b"".join(level)
        joined += bytes(-len(joined) % BLOCK)
        levels.insert(0, joined)
        level = _digests(joined, salt)
    image = data + os.urandom(BLOCK) + b"".join(levels)
    return image, Verity(level[0].hex(), salt.hex(), len(data) // BLOCK)


def _digests(data: bytes, salt: bytes) -> list[bytes]:
    return [sha256(salt + data[at : at + BLOCK]).digest() for at in range(0, len(data), BLOCK)]
