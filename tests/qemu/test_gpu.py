"""The stub GPUs through the library that the guest loads: each fault is what its name says, no more."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import compiled
import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from gpu import PORTS, Gpus, bus_address
from gpu_faults import CALLS, FAULTS, GPU_IS_LOST, REPLAYED, WRONG, Faults, failing, good, hanging
from stub_gpu_report import ACTIVE, Contents

NONCE = bytes(range(32))
SETTINGS = 0x1000014


class Seen(NamedTuple):
    """What NVML says of one GPU."""

    architecture: int
    vbios: str
    uuid: str
    chain: tuple[x509.Certificate, ...]
    report: bytes


class Library:
    """NVML by ctypes, with the layouts written out here (nvml.h); as in a process that has just begun."""

    def __init__(self) -> None:
        with tempfile.NamedTemporaryFile(suffix=".so") as copy:  # the loader gives one file's state to all
            copy.write(compiled.nvml().read_bytes())
            copy.flush()
            self.nvml = ctypes.CDLL(copy.name)

    def status(self, name: str, *words: object) -> int:
        return int(getattr(self.nvml, name)(*words))

    def call(self, name: str, *words: object) -> None:
        status = self.status(name, *words)
        assert status == 0, f"{name}: {status}"

    def number(self, name: str, *words: object) -> int:
        value = ctypes.c_uint()
        self.call(name, *words, ctypes.byref(value))
        return value.value

    def text(self, name: str, *words: object) -> str:
        buffer = ctypes.create_string_buffer(96)
        self.call(name, *words, buffer, 96)
        return buffer.value.decode()

    def device(self, at: int) -> ctypes.c_void_p:
        found = ctypes.c_void_p()
        self.call("nvmlDeviceGetHandleByIndex_v2", at, ctypes.byref(found))
        return found

    def state(self) -> tuple[int, ...]:
        buffer = (ctypes.c_uint * 5)(SETTINGS)
        self.call("nvmlSystemGetConfComputeSettings", buffer)
        return tuple(buffer)[1:]

    def certificate(self, device: ctypes.c_void_p) -> bytes:
        buffer = ctypes.create_string_buffer(9224)
        self.call("nvmlDeviceGetConfComputeGpuCertificate", device, buffer)
        size = int.from_bytes(buffer.raw[4:8], "little")
        return buffer.raw[8 + 0x1000 :][:size]

    def report(self, device: ctypes.c_void_p, nonce: bytes = NONCE) -> bytes:
        buffer = ctypes.create_string_buffer(bytes(12) + nonce, 12332)
        self.call("nvmlDeviceGetConfComputeGpuAttestationReport", device, buffer)
        assert buffer.raw[12:44] == nonce
        return buffer.raw[44:][: int.from_bytes(buffer.raw[4:8], "little")]

    def seen(self, at: int) -> Seen:
        device = self.device(at)
        pem = self.certificate(device)
        return Seen(
            self.number("nvmlDeviceGetArchitecture", device),
            self.text("nvmlDeviceGetVbiosVersion", device),
            self.text("nvmlDeviceGetUUID", device),
            tuple(x509.load_pem_x509_certificates(pem)) if pem else (),
            self.report(device),
        )


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Faults], tuple[Gpus, Library]]]:
    """GPUs with those faults, and a library that has initialised."""
    started: list[tuple[Gpus, Library]] = []

    def start(faults: Faults) -> tuple[Gpus, Library]:
        gpus, library = Gpus(faults), Library()
        started.append((gpus, library))
        monkeypatch.setenv("TINBOOT_STUB_GPU", gpus.path)
        library.status("nvmlInitWithFlags", 0)
        return gpus, library

    yield start
    for gpus, library in started:
        gpus.__exit__(None, None, None)
        library.status("nvmlShutdown")


Serve = Callable[[Faults], tuple[Gpus, Library]]


def signed(seen: Seen) -> bool:
    key = seen.chain[0].public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    numbers = (int.from_bytes(seen.report[-96:-48], "big"), int.from_bytes(seen.report[-48:], "big"))
    try:
        key.verify(encode_dss_signature(*numbers), seen.report[:-96], ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return False
    return True


def chained(seen: Seen) -> bool:
    try:
        for subject, issuer in zip(seen.chain, (*seen.chain[1:], seen.chain[-1]), strict=True):
            subject.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError):
        return False
    return True


def digests(report: bytes) -> list[bytes]:
    return [report[45 + 55 * at + 7 : 100 + 55 * at] for at in range(64)]


@pytest.mark.parametrize("count", range(1, 9))
def test_good_gpus(serve: Serve, count: int) -> None:
    gpus, library = serve(good(count))
    assert library.number("nvmlDeviceGetCount_v2") == library.number("nvmlDeviceGetCount") == count
    assert library.text("nvmlSystemGetDriverVersion") == "550.90.07"
    assert library.state() == (2, 1, 0, 0)
    seen = [library.seen(at) for at in range(count)]
    for one in seen:
        assert (one.architecture, one.vbios) == (9, "96.00.9F.00.01")
        assert len(one.chain) == 5
        assert chained(one)
        assert signed(one)
        assert one.report[4:36] == NONCE
        assert digests(one.report) == list(Contents().measurements())
    assert len({one.uuid for one in seen}) == len({one.chain[0].serial_number for one in seen}) == count
    assert gpus.nonces == [NONCE] * count


def test_the_ready_state(serve: Serve) -> None:
    gpus, library = serve(good())
    assert library.number("nvmlSystemGetConfComputeGpusReadyState") == 0
    library.call("nvmlSystemSetConfComputeGpusReadyState", 1)
    assert library.number("nvmlSystemGetConfComputeGpusReadyState") == gpus.ready == 1
    assert library.status("nvmlSystemSetConfComputeGpusReadyState", 2) == 2
    library.call("nvmlSystemSetConfComputeGpusReadyState", 0)
    assert (gpus.ready, gpus.was_ready) == (0, True)


def test_what_nvml_refuses(serve: Serve) -> None:
    _, library = serve(good(1))
    assert library.status("nvmlDeviceGetHandleByIndex_v2", 1, ctypes.byref(ctypes.c_void_p())) == 2
    assert library.status("nvmlSystemGetConfComputeSettings", (ctypes.c_uint * 5)(20)) == 25
    assert library.status("nvmlSystemGetDriverVersion", ctypes.create_string_buffer(9), 9) == 7
    assert library.status("nvmlDeviceGetCount_v2", None) == 2
    library.call("nvmlShutdown")
    assert library.status("nvmlDeviceGetCount_v2", ctypes.byref(ctypes.c_uint())) == 1
    assert library.status("nvmlShutdown") == 1


def test_it_is_initialised_as_often_as_it_is_shut_down(serve: Serve) -> None:
    _, library = serve(good(1))
    for name in ("nvmlInit", "nvmlInit_v2"):
        library.call(name)
    for _ in range(2):
        library.call("nvmlShutdown")
        assert library.number("nvmlDeviceGetCount") == 1


def test_where_the_gpus_are(serve: Serve) -> None:
    _, library = serve(good(2))
    buffer = ctypes.create_string_buffer(68)
    library.call("nvmlDeviceGetPciInfo_v3", library.device(1), buffer)
    assert buffer.raw[:12] == bus_address(1).encode() == b"0000:82:00.0"
    assert buffer.raw[28:32] == bytes.fromhex("de103123")


def test_without_a_host() -> None:
    """No port, no socket: the driver is not there."""
    program = "import ctypes, sys; sys.exit(ctypes.CDLL(sys.argv[1]).nvmlInitWithFlags(0))"
    environment = {**os.environ, "TINBOOT_STUB_GPU": "/nowhere"}
    words = [sys.executable, "-c", program, str(compiled.nvml())]
    assert subprocess.run(words, env=environment, check=False).returncode == 9


def test_threads_share_a_library(serve: Serve) -> None:
    _, library = serve(good(8))
    seen: dict[int, Seen] = {}
    threads = [threading.Thread(target=lambda at=at: seen.update({at: library.seen(at)})) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == list(range(8))
    assert all(map(signed, seen.values()))


def test_processes_have_ways_of_their_own(serve: Serve) -> None:
    """A fork leaves the parent's alone, and an answer goes to who asked."""
    _, library = serve(good(2))
    child = os.fork()
    if child == 0:
        refused = library.status("nvmlDeviceGetCount_v2", ctypes.byref(ctypes.c_uint())) == 1
        library.call("nvmlInitWithFlags", 0)
        os._exit(library.number("nvmlDeviceGetCount") if refused else 99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    assert library.number("nvmlDeviceGetCount") == 2


COUNTS = {"none": 0, "fewer": 1, "more": 3, "fewer-by-nvml": 1, "more-by-nvml": 3}


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_count(serve: Serve, name: str, count: int) -> None:
    assert serve(FAULTS[name])[1].number("nvmlDeviceGetCount_v2") == count


STATES = {
    "cc-off": (2, 0, 0, 0),
    "not-production": (1, 1, 0, 0),
    "devtools": (2, 1, 1, 0),
    "protected-pcie": (2, 1, 0, 1),
    "nvlink": (2, 1, 0, 2),
}


@pytest.mark.parametrize(("name", "state"), STATES.items())
def test_state(serve: Serve, name: str, state: tuple[int, ...]) -> None:
    _, library = serve(FAULTS[name])
    assert library.state() == state
    short = (ctypes.c_uint * 3)()
    library.call("nvmlSystemGetConfComputeState", short)
    assert tuple(short) == state[:3]


def test_ready_state(serve: Serve) -> None:
    gpus, library = serve(FAULTS["ready-does-not-stick"])
    library.call("nvmlSystemSetConfComputeGpusReadyState", 1)
    assert library.number("nvmlSystemGetConfComputeGpusReadyState") == 0
    assert not gpus.was_ready


def test_ready_before_anybody_asked(serve: Serve) -> None:
    gpus, library = serve(FAULTS["ready-already-set"])
    assert library.number("nvmlSystemGetConfComputeGpusReadyState") == 1
    assert gpus.was_ready


def heads(report: bytes) -> bytes:
    """The number of each block of the usual size."""
    return bytes(report[45 + 55 * at] for at in range(64))


def fields(report: bytes) -> list[tuple[int, bytes]]:
    begin = 3599
    end = begin + int.from_bytes(report[begin - 2 : begin], "little")
    found = []
    while begin < end:
        kind, size = (int.from_bytes(report[at : at + 2], "little") for at in (begin, begin + 2))
        found.append((kind, report[begin + 4 : begin + 4 + size]))
        begin += 4 + size
    return found


def said(seen: Seen, kind: int) -> bytes | None:
    return dict(fields(seen.report)).get(kind)


USUAL = bytes(range(1, 65))

#: Of evidence: what is so of the two GPUs with that fault, and of no good ones.
HOLDS: dict[str, Callable[[Seen, Seen], bool]] = {
    "wrong-architecture": lambda a, b: a.architecture == b.architecture == 10 and signed(a) and chained(a),
    "wrong-architecture-by-nvml": lambda a, b: b.architecture == 7 and signed(b),
    "two-alike": lambda a, b: a.uuid == b.uuid and a.chain == b.chain and signed(b),
    "evidence-of-another-gpu": lambda a, b: a.uuid != b.uuid and a.chain == b.chain and signed(b),
    "vbios-differs": lambda a, b: b.vbios != "96.00.9F.00.01" and said(b, 6) == said(a, 6),
    "nonce-replayed": lambda a, b: b.report[4:36] == REPLAYED and signed(b),
    "signature-first": lambda a, b: not signed(a) and signed(b),
    "signature-second": lambda a, b: signed(a) and not signed(b),
    "signature-bit": lambda a, b: not signed(a) and signed(b),
    "report-truncated": lambda a, b: len(a.report) == len(b.report) - 1,
    "report-empty": lambda a, b: not a.report,
    "report-longer": lambda a, b: len(a.report) == len(b.report) + 1,
    "chain-cut": lambda a, b: len(b.chain) == 4 and b.chain[-1].issuer != b.chain[-1].subject,
    "chain-gap": lambda a, b: len(b.chain) == 4 and not chained(b) and b.chain[-1] == a.chain[-1],
    "chain-swapped": lambda a, b: chained(b) and a.chain == b.chain and not signed(b),
    "chain-reordered": lambda a, b: len(b.chain) == 5 and signed(b) and not chained(b),
    "chain-expired": lambda a, b: chained(b) and signed(b) and b.chain[0].not_valid_after_utc.year == 2024,
    "chain-of-another-root": lambda a, b: chained(b) and b.chain[-1] != a.chain[-1],
    "chain-empty": lambda a, b: not b.chain,
    "fwid-differs": lambda a, b: said(b, 20) == WRONG and signed(b),
    "fwid-absent": lambda a, b: said(b, 20) is None and signed(b),
    "driver-unknown": lambda a, b: said(a, 3) == said(b, 3) == b"550.54.99\0" and signed(b),
    "vbios-unknown": lambda a, b: b.vbios == "96.00.EE.00.01" and said(b, 6) != said(a, 6) and signed(b),
    "board-unknown": lambda a, b: said(b, 17) == b"G999\0" and signed(b),
    "opaque-unknown": lambda a, b: said(b, 199) == b"\1\2" and signed(b),
    "opaque-repeated": lambda a, b: [kind for kind, _ in fields(b.report)].count(3) == 2 and signed(b),
    "opaque-protected-pcie": lambda a, b: said(b, 21) == b"\xaa" and signed(b),
    "block-missing": lambda a, b: b.report[41] == 63 and len(b.report) == len(a.report) - 55 and signed(b),
    "block-repeated": lambda a, b: heads(b.report).count(5) == 2 and b.report[41] == 64 and signed(b),
    "block-reordered": lambda a, b: heads(b.report) != USUAL == bytes(sorted(heads(b.report))) and signed(b),
    "block-uncovered": lambda a, b: any(digests(b.report)[50]) and signed(b),
    "block-of-31-bytes": lambda a, b: len(b.report) == len(a.report) - 17 and signed(b),
}


@pytest.mark.parametrize("name", HOLDS)
def test_evidence(serve: Serve, name: str) -> None:
    (_, library), (_, usual) = serve(FAULTS[name]), serve(good())
    assert HOLDS[name](library.seen(0), library.seen(1))
    assert not HOLDS[name](usual.seen(0), usual.seen(1))


MEASUREMENTS = {f"measurement-{at}": at for kind in ACTIVE.values() for at in kind}


@pytest.mark.parametrize(("name", "at"), MEASUREMENTS.items())
def test_measurements(serve: Serve, name: str, at: int) -> None:
    _, library = serve(FAULTS[name])
    for gpu in range(2):
        usual = list(Contents().measurements())
        if gpu == at % 2:
            usual[at] = WRONG
        assert digests(library.seen(gpu).report) == usual
        assert signed(library.seen(gpu))


def test_a_driver_that_differs(serve: Serve) -> None:
    _, library = serve(FAULTS["driver-differs"])
    assert library.text("nvmlSystemGetDriverVersion") == "550.144.03"
    assert said(library.seen(0), 3) == b"550.90.07\0"


def test_a_gpu_that_nobody_holds(serve: Serve) -> None:
    _, library = serve(FAULTS["not-persistent"])
    modes = [library.number("nvmlDeviceGetPersistenceMode", library.device(at)) for at in range(2)]
    assert modes == [1, 0]


def test_every_fault_is_tested() -> None:
    """`foreign` is on the bus alone: test_stub_gpu_files.py."""
    others = {"ready-does-not-stick", "ready-already-set", "driver-differs", "foreign", "not-persistent"}
    assert set(FAULTS) == {*COUNTS, *STATES, *HOLDS, *MEASUREMENTS, *others}


#: Whatever each call wants: an index, or a device, and room for the largest answer.
WORDS: dict[str, tuple[object, ...]] = {
    "nvmlInitWithFlags": (0,),
    "nvmlShutdown": (),
    "nvmlDeviceGetHandleByIndex_v2": (0, ctypes.create_string_buffer(8)),
    "nvmlSystemGetDriverVersion": (ctypes.create_string_buffer(96), 96),
    "nvmlSystemSetConfComputeGpusReadyState": (1,),
}


def words(name: str) -> tuple[object, ...]:
    buffer = ctypes.create_string_buffer(SETTINGS.to_bytes(4, "little"), 12332)
    if name in WORDS:
        return WORDS[name]
    if not name.startswith("nvmlDevice") or name.endswith("Count_v2"):
        return (buffer,)
    sized = name in {"nvmlDeviceGetName", "nvmlDeviceGetUUID", "nvmlDeviceGetVbiosVersion"}
    return (ctypes.c_void_p(1), buffer, *((96,) if sized else ()))


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_fails(serve: Serve, name: str) -> None:
    _, usual = serve(good())
    assert usual.status(name, *words(name)) == 0
    gpus, library = serve(failing(name))
    if name == "nvmlInitWithFlags":
        assert library.status("nvmlDeviceGetCount_v2", *words("nvmlDeviceGetCount_v2")) == 1
    assert library.status(name, *words(name)) == GPU_IS_LOST
    assert gpus.calls[-1] == name
    assert not gpus.was_ready


def test_a_call_that_fails_for_one_gpu(serve: Serve) -> None:
    _, library = serve(failing("nvmlDeviceGetUUID@1"))
    first, second = library.device(0), library.device(1)
    assert library.text("nvmlDeviceGetUUID", first)
    assert library.status("nvmlDeviceGetUUID", second, *words("nvmlDeviceGetUUID")[1:]) == GPU_IS_LOST


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_hangs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks, and is answered by the end of the GPUs alone; others of the machine go on meanwhile."""
    with Gpus(hanging(name)) as gpus:
        monkeypatch.setenv("TINBOOT_STUB_GPU", gpus.path)
        library, statuses = Library(), []
        if name != "nvmlInitWithFlags":
            library.call("nvmlInitWithFlags", 0)
        thread = threading.Thread(target=lambda: statuses.append(library.status(name, *words(name))))
        thread.start()
        while name not in gpus.calls:
            thread.join(0.01)
        thread.join(0.1)
        assert not statuses
        other = "nvmlSystemGetDriverVersion" if name == "nvmlDeviceGetCount_v2" else "nvmlDeviceGetCount_v2"
        assert gpus.answer(other, 0, b"") is not None
    thread.join()
    assert statuses == [999]


def test_calls_of_several_threads_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    """As NVML's do: one GPU that hangs keeps no other thread waiting."""
    name = "nvmlDeviceGetUUID"
    with Gpus(hanging(f"{name}@0")) as gpus:
        monkeypatch.setenv("TINBOOT_STUB_GPU", gpus.path)
        library, statuses, texts = Library(), [], []
        library.call("nvmlInitWithFlags", 0)
        first, second = library.device(0), library.device(1)
        hung = threading.Thread(target=lambda: statuses.append(library.status(name, first, *words(name)[1:])))
        hung.start()
        while name not in gpus.calls:
            hung.join(0.01)
        other = threading.Thread(target=lambda: texts.append(library.text(name, second)))
        other.start()
        other.join(20)
        assert (len(texts), statuses) == (1, [])
    hung.join()
    other.join()
    assert statuses == [999]
    library.status("nvmlShutdown")


def test_qemus_arguments() -> None:
    """Each port is one more of the same socket, under a name that the library looks for."""
    with Gpus() as gpus:
        listed = gpus.arguments
        assert sum(f"path={gpus.path}" in word for word in listed) == PORTS
        assert sum("name=org.tinboot.gpu." in word for word in listed) == PORTS
        assert Path(gpus.path).exists()
    assert not Path(gpus.path).parent.exists()
