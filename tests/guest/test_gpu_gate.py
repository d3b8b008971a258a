"""The real gate against stub GPUs, behind the NVML that it loads: every fault, and what it is refused as."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

import compiled
import fake_nvidia
import gate_driver
import gpu_faults
import pytest
import stub_files
import stub_nvidia
import stub_ocsp
from gpu import Gpus
from gpu_faults import FAULTS, Faults, failing, good, hanging
from stage import supervisor
from stub_gpu_report import Contents

from tinboot.builder import gpu_pin, places
from tinboot.formats import gpuevidence, gpugate, gpureference, halt, ocspdisk
from tinboot.formats.gpugate import Job, Outcome
from tinboot.guest import gpu_gate, gpu_image, gpu_verdict
from tinboot.verify import gpu_appraisal, gpu_binding, gpu_chain, gpu_platform

NOW = fake_nvidia.NOW
JOB = Job(2, "hopper", ("native",), "relying-party", "")

#: What the gate calls of NVML, in this order; the last two once everything was verified.
CALLED = (
    "nvmlInitWithFlags",
    "nvmlSystemGetDriverVersion",
    "nvmlSystemGetConfComputeState",
    "nvmlSystemGetConfComputeSettings",
    "nvmlSystemGetConfComputeGpusReadyState",
    "nvmlDeviceGetCount_v2",
    "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetArchitecture",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetPersistenceMode",
    "nvmlDeviceGetVbiosVersion",
    "nvmlDeviceGetConfComputeGpuCertificate",
    "nvmlDeviceGetConfComputeGpuAttestationReport",
    "nvmlSystemSetConfComputeGpusReadyState",
)

#: Name in gpu_faults.FAULTS -> reason. Those that only the PCI bus shows are the hook's (tests/boot).
EXPECTED = {
    "none": "gpu-count",
    "fewer": "gpu-count",
    "more": "gpu-count",
    "fewer-by-nvml": "gpu-count",
    "more-by-nvml": "gpu-count",
    "wrong-architecture": "gpu-architecture",
    "wrong-architecture-by-nvml": "gpu-architecture",
    "two-alike": "gpu-duplicate",
    "cc-off": "gpu-cc-off",
    "not-production": "gpu-not-production",
    "devtools": "gpu-devtools",
    "protected-pcie": "gpu-multi-gpu",
    "nvlink": "gpu-multi-gpu",
    "ready-does-not-stick": "gpu-ready-failed",
    "ready-already-set": "gpu-ready-early",
    "not-persistent": "gpu-persistenced",
    "driver-differs": "gpu-version",
    "vbios-differs": "gpu-version",
    "nonce-replayed": "gpu-nonce",
    "evidence-of-another-gpu": "gpu-duplicate",
    "signature-first": "gpu-signature",
    "signature-second": "gpu-signature",
    "signature-bit": "gpu-signature",
    "report-truncated": "gpu-evidence-malformed",
    "report-empty": "gpu-nvml-malformed",
    "chain-cut": "gpu-chain",
    "chain-gap": "gpu-chain",
    "chain-swapped": "gpu-signature",
    "chain-reordered": "gpu-chain",
    "chain-expired": "gpu-expired",
    "chain-of-another-root": "gpu-root",
    "chain-empty": "gpu-nvml-malformed",
    "fwid-differs": "gpu-fwid",
    "fwid-absent": "gpu-fwid",
    "driver-unknown": "gpu-unknown-version",
    "vbios-unknown": "gpu-unknown-version",
    "board-unknown": "gpu-unknown-version",
    "opaque-unknown": "gpu-evidence-malformed",
    "opaque-repeated": "gpu-evidence-malformed",
    "opaque-protected-pcie": "gpu-mode",
    "block-missing": "gpu-evidence-malformed",
    "block-repeated": "gpu-evidence-malformed",
    "block-reordered": "gpu-evidence-malformed",
    "block-uncovered": "gpu-uncovered",
    "block-of-31-bytes": "gpu-evidence-malformed",
}
#: None to the gate: what is on the bus is for the hook, and a zero behind a report is padding.
PASSING = {"foreign", "report-longer"}


@dataclass(frozen=True, slots=True)
class Machine:
    """A verified root, in a folder, as far as the gate looks at it."""

    folder: Path

    def gate(
        self,
        faults: Faults,
        job: Job = JOB,
        *,
        now: datetime = NOW,
        daemon: float = 20,
        call: float = 20,
        library: Path | None = None,
    ) -> tuple[Outcome, Gpus]:
        """Runs it; asserts that the GPUs were made ready exactly if it passed."""
        with Gpus(faults) as gpus:
            done = subprocess.run(
                [
                    sys.executable,
                    gate_driver.__file__,
                    str(self.folder),
                    now.isoformat(),
                    str(daemon),
                    str(call),
                ],
                input=gpugate.pack_job(job),
                capture_output=True,
                check=False,
                timeout=120,
                env={
                    "LD_LIBRARY_PATH": str(library or compiled.nvml().parent),
                    "TINBOOT_STUB_GPU": gpus.path,
                    "PATH": os.environ["PATH"],
                },
            )
        assert done.returncode == 0, done.stderr.decode()
        outcome = gpugate.parse_outcome(done.stdout)
        assert bool(gpus.ready) == (not outcome.refused or bool(faults.ready)), outcome
        return outcome, gpus

    def refuses(self, faults: Faults, job: Job = JOB, **given: object) -> tuple[str, str]:
        """Reason and detail."""
        outcome, gpus = self.gate(faults, job, **given)  # type: ignore[arg-type]  # as given
        assert outcome.refused, outcome.found
        reason, detail = outcome.refused
        assert reason in halt.REASONS
        assert gpus.was_ready == bool(faults.ready)
        return reason, detail


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    folder = tmp_path / "root"
    (folder / "nodes").mkdir(parents=True)
    (folder / "devices").write_text("Character devices:\n  1 mem\n\nBlock devices:\n")
    (folder / "python").write_text(sys.executable)
    daemon = folder / "nvidia-persistenced"
    daemon.write_text(f"#!/bin/sh\nsleep 60 >&- 2>&- & echo $! > {folder}/daemon.pid\n")
    daemon.chmod(0o755)
    sources = [
        gpu_pin.Source(None, f"{kind}-{arch}.xml", fake_nvidia.rim(kind, arch))
        for kind in ("driver", "vbios")
        for arch in ("HOPPER",)
    ]
    named = [
        source._replace(named=Contents().rim_id("driver" if "driver" in source.origin else "vbios"))
        for source in sources
    ]
    root = sha256(fake_nvidia.rim_root()).hexdigest()
    gpu_pin.write(gpu_pin.pin(named, NOW - timedelta(days=1), (root,)), folder / "gpu")
    (folder / "gpu/device-root.pem").write_bytes(stub_nvidia.pem([fake_nvidia.device_root()]))
    yield Machine(folder)
    if (folder / "daemon.pid").exists():
        os.kill(int((folder / "daemon.pid").read_text()), signal.SIGKILL)


@pytest.mark.parametrize("count", [1, 2, 8])
def test_good_gpus_pass_and_are_ready_at_last(machine: Machine, count: int) -> None:
    outcome, gpus = machine.gate(good(count), JOB._replace(gpus=count))
    assert not outcome.refused
    assert gpus.ready == 1
    ready = gpus.calls.index("nvmlSystemSetConfComputeGpusReadyState")
    assert gpus.calls.count("nvmlSystemSetConfComputeGpusReadyState") == 1
    reports = [at for at, call in enumerate(gpus.calls) if call.endswith("AttestationReport")]
    assert len(reports) == count
    assert max(reports) < ready
    assert gpus.calls[ready + 1] == "nvmlSystemGetConfComputeGpusReadyState"
    assert outcome.found["gpus"] == count
    assert outcome.found["nonce"] == gpus.nonces[0].hex()
    assert len(set(gpus.nonces)) == 1


def test_what_passed_is_what_was_collected(machine: Machine) -> None:
    outcome, gpus = machine.gate(good())
    evidence = gpuevidence.parse(outcome.files[gpugate.EVIDENCE_FILE].encode())
    assert [item.nonce for item in evidence] == gpus.nonces
    assert [item.certificate for item in evidence] == [gpus.certificates(at).pem() for at in range(2)]
    overall, claims = json.loads(outcome.files[gpugate.CLAIMS_FILE])
    assert overall["x-nvidia-overall-att-result"] is True
    assert sorted(claims) == ["GPU-0", "GPU-1"]
    assert all(c["measres"] == "success" for c in claims.values())
    values = (machine.folder / "gpu/reference-values.json").read_bytes()
    assert outcome.found["reference_values"] == sha256(values).hexdigest()


def test_every_boot_has_a_nonce_of_its_own(machine: Machine) -> None:
    first, second = (machine.gate(good(1), JOB._replace(gpus=1))[1].nonces for _ in range(2))
    assert first != second


def test_every_fault_has_a_reason() -> None:
    measurements = {name for name in FAULTS if name.startswith("measurement-")}
    assert len(measurements) >= 33
    assert EXPECTED.keys() | measurements | PASSING == FAULTS.keys()


def test_every_check_of_the_verifier_has_a_reason() -> None:
    ids = {check.id for check in gpu_chain.CHECKS} | {check.id for check in gpu_binding.CHECKS}
    ids |= {check.id for check in gpu_platform.CHECKS} | {check.id for check in gpu_appraisal.CHECKS}
    ids |= {check.id for check in gpu_appraisal.FORMATS}
    assert ids == gpu_verdict.REASONS.keys()
    assert set(gpu_verdict.REASONS.values()) <= set(halt.REASONS)


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in PASSING])
def test_every_fault_is_refused_by_its_reason(machine: Machine, name: str) -> None:
    expected = "gpu-measurement" if name.startswith("measurement-") else EXPECTED[name]
    assert machine.refuses(FAULTS[name])[0] == expected


@pytest.mark.parametrize("name", sorted(PASSING))
def test_what_is_no_fault_to_the_gate_passes(machine: Machine, name: str) -> None:
    assert not machine.gate(FAULTS[name])[0].refused


@pytest.mark.parametrize("call", CALLED)
def test_a_call_that_fails_is_named(machine: Machine, call: str) -> None:
    reason, detail = machine.refuses(failing(call))
    assert reason == "gpu-nvml-failed"
    assert call.removesuffix("_v2") in detail
    assert "15" in detail  # NVML_ERROR_GPU_IS_LOST


@pytest.mark.parametrize("call", CALLED)
def test_a_call_that_hangs_is_named(machine: Machine, call: str) -> None:
    one = replace(hanging(call), gpus=good(1).gpus)  # the stub takes turns: another's call may wait behind
    reason, detail = machine.refuses(one, JOB._replace(gpus=1), call=3)
    assert reason == "gpu-nvml-timeout"
    assert detail.startswith(call.removesuffix("_v2"))


def test_one_gpu_of_two_that_hangs_is_named(machine: Machine) -> None:
    call = "nvmlDeviceGetArchitecture"
    reason, detail = machine.refuses(hanging(f"{call}@1"), call=3)
    assert reason == "gpu-nvml-timeout"
    assert detail.startswith(f"{call} of GPU 1 ")


def test_the_ready_state_cannot_be_read_back(machine: Machine) -> None:
    """The second reading alone fails: the GPUs may be ready, the machine ends all the same."""
    faults = replace(good(), sticks=False)
    assert machine.refuses(faults) == ("gpu-ready-failed", "the ready state is 0 after it was set to 1")


def test_no_nvml_library(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_bytes(b"no library")
    assert machine.refuses(good(), library=tmp_path)[0] == "gpu-nvml-missing"


def test_nvidias_own_library_finds_no_driver(machine: Machine, tmp_path: Path) -> None:
    """The image's own libnvidia-ml, on a machine that has no NVIDIA driver, as every machine of ours."""
    packages = places.build_folder() / "packages/debian"
    (package,) = packages.glob("libnvidia-ml1_*.deb")
    found = stub_files.member(package, f"/libnvidia-ml.so.{package.name.split('_')[1].split('-')[0]}")
    (tmp_path / "libnvidia-ml.so.1").write_bytes(found)
    reason, detail = machine.refuses(good(), library=tmp_path)
    assert reason == "gpu-nvml-failed"
    assert detail == "nvmlInitWithFlags: Driver Not Loaded, status 9"


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (None, "No such file"),
        ("exit 3", "ended with status 3"),
        ("exit 0", "does not run"),
        ("echo 999999999 > $PID", "does not run"),
        ("echo nonsense > $PID", "does not run"),
        ("exec sleep 20", "was not up within 2 s"),
    ],
)
def test_the_daemon_has_to_run(machine: Machine, script: str | None, told: str) -> None:
    daemon = machine.folder / "nvidia-persistenced"
    daemon.unlink()
    if script is not None:
        daemon.write_text(f"#!/bin/sh\nPID={machine.folder}/daemon.pid\n{script}\n")
        daemon.chmod(0o755)
    reason, detail = machine.refuses(good(), daemon=2)
    (machine.folder / "daemon.pid").unlink(missing_ok=True)
    assert reason == "gpu-persistenced"
    assert told in detail


