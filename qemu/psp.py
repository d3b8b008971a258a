"""The stub PSP: answers a guest's requests for reports, signed by a chain that is not AMD's.

    with Psp(Behaviour(contents=Contents(policy=DEBUG))) as psp:
        with Machine([*listed, *psp.arguments, "-S"], log=log) as machine:
            psp.start(machine, firmware)

The guest's half (qemu/stubs/) forwards what production code asks of the kernel through a virtio-serial port,
one frame each way, numbers little-endian:

    request   u32 length | u32 room for certificates | 64 bytes of user data | u32 VMPL
    answer    u32 length | u32 errno | u64 exitinfo2 | u32 length of certificates | certificates | response

`exitinfo2` and the response as tinboot/formats/sevguest.py has them. A fault is a field of `Behaviour`.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import socket
import struct
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha384
from pathlib import Path
from types import TracebackType
from typing import Self

import port
import stub_chain
from cryptography.hazmat.primitives.asymmetric import ec
from machine import Machine
from stub_report import TCBS, Contents, chip_id, sign

from tinboot.builder import places
from tinboot.formats import certtable, launchdigest, launchspec, ovmf, snpreport, vcpumodels
from tinboot.formats.launchdigest import Vcpu
from tinboot.formats.sevguest import PAGE, RESPONSE, RESPONSE_BYTES, VMM_BUSY, VMM_INVALID_LENGTH
from tinboot.formats.snptcb import Line
from tinboot.host.launch import option

PORT = "org.tinboot.psp"

REQUEST = struct.Struct("<I64sI")
ANSWER = struct.Struct("<IQI")
LENGTH = struct.Struct("<I")

#: The launch digest of a guest that no measured firmware started: nothing that QEMU loads is in it.
UNMEASURED = sha384(b"tinboot stub: started without firmware").digest()

#: QEMU's slot of the port, behind those of the launcher's disks and GPUs.
_SLOT = 30

ALWAYS = 1 << 30

_CONTENTS = Contents()

_FRAME_LIMIT = 1 << 16


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a PSP and its host answer; the defaults are those of a good machine.

    `contents`: the report but for REPORT_DATA and MEASUREMENT, which are the request's and the launch's where
    the two fields here are None. `alter` gets the signed report. `table`: in place of the chain's. `needs`:
    bytes that the certificates take, says a host to which no room is enough. `busy`: answers that put the
    guest off first.
    """

    contents: Contents = _CONTENTS
    report_data: bytes | None = None
    measurement: bytes | None = None
    alter: Callable[[bytes], bytes] = bytes
    table: bytes | None = None
    needs: int | None = None
    firmware_error: int = 0
    vmm_error: int = 0
    status: int = 0
    size: int = snpreport.SIZE
    busy: int = 0
    hang: bool = False


GOOD = Behaviour()


@dataclass(frozen=True, slots=True)
class Chain:
    """Of one product line, DER; and the chip's key, whose certificate `vcek` is."""

    ark: bytes
    ask: bytes
    vcek: bytes
    key: ec.EllipticCurvePrivateKey

    @property
    def table(self) -> bytes:
        """As the host lays it ready: whole pages."""
        packed = certtable.pack(certtable.Certificates(vcek=self.vcek, ask=self.ask, ark=self.ark))
        return packed + bytes(-len(packed) % PAGE)


def chain(line: Line) -> Chain:
    """Made once: its keys are in the build folder. Certificates are of now, the VCEK of the line's `TCBS`."""
    folder = places.build_folder() / "stub-psp" / line.name
    amd = stub_chain.authority(folder, line, datetime.now(UTC))
    key = stub_chain.chip_key(folder)
    ask, ark = amd.chain()
    return Chain(ark, ask, amd.issue(amd.vcek(key, TCBS[line], chip_id(line))), key)


