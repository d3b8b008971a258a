"""The pieces below the hooks: disks, device-mapper, the console, the shape of one traceback line."""

from __future__ import annotations

import ctypes
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from fakeguest import BLOCK, HOOKS, FakeKernel, Guest, erofs, with_tree
from stage import console, devmapper, disks
from stage.kernel import Kernel
from stage.worker import describe


class TestDisks:
    def test_only_what_has_a_serial(self, guest: Guest) -> None:
        guest.disk("vdb", "abc\n", bytes(1024), read_only=False)
        guest.disk("sr0", None, b"")
        guest.disk("vda", "", b"")
        found = disks.scan(guest.places.sys, guest.places.dev)
        assert found == [disks.Disk("vdb", "253:16", "abc", 1024, False, f"{guest.places.dev}/vdb")]
        assert disks.names(guest.places.sys) == ["sr0", "vda", "vdb"]

    def test_serial_of_no_characters_of_ours(self, guest: Guest) -> None:
        guest.disk("vda", "x", b"")
        (guest.block / "vda/serial").write_bytes(b"\xff\xfe")
        assert disks.scan(guest.places.sys, guest.places.dev)[0].serial == "\\xff\\xfe"

    def test_short_reads_go_on(self, guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
        data = bytes(range(256)) * 16
        guest.disk("vda", "x", data)
        (disk,) = disks.scan(guest.places.sys, guest.places.dev)
        whole = os.pread
        monkeypatch.setattr(os, "pread", lambda fd, length, offset: whole(fd, min(length, 100), offset))
        assert disks.pread(disk, 1000, 24) == data[24:1024]

    def test_reads_past_the_end_fail(self, guest: Guest) -> None:
        guest.disk("vda", "x", bytes(512))
        (disk,) = disks.scan(guest.places.sys, guest.places.dev)
        with pytest.raises(OSError, match="ends at byte 512, wanted 513"):
            disks.pread(disk, 513, 0)


class TestDeviceMapper:
    """Golden bytes: struct dm_ioctl and dm_target_spec as include/uapi/linux/dm-ioctl.h lays them out."""

    def test_load(self) -> None:
        seen: list[tuple[str, int, bytes]] = []
        mapper = devmapper.Mapper(lambda p, r, b: seen.append((p, r, bytes(b))), "control")
        mapper.load("root", 0x1122, "verity", "1 a b")
        path, request, data = seen[0]
        assert (path, request) == ("control", 0xC138FD09)
        assert data[:48].hex(" ", 4) == (
            "04000000 00000000 00000000 38110000 38010000 01000000 00000000 "  # version, sizes, one target
            "01000000 00000000 00000000 00000000 00000000"  # read-only; no event, no device
        )
        assert data[48:312] == b"root".ljust(264, b"\0")
        assert data[312:352].hex(" ", 4) == (
            "00000000 00000000 22110000 00000000 00000000 30000000 76657269 74790000 00000000 00000000"
        )
        assert data[352:360] == b"1 a b\0\0\0"
        assert len(data) == 312 + 4096

    def test_header_is_the_c_struct(self) -> None:
        class DmIoctl(ctypes.Structure):
            _fields_ = (
                ("version", ctypes.c_uint32 * 3),
                ("data_size", ctypes.c_uint32),
                ("data_start", ctypes.c_uint32),
                ("target_count", ctypes.c_uint32),
                ("open_count", ctypes.c_int32),
                ("flags", ctypes.c_uint32),
                ("event_nr", ctypes.c_uint32),
                ("padding", ctypes.c_uint32),
                ("dev", ctypes.c_uint64),
                ("name", ctypes.c_char * 128),
                ("uuid", ctypes.c_char * 129),
                ("data", ctypes.c_char * 7),
            )

        assert ctypes.sizeof(DmIoctl) == devmapper.HEADER.size
        raw = DmIoctl((4, 0, 0), 1, 2, 3, 4, 5, 6, 7, 8, b"n", b"u")
        assert devmapper.HEADER.unpack(bytes(raw))[:11] == (4, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8)

    @pytest.mark.parametrize(("count", "flags"), [(0, 0), (2, 0), (1, 1 << 8)])
    def test_reply_of_other_than_one_target(self, count: int, flags: int) -> None:
        def reply(path: str, request: int, buffer: bytearray) -> None:
            buffer[20:24] = count.to_bytes(4, "little")
            buffer[28:32] = flags.to_bytes(4, "little")

        with pytest.raises(ValueError, match=f"root has {count} targets"):
            devmapper.Mapper(reply, "control").table("root")

    def test_names_are_bounded(self, guest: Guest) -> None:
        with pytest.raises(ValueError, match="the limit is 127"):
            devmapper.Mapper(FakeKernel(guest).ioctl, "control").create("n" * 128)


def test_the_tests_own_trees_are_veritysetups(tmp_path: Path) -> None:
    """The hooks are tested on trees written in Python: the same bytes and root hash as veritysetup's."""
    salt = bytes(range(32))
    image, verity = with_tree(erofs(129), salt)
    file = tmp_path / "image"
    file.write_bytes(image[: 129 * BLOCK])
    tool = [
        "veritysetup",
        "format",
        f"--hash-offset={129 * BLOCK}",
        f"--salt={salt.hex()}",
        str(file),
        str(file),
    ]
    output = subprocess.run(tool, check=True, capture_output=True, text=True).stdout
    assert verity.root_hash in output
    assert file.read_bytes()[130 * BLOCK :] == image[130 * BLOCK :]


class TestConsole:
    def test_line_is_written_whole_and_in_ascii(self, monkeypatch: pytest.MonkeyPatch) -> None:
        written: list[bytes] = []

        def one_byte(fd: int, data: memoryview) -> int:
            assert fd == 1
            written.append(bytes(data[:1]))
            return 1

        monkeypatch.setattr(os, "write", one_byte)
        console.say("a…b")
        assert b"".join(written) == b"a\\u2026b\n"

    def test_broken_console_stops_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(console, "_STDOUT", 1 << 20)  # no such descriptor
        console.say("nobody hears")
        console.drain()

    def test_drains_a_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        controller, terminal = pty.openpty()
        try:
            monkeypatch.setattr(console, "_STDOUT", terminal)
            console.say("heard")
            console.drain()
            assert os.read(controller, 100) == b"heard\r\n"
        finally:
            os.close(controller)
            os.close(terminal)


def test_kernel_reports_errors_of_the_c_library() -> None:
    with pytest.raises(OSError, match="/nowhere/at/all") as caught:
        Kernel().mount("tinboot", "/nowhere/at/all", "no-such-file-system", 0)
    assert caught.value.errno


def test_the_roots_init_has_the_usual_priority() -> None:
    script = (
        "import os, sys; sys.path.append(sys.argv[1]); os.setpriority(os.PRIO_PROCESS, 0, -20)\n"
        "from stage.kernel import Kernel\n"
        "Kernel().execute(('/usr/bin/nice',), {})"
    )
    if os.geteuid() != 0:
        pytest.skip("only root may raise a priority")
    command = [sys.executable, "-c", script, str(HOOKS)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "0\n"


def test_describe_names_the_innermost_line() -> None:
    try:
        os.stat("/nowhere/at/all")  # noqa: PTH116
    except OSError as error:
        text = describe(error)
    assert text.startswith("FileNotFoundError: [Errno 2]")
    assert " at test_hooks_stage.py:" in text
