"""Functions like an H100's, as they are found through vfio-user, and when QEMU is given them."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import stub_gpu_files
import vfio_user_h100
from gpu_faults import FAULTS, good
from vfio_client import BAR0, CONFIG, RESET, Client, connected
from vfio_user import Server
from vfio_user_h100 import FOREIGN, H100, Functions, Identity, Registers


@pytest.fixture
def server() -> Iterator[Server]:
    with Functions((H100,)) as functions:
        yield functions.served[0]


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """One that has agreed on a version."""
    with connected(server) as found:
        yield found


def test_config_space(client: Client) -> None:
    config = client.registers(0, 4096)
    vendor, device, command, status = struct.unpack_from("<HHHH", config)
    assert (vendor, device, command, status) == (0x10DE, 0x2331, 0, 0x10)
    assert config[8:12] == bytes([0xA1, 0x00, 0x02, 0x03])  # revision; 3D controller
    assert config[14] == 0  # header type
    assert struct.unpack_from("<HH", config, 0x2C) == (0x10DE, 0x1626)
    assert config[0x3D] == 0  # interrupt pin
    assert capabilities(config) == {0x01: 0x60, 0x10: 0x78}
    assert struct.unpack_from("<H", config, 0x62)[0] & 7 == 3  # power management, version 1.2
    assert config[0x7A] == 2  # PCI Express 2 or newer, endpoint
    assert config[256:] == bytes(4096 - 256)  # no extended capability


def capabilities(config: bytes) -> dict[int, int]:
    found: dict[int, int] = {}
    at = config[0x34]
    while at:
        assert config[at] not in found
        found[config[at]] = at
        at = config[at + 1]
    return found


def test_a_part_of_config_space(client: Client) -> None:
    whole = client.registers(0, 4096)
    for offset, count in ((0, 2), (2, 2), (8, 4), (0x34, 1), (4095, 1)):
        assert client.registers(offset, count) == whole[offset : offset + count]


def test_what_may_be_written_of_config_space(client: Client) -> None:
    before = client.registers(0, 4096)
    client.write(0, b"\xff" * 4096)
    after = bytearray(client.registers(0, 4096))
    kept = {at for at in range(4096) if after[at] != before[at]}
    command, lines, bar, power, control = {4, 5}, {0x0C, 0x3C}, set(range(0x12, 0x18)), {0x64}, {0x80, 0x81}
    assert kept == command | lines | bar | power | control
    assert struct.unpack_from("<Q", after, 0x10) == ((1 << 64) - (1 << 16) | 0xC,)  # 64 KiB, and its type
    assert after[0x64] == 3
    assert struct.unpack_from("<H", after, 0x80) == (0x7FFF,)


def test_an_address_is_kept(client: Client) -> None:
    client.write(0x10, struct.pack("<I", 0xFE812345))
    client.write(0x14, struct.pack("<I", 0x38))
    assert client.registers(0x10, 8) == struct.pack("<II", 0xFE81000C, 0x38)


def test_a_reset(client: Client) -> None:
    before = client.registers(0, 4096)
    client.write(4, b"\x07\x00")
    client.write(0x3C, b"\x0b")
    assert client.registers(0, 4096) != before
    assert client.good(RESET) == b""
    assert client.registers(0, 4096) == before


def test_a_bar_is_inert(client: Client) -> None:
    client.write(0x40, b"\xff" * 8, BAR0)
    assert client.registers(0x40, 8, BAR0) == bytes(8)
    assert client.registers((1 << 16) - 4096, 4096, BAR0) == bytes(4096)


def test_the_arguments() -> None:
    with Functions((H100, H100)) as functions:
        first, second = (server.path for server in functions.served)
        listed = functions.arguments
    assert listed[::2] == ["-device"] * 4
    ports, devices = listed[1::4], [json.loads(text) for text in listed[3::4]]
    assert ports == [
        "pcie-root-port,id=gpu0,bus=pcie.0,addr=0x1c.0,multifunction=on,chassis=1",
        "pcie-root-port,id=gpu1,bus=pcie.0,addr=0x1c.1,multifunction=on,chassis=2",
    ]
    assert devices == [
        {"driver": "vfio-user-pci", "bus": bus, "rombar": 0, "socket": {"type": "unix", "path": path}}
        for bus, path in (("gpu0", first), ("gpu1", second))
    ]


def test_their_slot_is_the_launchers() -> None:
    golden = Path(__file__).parents[1] / "host/golden/eight-gpus.txt"
    launcher = [line.strip() for line in golden.read_text("utf-8").splitlines() if "pcie-root-port" in line]
    with Functions((H100,) * 8) as functions:
        assert [text for text in functions.arguments if "pcie-root-port" in text] == launcher


def test_none_is_no_argument() -> None:
    with Functions(()) as functions:
        assert functions.arguments == []


def test_there_are_no_more_than_eight() -> None:
    with pytest.raises(ValueError, match="9 functions, expected at most 8"):
        Functions((H100,) * 9)


def test_each_is_one_of_its_own() -> None:
    with Functions((H100, FOREIGN)) as functions:
        first, second = functions.served
        with connected(first) as one, connected(second) as other:
            assert other.registers(0, 4) == b"\x02\x10\x36\x16"
            assert other.registers(9, 3) == b"\0\0\x03"
            one.write(0x3C, b"\x0b")
            assert other.registers(0x3C, 1) == b"\0"


@pytest.fixture
def qemu(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A QEMU that says this of itself."""
    monkeypatch.setattr(vfio_user_h100, "find_qemu", lambda: "qemu")
    monkeypatch.setattr(vfio_user_h100, "version_text", {"qemu": request.param}.get)