class Psp:
    """Answers one guest. A context manager; the machine it is for begins and ends within it."""

    def __init__(self, behaviour: Behaviour = GOOD) -> None:
        self.behaviour = behaviour
        self.chain = chain(behaviour.contents.line)
        self.measurement = UNMEASURED
        self.asked: list[bytes] = []  # user data of each request
        self._ended = threading.Event()
        self._folder = tempfile.mkdtemp(prefix="tinboot-psp-")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{self._folder}/port")
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        shutil.rmtree(self._folder)

    @property
    def arguments(self) -> list[str]:
        """QEMU's for the port. With firmware `-S` as well, until `start`."""
        serial = {"bus": "pcie.0", "addr": f"{_SLOT:#x}", "disable-legacy": "on", "iommu_platform": "true"}
        return [
            *("-chardev", option("socket", {"id": "psp", "path": f"{self._folder}/port"})),
            *("-device", option("virtio-serial-pci", serial)),
            *("-device", option("virtserialport", {"chardev": "psp", "name": PORT})),
        ]

    def start(self, machine: Machine, firmware: Path) -> None:
        """Measures what `machine`, which `-S` holds, has in memory to start with `firmware`; lets it run.

        Without firmware there is nothing to measure: the launch digest is `UNMEASURED`.
        """
        self.measurement = measure(machine, firmware.stat().st_size)
        machine.execute("cont")

    def answer(self, request: bytes) -> bytes | None:
        """Of one request, without the length in front; None for an answer that never comes."""
        room, user_data, _ = REQUEST.unpack(request)
        self.asked.append(user_data)
        behaviour = self.behaviour
        if behaviour.hang:
            return None
        if len(self.asked) <= behaviour.busy:
            return _failure(0, VMM_BUSY)
        if behaviour.firmware_error or behaviour.vmm_error:
            return _failure(behaviour.firmware_error, behaviour.vmm_error)
        table = self.chain.table if behaviour.table is None else behaviour.table
        if behaviour.needs is not None or room < len(table):
            return _failure(0, VMM_INVALID_LENGTH, behaviour.needs or len(table))
        response = RESPONSE.pack(behaviour.status, behaviour.size) + self._report(user_data)
        return ANSWER.pack(0, 0, len(table)) + table + response.ljust(RESPONSE_BYTES, b"\0")

    def _report(self, user_data: bytes) -> bytes:
        behaviour = self.behaviour
        contents = behaviour.contents._replace(
            report_data=user_data if behaviour.report_data is None else behaviour.report_data,
            measurement=self.measurement if behaviour.measurement is None else behaviour.measurement,
        )
        return behaviour.alter(sign(contents.pack(), self.chain.key))

    def _serve(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # no machine came
            return
        with connection:
            connection.settimeout(0.2)
            while (head := port.read(connection, LENGTH.size, self._ended)) is not None:
                (length,) = LENGTH.unpack(head)
                if length > _FRAME_LIMIT or (request := port.read(connection, length, self._ended)) is None:
                    return
                answered = self.answer(request)
                if answered is None:
                    self._ended.wait()
                    return
                connection.sendall(LENGTH.pack(len(answered)) + answered)


def measure(machine: Machine, size: int) -> bytes:
    """The launch digest of what `machine` holds before its first instruction, as a PSP computes it.

    `size` of the firmware in bytes. The CPU is the launch specification's default, since the emulated one is
    no CPU with SEV.
    """
    image = machine.physical_memory(ovmf.TOP - size, size)
    firmware = ovmf.parse(image)
    hashes = None
    for section in firmware.sections:
        if section.kind == ovmf.SNP_KERNEL_HASHES:
            page = machine.physical_memory(section.gpa, section.size)
            hashes = page if any(page) else None
    digest = launchdigest.sections(launchdigest.firmware_digest(image), firmware.sections, hashes)
    vcpu = Vcpu(vcpumodels.SIGNATURES[launchspec.DEFAULT_MODEL], launchspec.SNP_ACTIVE)
    cpus = machine.execute("query-cpus-fast")
    assert isinstance(cpus, list)
    *_, last = launchdigest.vcpus(digest, vcpu, firmware.reset_eip, len(cpus))
    return last


def _failure(firmware: int, vmm: int, length: int = 0) -> bytes:
    return ANSWER.pack(errno.EIO, vmm << 32 | firmware, length)
