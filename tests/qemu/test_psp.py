"""The stub PSP's host half: its frames, each fault, and what it measures."""

from __future__ import annotations

import contextlib
import errno
import re
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from machine import Machine
from psp import GOOD, UNMEASURED, Behaviour, Psp, chain, measure
from stub_chain import MARK, spki
from stub_report import Contents, signature
from synthetic_ovmf import image

from tinboot.builder import measure as offline
from tinboot.formats import certtable, kernelhashes, launchspec, snpreport, vcpumodels
from tinboot.formats.launchdigest import Vcpu
from tinboot.formats.launchmanifest import KernelHashes
from tinboot.formats.snptcb import GENOA, LINES, Line

DATA = bytes(range(64))


class Guest:
    """The other end of the port, as QEMU and the guest's stub are."""

    def __init__(self, psp: Psp) -> None:
        (path,) = re.findall(r"path=([^, ]+)", " ".join(psp.arguments))
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(path)

    def ask(self, room: int = 16384, data: bytes = DATA) -> tuple[int, int, int, bytes]:
        """errno, exitinfo2, length of certificates, and what follows."""
        request = struct.pack("<I64sI", room, data, 0)
        self.socket.sendall(struct.pack("<I", len(request)) + request)
        (length,) = struct.unpack("<I", self.read(4))
        body = self.read(length)
        return *struct.unpack_from("<IQI", body), body[16:]

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            assert part
            data += part
        return data


@pytest.fixture
def connect() -> Iterator[Callable[[Psp], Guest]]:
    """Each end is closed after the test."""
    with contextlib.ExitStack() as stack:

        def make(psp: Psp) -> Guest:
            guest = Guest(psp)
            stack.callback(guest.socket.close)
            return guest

        yield make


Connect = Callable[[Psp], Guest]


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
def test_a_good_answer(connect: Connect, line: Line) -> None:
    with Psp(Behaviour(Contents(line))) as psp:
        number, exit_info, length, rest = connect(psp).ask()
    assert (number, exit_info, length % 4096) == (0, 0, 0)
    found = certtable.parse(rest[:length])
    status, size = struct.unpack_from("<II", rest, length)
    assert (status, size, len(rest) - length) == (0, 1184, 4000)
    report = snpreport.parse(rest[length + 32 : length + 32 + 1184])
    assert (report.report_data, report.measurement) == (DATA, UNMEASURED)
    assert found.vcek is not None
    assert MARK.encode() in found.vcek
    key = psp.chain.key.public_key()
    assert spki(key) in found.vcek
    key.verify(encode_dss_signature(*signature(report.raw)), report.signed, ec.ECDSA(hashes.SHA384()))


def failed(vmm: int, firmware: int = 0, length: int = 0) -> tuple[int, int, int, bytes]:
    return errno.EIO, vmm << 32 | firmware, length, b""


def test_certificates_that_do_not_fit(connect: Connect) -> None:
    with Psp() as psp:
        guest = connect(psp)
        assert guest.ask(room=4096) == failed(1, 0, len(psp.chain.table))
        assert guest.ask(room=len(psp.chain.table))[0] == 0


@pytest.mark.parametrize(
    ("behaviour", "answers"),
    [
        (Behaviour(busy=2), [failed(2), failed(2), None]),
        (Behaviour(firmware_error=0x16), [failed(0, 0x16)] * 2),
        (Behaviour(vmm_error=7), [failed(7)] * 2),
        (Behaviour(needs=20480), [failed(1, 0, 20480)] * 2),
    ],
)
def test_errors(
    connect: Connect, behaviour: Behaviour, answers: list[tuple[int, int, int, bytes] | None]
) -> None:
    with Psp(behaviour) as psp:
        guest = connect(psp)
        for expected in answers:
            answer = guest.ask()
            assert answer == expected if expected is not None else answer[0] == 0
        assert psp.asked == [DATA] * len(answers)


