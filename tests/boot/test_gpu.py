"""Boots with stub GPUs: two that pass, and every class of fault, by which no GPU ever becomes ready.

Each fault by name is tried against the same gate in tests/guest/test_gpu_gate.py; here are all classes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import stub_gpu_files
import stub_nvidia
import stub_ocsp
from arguments import Disk
from boot import BootResult
from gpu import Gpus
from gpu_faults import FAULTS, Faults, failing, good, hanging

from tinboot.builder import places
from tinboot.formats import bootlog, gpuevidence, gpugate, gpureport, ocspdisk
from tinboot.formats.halt import REASONS, Halt

if TYPE_CHECKING:
    from guest import Guest

#: Class -> a fault of it, and the reason that it ends with.
REFUSED = {
    "no GPU": (FAULTS["none"], "gpu-count"),
    "fewer": (FAULTS["fewer"], "gpu-count"),
    "more": (FAULTS["more"], "gpu-count"),
    "fewer behind the driver": (FAULTS["fewer-by-nvml"], "gpu-count"),
    "more behind the driver": (FAULTS["more-by-nvml"], "gpu-count"),
    "another display device": (FAULTS["foreign"], "gpu-foreign"),
    "wrong architecture": (FAULTS["wrong-architecture"], "gpu-architecture"),
    "two alike": (FAULTS["two-alike"], "gpu-duplicate"),
    "CC off": (FAULTS["cc-off"], "gpu-cc-off"),
    "DevTools": (FAULTS["devtools"], "gpu-devtools"),
    "not production": (FAULTS["not-production"], "gpu-not-production"),
    "multi-GPU mode": (FAULTS["protected-pcie"], "gpu-multi-gpu"),
    "multi-GPU mode in the report": (FAULTS["opaque-protected-pcie"], "gpu-mode"),
    "nonce replayed": (FAULTS["nonce-replayed"], "gpu-nonce"),
    "evidence of another GPU": (FAULTS["evidence-of-another-gpu"], "gpu-duplicate"),
    "signature forged on the first": (FAULTS["signature-first"], "gpu-signature"),
    "signature forged on the second": (FAULTS["signature-second"], "gpu-signature"),
    "chain cut": (FAULTS["chain-cut"], "gpu-chain"),
    "chain swapped": (FAULTS["chain-swapped"], "gpu-signature"),
    "chain expired": (FAULTS["chain-expired"], "gpu-expired"),
    "chain of another root": (FAULTS["chain-of-another-root"], "gpu-root"),
    "FWID differs": (FAULTS["fwid-differs"], "gpu-fwid"),
    "measurement wrong": (FAULTS["measurement-21"], "gpu-measurement"),
    "block missing": (FAULTS["block-missing"], "gpu-evidence-malformed"),
    "block uncovered": (FAULTS["block-uncovered"], "gpu-uncovered"),
    "opaque type unknown": (FAULTS["opaque-unknown"], "gpu-evidence-malformed"),
    "driver without reference values": (FAULTS["driver-unknown"], "gpu-unknown-version"),
    "VBIOS differs between NVML and report": (FAULTS["vbios-differs"], "gpu-version"),
    "NVML answers nonsense": (FAULTS["report-empty"], "gpu-nvml-malformed"),
    "NVML fails": (failing("nvmlDeviceGetConfComputeGpuCertificate"), "gpu-nvml-failed"),
    "NVML hangs": (hanging("nvmlDeviceGetConfComputeGpuAttestationReport@1"), "gpu-nvml-timeout"),
    "ready state does not stick": (FAULTS["ready-does-not-stick"], "gpu-ready-failed"),
    "ready already set": (FAULTS["ready-already-set"], "gpu-ready-early"),
}

OCSP = "gpu-policy:\n  architecture: hopper\n  verifiers: [native]\n  revocation: ocsp"
BOTH = OCSP.replace("[native]", "[native, nv-local-gpu-verifier]").replace("ocsp", "relying-party")


@dataclass(frozen=True, slots=True)
class Booted:
    """`known`: what its image knew of GPUs."""

    result: BootResult
    gpus: Gpus
    known: stub_gpu_files.Known

    def refused(self, reason: str, hook: str = "40-gpu") -> Halt:
        """The halt; asserts that no GPU was ready at any time, and that nothing came after."""
        halted = self.result.expect_halt(reason, hook=hook)
        assert self.gpus.was_ready == bool(self.gpus.faults.ready)
        assert not self.result.handed_over
        return halted

    def passed(self) -> dict[str, object]:
        """What the hook sealed."""
        sealed = self.result.expect_up()["boot"]
        assert isinstance(sealed, dict)
        found: dict[str, object] = {hook["hook"]: hook["found"] for hook in sealed["hooks"]}["40-gpu"]
        assert self.gpus.ready == 1
        return found


class Machine:
    """`boot` starts one whose config asks for two GPUs."""

    def __init__(self, guest: Guest, folder: Path) -> None:
        self.guest = guest
        self.folder = folder

    def boot(
        self,
        faults: Faults,
        *lines: str,
        change: Callable[[dict[str, bytes]], object] | None = None,
        disks: tuple[Disk, ...] = (),
        extra: tuple[str, ...] = (),
        marker: str | None = None,
        **files: bytes,
    ) -> Booted:
        """`lines` of the config. `change` alters what the image knows of GPUs; `files` replace the stubs'."""
        known = stub_gpu_files.known(datetime.now(UTC))
        if change is not None:
            change(known)
        with Gpus(faults) as gpus:
            asking = self.guest.with_gpus(gpus, known, self.folder, *lines)
            asking = replace(asking, gpu_files=files)
            result = asking.boot(disks=[*asking.disks, *disks], extra=extra, marker=marker)
            return Booted(result, gpus, known)

    def ocsp(self, responses: list[bytes]) -> Disk:
        path = self.folder / "ocsp"
        path.write_bytes(ocspdisk.pack(responses))
        return Disk(path, gpugate.OCSP_SERIAL)