@pytest.mark.parametrize("now", [datetime.fromisoformat("1970-01-01T00:00:10Z"), NOW + timedelta(days=3653)])
def test_a_clock_that_cannot_be_right(machine: Machine, now: datetime) -> None:
    reason, detail = machine.refuses(good(), now=now)
    assert reason == "gpu-clock"
    assert f"it is {now:%Y-%m-%d}" in detail


def test_a_clock_within_the_reference_values_time_passes(machine: Machine) -> None:
    values = gpureference.parse((machine.folder / "gpu/reference-values.json").read_bytes())
    for now in (values.created, values.created + gpu_image.LONGEST_USE):
        assert not machine.gate(good(), now=now)[0].refused


@pytest.mark.parametrize("name", ["reference-values.json", "device-root.pem"])
def test_an_image_that_knows_no_gpus(machine: Machine, name: str) -> None:
    file = machine.folder / "gpu" / name
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    assert machine.refuses(good())[0] == "gpu-reference-values"
    file.unlink()
    reason, detail = machine.refuses(good())
    assert reason == "gpu-reference-values"
    assert name in detail


def test_an_altered_rim(machine: Machine) -> None:
    path = next((machine.folder / "gpu/rims").iterdir())
    path.write_bytes(path.read_bytes() + b" ")
    assert machine.refuses(good()) == ("gpu-reference-values", f"{path.name} is not the file that was pinned")