OLD = ["QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)", "QEMU emulator version 10.0.13", None, "QEMU"]
NEW = [
    "QEMU emulator version 10.1.0",
    "QEMU emulator version 10.2.1",
    "QEMU emulator version 11.1.3 (Debian)",
]


@pytest.mark.parametrize("qemu", OLD, indirect=True)
@pytest.mark.usefixtures("qemu")
def test_an_older_qemu_shows_nothing() -> None:
    assert not vfio_user_h100.can_be_shown()
    with stub_gpu_files.shown(good(3)) as functions:
        assert functions.arguments == []


@pytest.mark.parametrize("qemu", NEW, indirect=True)
@pytest.mark.usefixtures("qemu")
def test_a_newer_qemu_shows_functions() -> None:
    assert vfio_user_h100.can_be_shown()
    with stub_gpu_files.shown(good(3)) as functions:
        assert len(functions.served) == 3


ON_BUS = {
    "none": [],
    "fewer": [H100],
    "more": [H100] * 3,
    "fewer-by-nvml": [H100] * 2,
    "more-by-nvml": [H100] * 2,
    "foreign": [H100, H100, FOREIGN],
}


@pytest.mark.parametrize("name", ON_BUS)
@pytest.mark.parametrize("qemu", NEW[:1], indirect=True)
@pytest.mark.usefixtures("qemu")
def test_the_faults_of_discovery(name: str) -> None:
    """By both ways the guest finds the same."""
    expected = ON_BUS[name]
    with stub_gpu_files.shown(FAULTS[name]) as functions:
        assert [identity(server) for server in functions.served] == [one[:3] for one in expected]
    assert made_up(name) == [one[:3] for one in expected]


def identity(server: Server) -> tuple[int, int, int]:
    with connected(server) as client:
        vendor, device, _, _, kind = struct.unpack("<HHHHI", client.registers(0, 12))
        return vendor, device, kind >> 8


def made_up(name: str) -> list[tuple[int, int, int]]:
    """As 40-gpu reads it, from the files of the test archive."""
    entries = stub_gpu_files.entries(FAULTS[name], {}, library=b"", persistenced=b"")
    pci = f"{stub_gpu_files.FOLDER}/pci/"
    files = {entry.path.removeprefix(pci): entry.data for entry in entries if entry.path.startswith(pci)}
    found = []
    for address in sorted({path.partition("/")[0] for path in files}):
        vendor, device, kind = (int(files[f"{address}/{x}"], 16) for x in ("vendor", "device", "class"))
        found.append((vendor, device, kind))
    return found


def test_nothing_is_made_up_where_functions_are_shown() -> None:
    entries = stub_gpu_files.entries(good(), {}, on_bus=False, library=b"", persistenced=b"")
    assert not [entry.path for entry in entries if f"{stub_gpu_files.FOLDER}/pci" in entry.path]


def test_an_identity_of_another_kind() -> None:
    other = Identity(0x10DE, 0x22A3, 0x068000, 0x1796, 0xA0)  # an NVSwitch, which is no GPU
    assert Registers(other).read(CONFIG, 8, 4) == bytes([0xA0, 0x00, 0x80, 0x06])
    assert Registers(other).read(CONFIG, 0x2C, 4) == b"\xde\x10\x96\x17"
