"""The stub GPUs: answer what a guest asks of its NVML, with evidence by a chain that is not NVIDIA's.

    with Gpus(FAULTS["signature-second"]) as gpus:
        with Machine([*listed, *gpus.arguments], log=log): ...
        assert not gpus.ready

The guest's half is qemu/stubs/nvml_stub.c, which has the frames. In a test without a guest the library finds
the way by itself: `TINBOOT_STUB_GPU` in the environment is `gpus.path`.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import tempfile
import threading
from types import TracebackType
from typing import Self

import port
import stub_gpu_report
import stub_nvidia
from gpu_faults import ARCHITECTURES, Faults, Gpu, good
from stub_nvidia import CHIPS, Chain

from tinboot.host.launch import option

NAME = "org.tinboot.gpu"
#: As many processes of a guest may use NVML at once: one each for 8 GPUs, the gate, persistenced's stand-in.
PORTS = 10

HEAD = struct.Struct("<III")  # length of what follows the first number, tag, device or status

# nvmlReturn_t
_SUCCESS, _INVALID_ARGUMENT, _NOT_FOUND, _FUNCTION_NOT_FOUND, _UNKNOWN = 0, 2, 6, 13, 999

_SETTINGS_V1 = 0x1000014
_CHAIN, _ATTESTATION_CHAIN, _REPORT, _CEC = (
    0x1000,
    0x1400,
    0x2000,
    0x1000,
)  # nvml.h: NVML_GPU_CERT_CHAIN_SIZE, …

_SLOT = 29  # of pcie.0: behind those of the launcher's disks and GPUs, before the stub PSP's
_FRAME_LIMIT = 4096


class NvmlError(Exception):
    """`code`: the nvmlReturn_t."""

    def __init__(self, code: int) -> None:
        super().__init__(f"nvmlReturn_t {code}")
        self.code = code


class Gpus:
    """Answers one guest, or the processes of a test, which begin and end within this context manager."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = good() if faults is None else faults
        self.ready = self.faults.ready
        self.was_ready = bool(self.ready)  # at any time
        self.calls: list[str] = []
        self.nonces: list[bytes] = []  # of each request for a report
        self._mutex = threading.Lock()
        self._ended = threading.Event()
        self._folder = tempfile.mkdtemp(prefix="tinboot-gpu-")
        self.path = f"{self._folder}/port"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(2 * PORTS)
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        self._listener.close()
        shutil.rmtree(self._folder)

    @property
    def arguments(self) -> list[str]:
        """QEMU's for the ports."""
        serial = {"id": "gpus", "bus": "pcie.0", "addr": f"{_SLOT:#x}"}
        serial |= {"disable-legacy": "on", "iommu_platform": "true"}
        listed = ["-device", option("virtio-serial-pci", serial)]
        for number in range(PORTS):
            port = {"chardev": f"gpu{number}", "bus": "gpus.0", "name": f"{NAME}.{number}"}
            listed += ["-chardev", option("socket", {"id": f"gpu{number}", "path": self.path})]
            listed += ["-device", option("virtserialport", port)]
        return listed

    def certificates(self, at: int) -> Chain:
        """What GPU `at` shows: its own chain unless a fault says otherwise."""
        gpu = self.faults.gpus[at]
        own = self._chain(at)
        return own if gpu.certificates is None else gpu.certificates(own)

    def report(self, at: int, nonce: bytes) -> bytes:
        """What GPU `at` answers to `nonce`."""
        gpu = self.faults.gpus[at]
        contents = gpu.contents._replace(nonce=nonce if gpu.nonce is None else gpu.nonce)
        key = stub_nvidia.key("nobody's") if gpu.forged else self._chain(at).key
        return gpu.alter(stub_gpu_report.sign(contents.pack(), key))

    def answer(self, call: str, device: int, given: bytes) -> bytes | None:
        """Of one call; None for one that never returns. `device` from 1. Raises `NvmlError`."""
        with self._mutex:
            self.calls.append(call)
            names = {call, f"{call}@{device - 1}"}
            if names & self.faults.hangs:
                return None
            for name, code in self.faults.errors.items():
                if name in names:
                    raise NvmlError(code)
            if call.startswith("nvmlDevice") and device:
                return self._of_device(call, device - 1, given)
            return self._of_system(call, given)

    def _chain(self, at: int) -> Chain:
        gpu = self.faults.gpus[at]
        number = gpu.evidence_of if gpu.evidence_of is not None else self._number(at, gpu)
        return stub_nvidia.chain(gpu.contents.arch, number)

    def _number(self, at: int, gpu: Gpu) -> int:
        return at if gpu.number is None else gpu.number

    def _of_system(self, call: str, given: bytes) -> bytes:
        faults = self.faults
        match call:
            case "nvmlInit" | "nvmlInit_v2" | "nvmlInitWithFlags" | "nvmlShutdown":
                return b""
            case "nvmlDeviceGetCount" | "nvmlDeviceGetCount_v2":
                return struct.pack("<I", self._count())
            case "nvmlDeviceGetHandleByIndex" | "nvmlDeviceGetHandleByIndex_v2":
                (index,) = struct.unpack("<I", given)
                if index >= self._count():
                    raise NvmlError(_INVALID_ARGUMENT)
                return struct.pack("<I", index + 1)
            case "nvmlSystemGetDriverVersion":
                reported = faults.gpus[0].contents.versions[0] if faults.gpus else "550.90.07"
                return (faults.driver or reported).encode()
            case "nvmlSystemGetConfComputeState":
                return struct.pack("<3I", faults.environment, faults.feature, faults.devtools)
            case "nvmlSystemGetConfComputeSettings":
                state = (faults.environment, faults.feature, faults.devtools, faults.multi_gpu)
                return struct.pack("<5I", _SETTINGS_V1, *state)
            case "nvmlSystemSetConfComputeGpusReadyState":
                (wanted,) = struct.unpack("<I", given)
                if wanted > 1:
                    raise NvmlError(_INVALID_ARGUMENT)
                if faults.sticks:
                    self.ready = wanted
                    self.was_ready = self.was_ready or bool(wanted)
                return b""
            case "nvmlSystemGetConfComputeGpusReadyState":
                return struct.pack("<I", self.ready)
        raise NvmlError(_FUNCTION_NOT_FOUND)

    def _count(self) -> int:
        return len(self.faults.gpus) if self.faults.count is None else self.faults.count

    def _of_device(self, call: str, at: int, given: bytes) -> bytes:
        if at >= len(self.faults.gpus):
            raise NvmlError(_NOT_FOUND)
        gpu = self.faults.gpus[at]
        arch, number = gpu.contents.arch, self._number(at, gpu)
        match call:
            case "nvmlDeviceGetName":
                return f"Stub {CHIPS[arch]}".encode()
            case "nvmlDeviceGetUUID":
                digits = stub_nvidia.pdi(arch, number).hex().ljust(32, "0")
                return (
                    f"GPU-{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}".encode()
                )
            case "nvmlDeviceGetBoardId":
                return struct.pack("<I", bus_number(at) << 8)
            case "nvmlDeviceGetPciInfo_v3":
                address = bus_address(at)
                ids = (0, bus_number(at), 0, 0x233110DE, 0x162610DE)
                return struct.pack("<16s5I32s", address.encode(), *ids, f"0000{address}".encode())
            case "nvmlDeviceGetArchitecture":
                told = ARCHITECTURES[arch] if gpu.architecture is None else gpu.architecture
                return struct.pack("<I", told)
            case "nvmlDeviceGetPersistenceMode":
                return struct.pack("<I", gpu.persistent)
            case "nvmlDeviceGetVbiosVersion":
                return (gpu.vbios or gpu.contents.versions[1]).encode()
            case "nvmlDeviceGetConfComputeGpuCertificate":
                chain = self.certificates(at).pem()
                sizes = struct.pack("<II", 0, len(chain))
                return sizes + bytes(_CHAIN) + chain.ljust(_ATTESTATION_CHAIN, b"\0")
            case "nvmlDeviceGetConfComputeGpuAttestationReport":
                self.nonces.append(given)
                report = self.report(at, given)
                sizes = struct.pack("<3I", 0, len(report), 0)
                return sizes + given + report.ljust(_REPORT, b"\0") + bytes(_CEC)
        raise NvmlError(_FUNCTION_NOT_FOUND)

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(0.2)
            while (head := port.read(connection, HEAD.size, self._ended)) is not None:
                length, tag, device = HEAD.unpack(head)
                rest = length - HEAD.size + 4
                if not 0 < rest <= _FRAME_LIMIT or (body := port.read(connection, rest, self._ended)) is None:
                    return
                size = body[0]
                answered = self._answered(body[1 : 1 + size].decode(), device, body[1 + size :])
                if answered is None:
                    continue  # and whoever asked is still waiting
                status, data = answered
                try:
                    connection.sendall(HEAD.pack(8 + len(data), tag, status) + data)
                except OSError:
                    return

    def _answered(self, call: str, device: int, given: bytes) -> tuple[int, bytes] | None:
        try:
            data = self.answer(call, device, given)
        except NvmlError as error:
            return error.code, b""
        except struct.error:
            return _INVALID_ARGUMENT, b""
        return None if data is None else (_SUCCESS, data)


def bus_number(at: int) -> int:
    """The PCI bus of GPU `at`; it alone is on it."""
    return 0x81 + at


def bus_address(at: int) -> str:
    return f"0000:{bus_number(at):02x}:00.0"