def test_two_roots_in_the_anchor(machine: Machine) -> None:
    path = machine.folder / "gpu/device-root.pem"
    path.write_bytes(path.read_bytes() * 2)
    assert machine.refuses(good())[0] == "gpu-reference-values"


class TestOcsp:
    """The policy asks for responses, and the host has them on a disk."""

    @staticmethod
    def answers() -> list[bytes]:
        """About the boot ROM, the provisioner and the chip's identity of both GPUs, each once."""
        chains = [stub_nvidia.chain("HOPPER", number) for number in range(2)]
        made: dict[int, stub_ocsp.Answer] = {}
        for chain in chains:
            for form, answer in zip(chain.forms[1:-1], stub_ocsp.answers(chain, NOW)[1:], strict=True):
                made.setdefault(form.serial, answer)
        return [answer.pack() for answer in made.values()]

    @staticmethod
    def job(machine: Machine, disk: bytes) -> Job:
        path = machine.folder / "ocsp"
        path.write_bytes(disk)
        return JOB._replace(revocation="ocsp", ocsp=str(path))

    def test_good_ones_pass(self, machine: Machine) -> None:
        outcome, _ = machine.gate(good(), self.job(machine, ocspdisk.pack(self.answers())))
        assert not outcome.refused
        assert outcome.found["revocation"] == "ocsp"

    def test_one_that_is_absent(self, machine: Machine) -> None:
        reason, _ = machine.refuses(good(), self.job(machine, ocspdisk.pack(self.answers()[:-1])))
        assert reason == "gpu-ocsp-missing"

    def test_none_at_all(self, machine: Machine) -> None:
        assert machine.refuses(good(), self.job(machine, bytes(512)))[0] == "gpu-ocsp-missing"

    def test_stale_ones(self, machine: Machine) -> None:
        job = self.job(machine, ocspdisk.pack(self.answers()))
        assert machine.refuses(good(), job, now=NOW + timedelta(days=40))[0] == "gpu-ocsp-invalid"

    def test_one_of_another_certificate(self, machine: Machine) -> None:
        other = stub_ocsp.answers(stub_nvidia.chain("HOPPER", 7), NOW)[1].pack()
        job = self.job(machine, ocspdisk.pack([*self.answers(), other]))
        assert machine.refuses(good(), job)[0] == "gpu-ocsp-invalid"

    def test_a_revoked_certificate(self, machine: Machine) -> None:
        answers = stub_ocsp.answers(stub_nvidia.chain("HOPPER", 0), NOW)
        revoked = answers[1]._replace(status="revoked")
        disk = ocspdisk.pack([revoked.pack(), *self.answers()[1:]])
        assert machine.refuses(good(), self.job(machine, disk))[0] == "gpu-revoked"

    @pytest.mark.parametrize("disk", [b"noise" * 100, bytes(ocspdisk.MAX_SIZE + 512)])
    def test_a_disk_that_is_none(self, machine: Machine, disk: bytes) -> None:
        assert machine.refuses(good(), self.job(machine, disk))[0] == "gpu-ocsp-invalid"

    def test_a_disk_that_went_away(self, machine: Machine) -> None:
        job = self.job(machine, b"")
        Path(job.ocsp).unlink()
        assert machine.refuses(good(), job)[0] == "gpu-ocsp-invalid"