@pytest.fixture
def machine(guest: Guest, disk_dir: Path) -> Machine:
    return Machine(guest, disk_dir)


def answers(faults: Faults) -> dict[int, stub_ocsp.Answer]:
    """Good ones by serial number, of every certificate that is asked about."""
    found = {}
    for number in range(len(faults.gpus)):
        chain = stub_nvidia.chain("HOPPER", number)
        for answer in stub_ocsp.answers(chain, datetime.now(UTC))[1:]:
            found[answer.serial] = answer
    return found


def test_two_good_gpus_under_the_production_firmware(machine: Machine, firmware: Path) -> None:
    machine.guest = replace(machine.guest, firmware=firmware)
    booted = machine.boot(good())
    found = booted.passed()
    assert found["gpus"] == 2
    assert found["nonce"] == booted.gpus.nonces[0].hex()
    assert found["verifiers"] == ["native"]
    assert found["ready"] == 1
    known = hashlib.sha256(booted.known[stub_gpu_files.VALUES]).hexdigest()
    assert found["reference_values"] == known


GPU_HOOK = '{"hook":"40-gpu"'


def test_what_was_verified_is_sealed_and_the_daemon_goes_on(machine: Machine) -> None:
    """Looked at from the running root: evidence and claims are what boot.json says, and read-only."""
    machine.guest = machine.guest.with_hook("85-look", LOOK)
    booted = machine.boot(good(), marker="gpu-look ")
    (passed,) = (
        bootlog.parse_passed(x)
        for x in booted.result.lines()
        if x.startswith(bootlog.PASSED_PREFIX + GPU_HOOK)
    )
    found = passed.found
    (line,) = (x for x in booted.result.lines() if x.startswith("gpu-look "))
    seen = json.loads(line.removeprefix("gpu-look "))
    assert seen["sha256"] == found["sha256"]
    assert seen["daemon"] == "nvidia-persiste"  # the kernel keeps 15 characters
    assert seen["writable"] is False
    assert seen["modules_disabled"] == "1"
    assert all(path.endswith("/dev/null") for path in seen["descriptors"])  # nothing of the gate's
    assert not {name for name, bits in seen["capabilities"].items() if int(bits, 16) >> 16 & 1}  # SYS_MODULE
    (first, second) = gpuevidence.parse(seen["evidence"].encode())
    assert first.nonce == second.nonce == booted.gpus.nonces[0]
    assert gpureport.parse(first.evidence).opaque.driver_version == found["driver"]


