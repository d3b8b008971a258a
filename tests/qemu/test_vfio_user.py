"""vfio-user: each command against a client of its own making, and what a hostile one could send."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import vfio_user
from hypothesis import given
from hypothesis import strategies as st
from vfio_client import (
    BAR0,
    CONFIG,
    DMA_READ,
    FEATURE,
    INFO,
    IO_FDS,
    IRQ_INFO,
    MAP,
    READ,
    REGION_INFO,
    ROM,
    SET_IRQS,
    UNMAP,
    VERSION,
    WRITE,
    WRITE_MULTI,
    Client,
    connected,
    version,
)
from vfio_user import Refused, Server, Session
from vfio_user_h100 import H100, Functions, Registers


@pytest.fixture
def server() -> Iterator[Server]:
    with Functions((H100,)) as functions:
        yield functions.served[0]


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """One that has agreed on a version."""
    with connected(server) as found:
        yield found


def test_the_version_comes_first(server: Server) -> None:
    with closing(Client(server)) as client:
        payload = client.agree()
        assert payload[:4] == bytes(4)
        limits = {"max_data_xfer_size": 4096, "max_dma_maps": 1024}
        assert json.loads(payload[4:].removesuffix(b"\0")) == {"capabilities": limits}
        assert client.refused(VERSION, version()) == errno.EINVAL  # and not twice
        assert client.good(INFO, struct.pack("<IIII", 16, 0, 0, 0))


@pytest.mark.parametrize(
    "text", [b"", b"{}\0", b'{"capabilities":{}}\0', b'{"capabilities":{"pgsizes":4096}}']
)
def test_no_capability_is_named_that_was_not_proposed(server: Server, text: bytes) -> None:
    with closing(Client(server)) as client:
        assert json.loads(client.good(VERSION, version(text=text))[4:-1]) == {"capabilities": {}}


def test_a_newer_minor_version_comes_down_to_ours(server: Server) -> None:
    with closing(Client(server)) as client:
        assert client.good(VERSION, version(minor=9))[:4] == bytes(4)


@pytest.mark.parametrize(
    ("command", "payload", "code"),
    [
        (VERSION, version(major=1), errno.EPROTONOSUPPORT),
        (VERSION, b"\0\0\0", errno.EINVAL),
        (VERSION, version(text=b"{"), errno.EINVAL),
        (VERSION, version(text=b"[]\0"), errno.EINVAL),
        (VERSION, version(text=b'{"capabilities":[]}\0'), errno.EINVAL),
        (VERSION, version(text=b"\xff\0"), errno.EINVAL),
        (VERSION, version(text=b"[" * 4000), errno.EINVAL),
        (INFO, struct.pack("<IIII", 16, 0, 0, 0), errno.EINVAL),
        (READ, struct.pack("<QII", 0, CONFIG, 4), errno.EINVAL),
    ],
)
def test_who_does_not_agree_on_a_version_is_left(
    server: Server, command: int, payload: bytes, code: int
) -> None:
    with closing(Client(server)) as client:
        assert client.refused(command, payload) == code
        assert client.disconnected()


def test_what_the_device_is(client: Client) -> None:
    resets, pci = 1, 2
    found = struct.unpack("<IIII", client.good(INFO, struct.pack("<IIII", 16, 0, 0, 0)))
    assert found == (16, resets | pci, 9, 5)


def test_its_regions(client: Client) -> None:
    sizes = {}
    for index in range(9):
        asked = struct.pack("<IIIIQQ", 32, 0, index, 0, 0, 0)
        argsz, flags, answered, cap_offset, size, offset = struct.unpack(
            "<IIIIQQ", client.good(REGION_INFO, asked)
        )
        assert (argsz, answered, cap_offset, offset) == (32, index, 0, 0)
        assert flags == (3 if size else 0)  # read and written, never mapped
        sizes[index] = size
    assert sizes == {**dict.fromkeys(range(9), 0), BAR0: 1 << 16, CONFIG: 4096}


def test_it_has_no_interrupt(client: Client) -> None:
    for index in range(5):
        asked = struct.pack("<IIII", 16, 0, index, 0)
        assert client.good(IRQ_INFO, asked) == asked
        off = struct.pack("<IIIII", 20, 1 | 1 << 5, index, 0, 0)
        assert client.good(SET_IRQS, off) == b""


def test_a_posted_write_has_no_reply(client: Client) -> None:
    client.send(WRITE, struct.pack("<QIIB", 0x3C, CONFIG, 1, 0x0B), flags=0x10)
    client.send(WRITE, struct.pack("<QIIB", 4096, CONFIG, 1, 0x0B), flags=0x10)  # not even a refusal
    assert client.registers(0x3C, 1) == b"\x0b"


def mapping(address: int, size: int) -> bytes:
    return struct.pack("<IIQQQ", 32, 3, 0, address, size)


def unmapping(address: int, size: int, flags: int = 0) -> bytes:
    return struct.pack("<IIQQ", 24, flags, address, size)


def test_memory_is_mapped_and_unmapped(client: Client, server: Server) -> None:
    assert server.session is not None
    assert client.good(MAP, mapping(0, 0xA0000)) == b""
    assert client.good(MAP, mapping(0x100000, 0x3FF00000)) == b""
    assert server.session.maps == {0: 0xA0000, 0x100000: 0x3FF00000}
    assert client.good(UNMAP, unmapping(0, 0xA0000)) == unmapping(0, 0xA0000)
    assert client.good(MAP, mapping(0, 0xC0000)) == b""
    assert client.good(UNMAP, unmapping(0, 0, 2)) == unmapping(0, 0, 2)  # all of it
    assert server.session.maps == {}


@pytest.mark.parametrize(
    ("address", "size", "code"),
    [
        (0x1000, 0x1000, errno.EEXIST),
        (0x1FFF, 1, errno.EEXIST),
        (0, 0x1001, errno.EEXIST),
        (0, 1 << 63, errno.EEXIST),
        (0x3000, 0, errno.EINVAL),
        ((1 << 64) - 0x1000, 0x1001, errno.EINVAL),
    ],
)
def test_what_is_not_mapped(client: Client, server: Server, address: int, size: int, code: int) -> None:
    client.good(MAP, mapping(0x1000, 0x1000))
    assert client.refused(MAP, mapping(address, size)) == code
    assert server.session is not None
    assert server.session.maps == {0x1000: 0x1000}


@pytest.mark.parametrize(
    ("address", "size", "flags"),
    [(0, 0x1000, 0), (0x1000, 0x800, 0), (0x1800, 0x800, 0), (0x1000, 0x1000, 1), (0x1000, 0x1000, 2)],
)
def test_what_is_not_unmapped(client: Client, server: Server, address: int, size: int, flags: int) -> None:
    client.good(MAP, mapping(0x1000, 0x1000))
    assert client.refused(UNMAP, unmapping(address, size, flags)) == errno.EINVAL
    assert server.session is not None
    assert server.session.maps == {0x1000: 0x1000}


def test_the_number_of_maps_has_an_end(client: Client) -> None:
    for at in range(1024):
        client.good(MAP, mapping(at << 12, 1 << 12))
    assert client.refused(MAP, mapping(1 << 40, 1 << 12)) == errno.ENOSPC


@pytest.mark.parametrize("count", [1, 8])
def test_no_descriptor_is_taken(client: Client, count: int) -> None:
    """Each is closed unseen: a reader of the pipe learns that nobody else could write to it."""
    ours, theirs = os.pipe()
    client.good(MAP, mapping(0, 1 << 20), fds=(theirs,) * count)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        os.set_blocking(ours, False)
        assert pipe.read() == b""  # its end; None if there were a writer
    assert client.registers(0, 2) == b"\xde\x10"  # and the frames are still whole


INVALID = {
    "info, no room for the reply": (INFO, struct.pack("<IIII", 15, 0, 0, 0)),
    "info, too short": (INFO, struct.pack("<III", 16, 0, 0)),
    "info, too long": (INFO, struct.pack("<IIIII", 16, 0, 0, 0, 0)),
    "region, no room for the reply": (REGION_INFO, struct.pack("<IIIIQQ", 31, 0, 0, 0, 0, 0)),
    "region, index": (REGION_INFO, struct.pack("<IIIIQQ", 32, 0, 9, 0, 0, 0)),
    "region, empty": (REGION_INFO, b""),
    "interrupt, index": (IRQ_INFO, struct.pack("<IIII", 16, 0, 5, 0)),
    "interrupt, no room for the reply": (IRQ_INFO, struct.pack("<IIII", 12, 0, 0, 0)),
    "interrupts set, index": (SET_IRQS, struct.pack("<IIIII", 20, 33, 5, 0, 0)),
    "interrupts set, one": (SET_IRQS, struct.pack("<IIIII", 20, 33, 0, 0, 1)),
    "interrupts set, start": (SET_IRQS, struct.pack("<IIIII", 20, 33, 0, 1, 0)),
    "interrupts set, by descriptor": (SET_IRQS, struct.pack("<IIIII", 20, 36, 0, 0, 0)),
    "interrupts set, with data": (SET_IRQS, struct.pack("<IIIIIB", 21, 33, 0, 0, 0, 1)),
    "map, too short": (MAP, struct.pack("<IIQQ", 32, 3, 0, 0)),
    "unmap, too long": (UNMAP, struct.pack("<IIQQQ", 24, 0, 0, 0, 0)),
    "read, nothing": (READ, struct.pack("<QII", 0, CONFIG, 0)),
    "read, across the end": (READ, struct.pack("<QII", 4095, CONFIG, 2)),
    "read, behind the end": (READ, struct.pack("<QII", (1 << 64) - 1, CONFIG, 1)),
    "read, more than agreed": (READ, struct.pack("<QII", 0, BAR0, 4097)),
    "read, much more": (READ, struct.pack("<QII", 0, BAR0, 0xFFFFFFFF)),
    "read, no such region": (READ, struct.pack("<QII", 0, 9, 1)),
    "read, region of no bytes": (READ, struct.pack("<QII", 0, ROM, 1)),
    "read, with data": (READ, struct.pack("<QIIB", 0, CONFIG, 1, 0)),
    "write, fewer bytes than it says": (WRITE, struct.pack("<QIIB", 0, CONFIG, 2, 0)),
    "write, more bytes than it says": (WRITE, struct.pack("<QIIBB", 0, CONFIG, 1, 0, 0)),
    "write, across the end": (WRITE, struct.pack("<QIIBB", 4095, CONFIG, 2, 0, 0)),
    "write, too short": (WRITE, struct.pack("<QI", 0, CONFIG)),
}


@pytest.mark.parametrize("name", INVALID)
def test_a_malformed_command_is_refused_and_changes_nothing(client: Client, name: str) -> None:
    before = client.registers(0, 4096)
    assert client.refused(*INVALID[name]) == errno.EINVAL
    assert client.registers(0, 4096) == before


@pytest.mark.parametrize("command", [0, IO_FDS, DMA_READ, 14, WRITE_MULTI, FEATURE, 0xFFFF])
def test_a_command_that_is_not_known(client: Client, command: int) -> None:
    assert client.refused(command) == errno.EOPNOTSUPP


def header(size: int, flags: int = 0) -> bytes:
    return struct.pack("<HHIII", 1, READ, size, flags, 0)


@pytest.mark.parametrize(
    "data",
    [header(15), header(0), header(16 + 16 + 4096 + 1), header(0xFFFFFFFF), header(16, 1), header(16, 15)],
    ids=["shorter than its header", "empty", "too long", "4 GiB", "a reply", "of no type"],
)
def test_a_frame_that_is_none_ends_the_connection(server: Server, client: Client, data: bytes) -> None:
    client.socket.sendall(data)
    assert client.disconnected()
    with connected(server) as other:
        assert other.registers(0, 2) == b"\xde\x10"


def test_the_longest_frame(client: Client) -> None:
    client.write(0, bytes(4096))
    assert client.registers(0, 2) == b"\xde\x10"


@pytest.mark.parametrize("cut", [1, 15, 16, 20])
def test_a_client_that_goes_away_within_a_frame(server: Server, cut: int) -> None:
    with connected(server) as client:
        client.socket.sendall(client.frame(READ, struct.pack("<QII", 0, CONFIG, 4))[:cut])
    with connected(server) as other:
        assert other.registers(0, 2) == b"\xde\x10"


def test_a_frame_in_pieces(client: Client) -> None:
    for byte in client.frame(READ, struct.pack("<QII", 0, CONFIG, 2)):
        client.socket.sendall(bytes([byte]))
    assert client.reply(READ).payload[16:] == b"\xde\x10"


def test_who_comes_back_finds_the_device_as_it_was_and_nothing_mapped(server: Server) -> None:
    with connected(server) as client:
        client.write(0x3C, b"\x0b")
        client.good(MAP, mapping(0, 1 << 20))
    with connected(server) as client:
        assert client.registers(0x3C, 1) == b"\x0b"
        assert client.good(MAP, mapping(0, 1 << 20)) == b""


def test_its_end_waits_for_nobody() -> None:
    """Neither for a client that says nothing, nor for one that asks and never reads."""
    functions = Functions((H100, H100))
    folder = Path(functions.served[0].path).parent
    with closing(Client(functions.served[0])) as idle, closing(Client(functions.served[1])) as deaf:
        idle.agree()
        deaf.agree()
        deaf.socket.setblocking(False)
        asked = deaf.frame(READ, struct.pack("<QII", 0, CONFIG, 4096))
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while deaf.socket.send(asked):
                pass
        ending = threading.Thread(target=functions.__exit__, args=(None, None, None), daemon=True)
        ending.start()
        ending.join(20)
        assert not ending.is_alive()
        assert idle.disconnected()
    assert not folder.exists()


@given(st.integers(0, 20), st.binary(max_size=80))
def test_no_payload_makes_it_fail(command: int, payload: bytes) -> None:
    """Each has an answer that a client takes, or is refused; nothing else is raised."""
    session = Session(Registers(H100))
    session.answer(VERSION, version())
    with contextlib.suppress(Refused):
        assert len(session.answer(command, payload)) <= vfio_user.FRAME_LIMIT - 16