@pytest.mark.parametrize(
    ("behaviour", "holds"),
    [
        (Behaviour(report_data=b"\x01" * 64), lambda report: report[0x50:0x90] == b"\x01" * 64),
        (Behaviour(measurement=b"\x02" * 48), lambda report: report[0x90:0xC0] == b"\x02" * 48),
        (Behaviour(alter=lambda report: report[:-1] + b"\x03"), lambda report: report[-1] == 3),
        (Behaviour(Contents(policy=0xB0000)), lambda report: report[10] == 0x0B),
        (Behaviour(Contents(vmpl=2)), lambda report: report[0x30] == 2),
    ],
)
def test_faults_of_the_report(connect: Connect, behaviour: Behaviour, holds: Callable[[bytes], bool]) -> None:
    with Psp(GOOD) as good, Psp(behaviour) as psp:
        reports = [
            rest[length + 32 :][:1184] for _, _, length, rest in (connect(x).ask() for x in (good, psp))
        ]
    assert [holds(report) for report in reports] == [False, True]


def test_faults_of_the_response(connect: Connect) -> None:
    with Psp(Behaviour(status=5, size=7, table=b"wild")) as psp:
        _, _, length, rest = connect(psp).ask()
    assert rest[:length] == b"wild"
    assert struct.unpack_from("<II", rest, length) == (5, 7)


def test_a_hang_ends_with_the_psp(connect: Connect) -> None:
    with Psp(Behaviour(hang=True)) as psp:
        guest = connect(psp)
        guest.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            guest.ask()
    assert guest.socket.recv(1) == b""


def test_nobody_comes() -> None:
    with Psp() as psp:
        (path,) = re.findall(r"path=([^, ]+)", " ".join(psp.arguments))
        assert Path(path).exists()
    assert not Path(path).parent.exists()


def test_the_chain_is_kept() -> None:
    """Keys are made once; certificates are of now."""
    first, second = chain(GENOA), chain(GENOA)
    assert first.key.private_numbers() == second.key.private_numbers()


@dataclass
class Memory:
    """A machine before its first instruction."""

    parts: dict[int, bytes]
    cpus: int = 1

    def physical_memory(self, address: int, size: int) -> bytes:
        (found,) = (
            (start, data) for start, data in self.parts.items() if start <= address < start + len(data)
        )
        return found[1][address - found[0] : address - found[0] + size]

    def execute(self, command: str) -> list[None]:
        assert command == "query-cpus-fast"
        return [None] * self.cpus


FIRMWARE = image()
HASHES = KernelHashes(b"\x01" * 32, b"\x02" * 32, b"\x03" * 32)
VCPU = Vcpu(vcpumodels.SIGNATURES[launchspec.DEFAULT_MODEL], launchspec.SNP_ACTIVE)
PAGE, TABLE_AT = 0x810000, 0xC00


def loaded(table: bytes, cpus: int) -> Machine:
    page = (bytes(TABLE_AT) + table).ljust(4096, b"\0")
    return cast("Machine", Memory({(4 << 30) - len(FIRMWARE): FIRMWARE, PAGE: page}, cpus))


@pytest.mark.parametrize("cpus", [1, 4])
@pytest.mark.parametrize("hashes_given", [True, False])
def test_measures_what_is_in_memory(tmp_path: Path, cpus: int, hashes_given: bool) -> None:
    """The digest that `tinboot measure` computes from the files."""
    (tmp_path / "fd").write_bytes(FIRMWARE)
    expected = offline.manifest(tmp_path / "fd", HASHES if hashes_given else None, VCPU)
    table = kernelhashes.table(*HASHES) if hashes_given else b""
    assert measure(loaded(table, cpus), len(FIRMWARE)) == expected.launch_digest(cpus)


def test_a_changed_table_is_another_digest() -> None:
    table = kernelhashes.table(*HASHES)
    one, other = (measure(loaded(x, 1), len(FIRMWARE)) for x in (table, table[:-17] + b"\x09" + table[-16:]))
    assert one != other