@pytest.mark.parametrize("name", REFUSED)
def test_a_fault_is_refused(machine: Machine, name: str) -> None:
    faults, reason = REFUSED[name]
    machine.boot(faults).refused(reason)


def test_both_verifiers_accept(machine: Machine) -> None:
    assert machine.boot(good(), BOTH).passed()["verifiers"] == ["native", "nv-local-gpu-verifier"]


def test_the_second_verifier_alone_refuses(machine: Machine) -> None:
    """RIMs whose signers have expired: reference values were verified before, and still count."""
    past = datetime.now(UTC) - timedelta(days=3 * 365)

    def older(known: dict[str, bytes]) -> None:
        known.update(stub_gpu_files.known(past))

    assert machine.boot(good(), change=older).passed()["verifiers"] == ["native"]
    halted = machine.boot(good(), BOTH, change=older).refused("gpu-second-verifier")
    assert "expired" in halted.detail or "invalid" in halted.detail


def test_the_second_verifier_comes_to_no_verdict(machine: Machine) -> None:
    """There is no RIM for it to look at."""

    def bare(known: dict[str, bytes]) -> None:
        for name in [name for name in known if name.startswith("rims/")]:
            del known[name]

    machine.boot(good(), BOTH, change=bare).refused("gpu-second-verifier-failed")


def test_an_altered_rim(machine: Machine) -> None:
    def alter(known: dict[str, bytes]) -> None:
        name = next(name for name in known if name.startswith("rims/"))
        known[name] = known[name].replace(b"corpus", b"corpuS", 1)

    machine.boot(good(), change=alter).refused("gpu-reference-values")


def test_the_production_image_knows_no_stub(machine: Machine) -> None:
    """Without the test's reference values and roots over its own, it has none and refuses."""

    def nothing(known: dict[str, bytes]) -> None:
        for name in (stub_gpu_files.VALUES, *(name for name in known if name.startswith("rims/"))):
            del known[name]

    machine.boot(good(), change=nothing).refused("gpu-reference-values")


def test_nvidias_root_does_not_vouch_for_stubs(machine: Machine) -> None:
    def genuine(known: dict[str, bytes]) -> None:
        path = f"mkosi.images/root/mkosi.extra{gpugate.FOLDER}/{stub_gpu_files.DEVICE_ROOT}"
        known[stub_gpu_files.DEVICE_ROOT] = (places.REPOSITORY / path).read_bytes()

    machine.boot(good(), change=genuine).refused("gpu-root")


def test_no_nvml(machine: Machine) -> None:
    machine.boot(good(), library=b"no library").refused("gpu-nvml-missing")


def test_no_daemon(machine: Machine) -> None:
    machine.boot(good(), persistenced=b"no program").refused("gpu-persistenced")


def test_a_module_that_is_not_there(machine: Machine) -> None:
    def listed(known: dict[str, bytes]) -> None:
        known["modules"] = b"/usr/lib/modules/nvidia.ko\n"

    machine.boot(good(), change=listed).refused("gpu-driver")


@pytest.mark.parametrize("clock", ["1970-01-01T00:00:10", f"{datetime.now(UTC).year + 10}-11-25T00:00:00"])
def test_a_clock_that_cannot_be_right(machine: Machine, clock: str) -> None:
    machine.boot(good(), extra=("-rtc", f"base={clock}")).refused("gpu-clock")


def test_revocation_by_responses_on_a_disk(machine: Machine) -> None:
    disk = machine.ocsp([answer.pack() for answer in answers(good()).values()])
    assert machine.boot(good(), OCSP, disks=(disk,)).passed()["revocation"] == "ocsp"


def test_a_revoked_gpu(machine: Machine) -> None:
    found = answers(good())
    first = next(iter(found))
    found[first] = found[first]._replace(status="revoked")
    disk = machine.ocsp([answer.pack() for answer in found.values()])
    machine.boot(good(), OCSP, disks=(disk,)).refused("gpu-revoked")