#: What is imported by then, of a process that found only this on its path.
IMPORTED = """
import sys
sys.path[:0] = {folders!r}
import {modules}
print(*(name for name in sys.modules if name.startswith({watched!r})))
"""
WATCHED = (
    "cryptography.",
    "pynvml",
    "pathlib",
    "shutil",
    "subprocess",
    "tempfile",
    "ctypes.util",
    "tinboot.guest.nv_",
)


def imported(*modules: str) -> set[str]:
    folders = [str(places.REPOSITORY), *(path for path in sys.path if "-packages" in path)]
    program = IMPORTED.format(folders=folders, modules=", ".join(modules), watched=WATCHED)
    done = subprocess.run([sys.executable, "-IBSc", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_what_can_wait_is_imported_while_the_driver_works() -> None:
    """Neither NVML's bindings nor cryptography until the daemon has been started."""
    assert not imported("tinboot.guest.gpu_gate")


def test_no_part_of_the_libraries_is_imported_that_nobody_needs() -> None:
    """Each is a tenth of a second of an emulated boot. The second verifier waits for a config's word."""
    everything = imported("tinboot.guest.gpu_gate", "tinboot.guest.nvml", "tinboot.guest.gpu_verdict")
    assert "pynvml" in everything
    assert "cryptography.hazmat.primitives.asymmetric.ec" in everything
    others = {name for name in everything if not name.startswith(("cryptography.", "pynvml"))}
    assert not others
    assert not {name for name in everything if {"backends", "ciphers", "x509"} & set(name.split("."))}


def test_docs_state_the_deadlines() -> None:
    page = " ".join((places.REPOSITORY / "docs/boot.md").read_text("utf-8").split())
    deadlines = gpu_gate.Deadlines()
    assert f"{deadlines.call} seconds, and {deadlines.call_each} for each GPU" in page
    hook: dict[str, int] = {}
    text = (places.REPOSITORY / "initrd-hooks/40-gpu").read_text("utf-8")
    exec(next(line for line in text.splitlines() if line.startswith("BASE, EACH = ")), hook)  # noqa: S102 - one line of a hook, which has no suffix to import it by
    assert f"the gate to {hook['BASE']} seconds and {hook['EACH']} more for each GPU" in page
    assert hook["BASE"] + 8 * hook["EACH"] < supervisor.DEADLINES["40-gpu"]
    assert gpu_image.LONGEST_USE.days == 5 * 366
    assert "before them or five years past them" in page


def test_calls_are_all_that_the_stub_was_asked(machine: Machine) -> None:
    """So that the two lists of failing and hanging calls leave none out."""
    _, gpus = machine.gate(good())
    assert set(gpus.calls) == set(CALLED)
    assert set(CALLED) <= set(gpu_faults.CALLS)
