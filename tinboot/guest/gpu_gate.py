"""The GPU gate: no GPU takes work before all of them were verified, or the machine ends.

Started by the hook 40-gpu in the verified root, before anything else of the root runs. In this order:

    what the image knows of GPUs, and the clock, are looked at         gpu_image.py
    device nodes, and the daemon that keeps the GPUs' sessions         gpu_devices.py
    state and evidence, collected once, for a nonce of this moment     nvml.py
    every GPU verified, by every verifier that the config names        gpu_verdict.py
    the ready state set, and read back                                 nvml.py

What is imported when changes nothing of that: NVML's bindings while the daemon initialises the GPUs, the
verifier while they make their evidence. Both take longer than any import, but where all is emulated.

The outcome goes to descriptor 3 (formats/gpugate.py): a refusal with its reason, or what was verified.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from tinboot.formats import gpuevidence, gpugate, gpureport
from tinboot.formats.gpugate import Job, Outcome
from tinboot.formats.halt import Refusal
from tinboot.guest import gpu_devices, gpu_image
from tinboot.guest.attended import Attendance, Broken, Overdue, Work, attend
from tinboot.guest.gpu_devices import Daemon

if TYPE_CHECKING:
    from os import PathLike

    from tinboot.guest.nv_verifier import Place
    from tinboot.guest.nvml import Collected


class Places(NamedTuple):
    """Where things lie in the verified root. `second`: where not at its own place."""

    folder: str | PathLike[str] = gpugate.FOLDER
    second: Place | None = None
    daemon: Daemon = Daemon()
    devices: str | PathLike[str] = "/proc/devices"
    nodes: str | PathLike[str] = "/dev"


class Deadlines(NamedTuple):
    """Seconds. Those of calls that touch each GPU grow with the number of GPUs, as NVML may take turns.

    A GPU's first initialisation, in the daemon, boots its firmware: 4 to 7 s have been seen (docs/gpu.md).
    """

    daemon: float = 20
    daemon_each: float = 30
    call: float = 20
    call_each: float = 5


def gate(job: Job, places: Places, deadlines: Deadlines, now: datetime) -> Outcome:
    """What passed; raises `Refusal`."""
    image = gpu_image.read(places.folder)
    gpu_image.check_clock(image.reference_values, now)
    ocsp = gpu_image.read_ocsp(job.ocsp) if job.ocsp else ()
    ms: dict[str, int] = {}
    with _Timed(ms, "daemon"):
        with open(places.devices, encoding="ascii") as file:
            gpu_devices.make_nodes(file.read(), job.gpus, places.nodes)
        starting = gpu_devices.Starting(places.daemon)
        from tinboot.guest import nvml  # noqa: F401 - while the daemon starts

        starting.finish(deadlines.daemon + deadlines.daemon_each * job.gpus)
    nonce = os.urandom(gpureport.NONCE)
    with _Timed(ms, "evidence"):
        collected = _collect(job, nonce, deadlines)
    with _Timed(ms, "verification"):
        from tinboot.guest import gpu_verdict

        verdict = gpu_verdict.decide(job, image, ocsp, collected, nonce, now, places.second)
    with _Timed(ms, "ready"):
        _set_ready(job, collected, deadlines)
    files = {gpugate.EVIDENCE_FILE: gpuevidence.render(verdict.evidence), gpugate.CLAIMS_FILE: verdict.claims}
    found = {
        "gpus": job.gpus,
        "architecture": job.architecture,
        "driver": collected.driver_version,
        "nonce": nonce.hex(),
        "reference_values": sha256(image.raw).hexdigest(),
        "verifiers": list(job.verifiers),
        "revocation": job.revocation,
        "ready": 1,
        "ms": ms,
    }
    return Outcome((), found, {name: data.decode() for name, data in files.items()})


class _Timed:
    """Adds what passes within it to `ms`."""

    def __init__(self, ms: dict[str, int], stage: str) -> None:
        self._ms, self._stage, self._began = ms, stage, time.monotonic()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._ms[self._stage] = round((time.monotonic() - self._began) * 1000)


def _collect(job: Job, nonce: bytes, deadlines: Deadlines) -> Collected:
    from tinboot.guest import nvml

    def work(attendance: Attendance) -> object:
        return nvml.pack(nvml.collect(nvml.Nvml(attendance), job.gpus, job.architecture, nonce))

    def meanwhile() -> None:
        from tinboot.guest import gpu_verdict  # noqa: F401 - for what comes next

    return nvml.unpack(_attend(work, job, deadlines, meanwhile))


def _set_ready(job: Job, collected: Collected, deadlines: Deadlines) -> None:
    from tinboot.guest import nvml

    verified = [gpu.uuid for gpu in collected.gpus]
    _attend(lambda attendance: nvml.set_ready(nvml.Nvml(attendance), verified), job, deadlines, lambda: None)


def _attend(work: Work, job: Job, deadlines: Deadlines, meanwhile: Callable[[], None]) -> object:
    seconds = deadlines.call + deadlines.call_each * job.gpus
    try:
        return attend(work, lambda name: seconds, seconds, meanwhile)
    except Overdue as overdue:
        raise Refusal("gpu-nvml-timeout", str(overdue)) from overdue
    except Broken as broken:
        raise Refusal("gpu-nvml-failed", f"the process that calls NVML: {broken}") from broken


def outcome(data: bytes, places: Places, deadlines: Deadlines, now: datetime) -> Outcome:
    """As `gate`, of the job as it came; whatever is wrong becomes the outcome."""
    try:
        return gate(gpugate.parse_job(data), places, deadlines, now)
    except Refusal as refusal:
        return Outcome((refusal.reason, refusal.detail), {}, {})
    except BaseException as error:  # a bug, which must not look like a verdict
        return Outcome(("gpu-gate-failed", f"{type(error).__name__}: {error}"), {}, {})


def main() -> None:
    """Called by the hook's process, which gives it a job on standard input when it has one."""
    os.set_inheritable(gpugate.DESCRIPTOR, False)  # the daemon stays
    given = b""
    while part := os.read(0, 1 << 16):
        given += part
    told = outcome(given, Places(), Deadlines(), datetime.now(UTC))
    data = memoryview(gpugate.pack_outcome(told))
    while data:
        data = data[os.write(gpugate.DESCRIPTOR, data) :]