def test_responses_that_are_of_yesterday(machine: Machine) -> None:
    old = timedelta(days=40)
    found = [
        answer._replace(
            this_update=answer.this_update - old,
            next_update=None if answer.next_update is None else answer.next_update - old,
            produced_at=answer.produced_at - old,
        )
        for answer in answers(good()).values()
    ]
    disk = machine.ocsp([answer.pack() for answer in found])
    machine.boot(good(), OCSP, disks=(disk,)).refused("gpu-ocsp-invalid")


def test_no_responses_where_they_are_required(machine: Machine) -> None:
    machine.boot(good(), OCSP).refused("gpu-ocsp-missing", "30-volumes")
    machine.boot(good(), OCSP, disks=(machine.ocsp([]),)).refused("gpu-ocsp-missing")


def test_responses_on_two_disks(machine: Machine) -> None:
    disk = machine.ocsp([])
    machine.boot(good(), OCSP, disks=(disk, disk)).refused("gpu-ocsp-duplicate", "30-volumes")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import time; time.sleep(600)", "gpu-timeout"),
        ("raise SystemExit(1)", "gpu-gate-failed"),
        ("import os; os.write(3, b'{}')", "gpu-gate-failed"),
    ],
    ids=["never ends", "fails", "answers nonsense"],
)
def test_a_gate_that(machine: Machine, program: str, reason: str) -> None:
    machine.guest = machine.guest.with_hook("39-instead", INSTEAD.format(program=program))
    machine.boot(good()).refused(reason)


def test_every_gpu_reason_has_a_boot() -> None:
    """Of the classes in this file; the disk's and the gate's own have tests of their own above."""
    named = set(Path(__file__).read_text("utf-8").split('"'))
    missing = {reason for reason in REASONS if reason.startswith("gpu-")} - named - {"gpu-unexpected"}
    assert not missing


#: Looks at the running root from a process that outlives the hand-over.
LOOK = """
import hashlib, json, os, time

def run(state):
    comm = os.open("/proc/1/comm", os.O_RDONLY)
    root = os.open("/proc/1", os.O_RDONLY)
    if os.fork():
        return {}
    os.setsid()
    try:
        look(comm, root)
    finally:
        os._exit(0)

def look(comm, root):
    while os.pread(comm, 20, 0).strip() != b"systemd":
        time.sleep(0.1)
    time.sleep(1)
    os.fchdir(root)
    folder = "root/run/tinboot"
    seen = {"sha256": {}}
    for name in ("gpu-evidence.json", "gpu-claims.json"):
        with open(f"{folder}/{name}", "rb") as file:
            data = file.read()
        seen["sha256"][name] = hashlib.sha256(data).hexdigest()
        if name == "gpu-evidence.json":
            seen["evidence"] = data.decode()
    with open("root/run/nvidia-persistenced/nvidia-persistenced.pid") as file:
        pid = file.read().strip()
    with open(f"root/proc/{pid}/comm") as file:
        seen["daemon"] = file.read().strip()[:15]
    with open(f"root/proc/{pid}/status") as file:
        lines = [line.split() for line in file if line.startswith("Cap")]
    seen["capabilities"] = {line[0]: line[1] for line in lines}
    descriptors = f"root/proc/{pid}/fd"
    seen["descriptors"] = [os.readlink(f"{descriptors}/{number}") for number in os.listdir(descriptors)]
    with open("root/proc/sys/kernel/modules_disabled") as file:
        seen["modules_disabled"] = file.read().strip()
    try:
        open(f"{folder}/more", "w")
        seen["writable"] = True
    except OSError:
        seen["writable"] = False
    with open("root/dev/console", "w") as console:
        console.write("\\ngpu-look " + json.dumps(seen) + "\\n")
"""

#: In the place of the gate, with a deadline that a test can wait for.
INSTEAD = """
def run(state):
    from stage import rootprogram
    asked = rootprogram.Program.ask
    rootprogram.Program.ask = lambda program, given, _, limit: asked(program, given, 5, limit)
    rootprogram.load = lambda module: lambda: exec({program!r}, {{}})
    return {{}}
"""
