"""What the GPU gate adds to a boot, under emulation and with stub GPUs: by the guest's own clock.

Each row is a boot of its own, so that every file is read through dm-verity for the first time:

    libraries  a program of the root that imports what any gate needs, pynvml and P-384, and ends
    N GPUs     hook 40-gpu as it says of itself. Beside it, from another boot whose gate has imported all
               before it begins: `driver`, what passes in the daemon and in NVML, and `verify`
    unemulated the same gate as a process of this machine, from its start to its end, files cached

On hardware the driver takes seconds for each GPU (4 to 7 have been seen).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("qemu", "tests/support")]

import compiled
import gate_driver
import stub_gpu_files
import testcpio
from arguments import Disk, arguments
from gpu import Gpus
from gpu_faults import good
from hostile_disks import config_disk
from machine import Machine
from serial_log import Outcome

from tinboot.builder import archive, image, places, prepare, recipe
from tinboot.formats import bootlog, cmdline, configdisk, gpugate
from tinboot.formats.bootlog import Passed
from tinboot.formats.errors import Unavailable
from tinboot.formats.verity import serial_for

#: Milliseconds that the gate may add beyond the driver's own time.
LIMIT = 500
#: Row -> GPUs, and vCPUs: of the least machine, and of the least that anybody gives a GPU.
ROWS = {"1 GPU": (1, 1), "2 GPUs": (2, 1), "8 GPUs": (8, 1), "2 GPUs, 2 vCPUs": (2, 2)}
EXTRA = "39-bench"

#: In a boot of its own: only what every gate needs; or all of the gate, before it begins.
LIBRARIES = """
def run(state):
    from stage import rootprogram
    real = rootprogram.load
    def load(module):
        rootprogram.leave()
        import pynvml
        from cryptography.hazmat.primitives.asymmetric import ec
        return lambda: None
    rootprogram.load = load
    with rootprogram.Program(state.kernel, state.places, "") as program:
        program.ask(b"", 60, 1)
    rootprogram.load = real
    return {}
"""
IMPORTED = """
def run(state):
    from stage import rootprogram
    real = rootprogram.load
    def load(module):
        main = real(module)
        import tinboot.guest.gpu_verdict, tinboot.guest.nvml
        return main
    rootprogram.load = load
    return {}
"""


def hooks(built: image.Image, gpus: int, folder: Path, cpus: int = 1, extra: str = "") -> dict[str, Passed]:
    """What each hook of one boot said; `extra` is one more, before the gate."""
    config = f"cpus: {cpus}\nmemory: 1024\ngpus: {gpus}\n".encode()
    line = cmdline.render(cmdline.CommandLine(sha256(config).hexdigest(), *built.verity))
    disks = [
        Disk(config_disk(config, folder), configdisk.SERIAL),
        Disk(built.folder / "root", serial_for(built.verity.root_hash)),
    ]
    log, initrd = folder / "boot.log", folder / "initrd"
    log.unlink(missing_ok=True)
    with Gpus(good(gpus)) as stubs:
        known = stub_gpu_files.known(datetime.now(UTC))
        files = [
            *stub_gpu_files.entries(stubs.faults, known),
            *([testcpio.hook(EXTRA, extra)] if extra else []),
        ]
        initrd.write_bytes(testcpio.append((built.folder / "initrd").read_bytes(), files))
        listed = arguments(built.folder / "kernel", initrd, line, disks, smp=cpus)
        with Machine([*listed, *stubs.arguments], log=log) as machine:
            event = machine.wait(300, marker=bootlog.HANDOVER_PREFIX)
    if event.outcome is not Outcome.MARKER:
        raise Unavailable(f"no hand-over: {event}")
    lines = log.read_text(errors="replace").splitlines()
    passed = [bootlog.parse_passed(text) for text in lines if text.startswith(bootlog.PASSED_PREFIX)]
    return {one.hook: one for one in passed}


def stages(gate: Passed) -> tuple[int, int]:
    """Milliseconds in the daemon and in NVML, and of the verification; with all imported before."""
    ms = gate.found["ms"]
    assert isinstance(ms, dict)
    return sum(ms[name] for name in ("daemon", "evidence", "ready")), ms["verification"]


def unemulated(gpus: int, folder: Path, before: str = "") -> Passed:
    """The gate on this machine, as a hook would have told of it. `before`: what is imported by then."""
    now = datetime.now(UTC)
    stub_gpu_files.write(stub_gpu_files.known(now), folder / "gpu")
    (folder / "nodes").mkdir(exist_ok=True)
    (folder / "devices").write_text("Character devices:\n")
    (folder / "python").write_text(sys.executable)
    daemon = folder / "nvidia-persistenced"
    daemon.write_text(f"#!/bin/sh\necho {os.getpid()} > {folder}/daemon.pid\n")
    daemon.chmod(0o755)
    job = gpugate.pack_job(gpugate.Job(gpus, "hopper", ("native",), "relying-party", ""))
    with Gpus(good(gpus)) as stubs:
        environment = {"LD_LIBRARY_PATH": str(compiled.nvml().parent), "TINBOOT_STUB_GPU": stubs.path}
        program = f"{before}\nimport runpy\nrunpy.run_path({gate_driver.__file__!r}, run_name='__main__')"
        words = [sys.executable, "-Bc", program, str(folder), now.isoformat(), "20", "20"]
        began = time.monotonic()
        done = subprocess.run(words, input=job, capture_output=True, check=True, env=environment)
        seconds = time.monotonic() - began
    outcome = gpugate.parse_outcome(done.stdout)
    if outcome.refused:
        raise Unavailable(f"the gate refused good GPUs: {outcome.refused}")
    return Passed("40-gpu", round(seconds * 1000), outcome.found)


def main() -> None:
    """Prints the table; runs alternate, so that a busy minute hits all alike."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="boots of each (default 3)")
    runs = parser.parse_args().runs
    wanted = recipe.this_checkout(archive.distribution_of_machine(), "release")
    chain = prepare.toolchain(wanted.distribution, lambda _: None, lambda *_: None)
    built = image.build(wanted, chain, places.build_folder() / "images", lambda _: None)
    libraries: list[int] = []
    times: dict[str, list[tuple[int, int, int]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for _ in range(runs):
            libraries.append(hooks(built, 1, folder, extra=LIBRARIES)[EXTRA].ms)
            for row, (gpus, cpus) in ROWS.items():
                whole = hooks(built, gpus, folder, cpus)["40-gpu"].ms
                imported = hooks(built, gpus, folder, cpus, IMPORTED)["40-gpu"]
                times.setdefault(row, []).append((whole, *stages(imported)))
            whole = unemulated(2, folder).ms
            imported = unemulated(2, folder, "import tinboot.guest.gpu_verdict, tinboot.guest.nvml")
            times.setdefault("2 GPUs, unemulated", []).append((whole, *stages(imported)))
    print(f"\nThe gate's time in a boot, stub GPUs, emulated, ms; the best of {runs} boots each")
    print(f"{'':20}{'hook':>6}{'driver':>8}{'verify':>8}{'beyond the driver':>19}{'limit':>7}")
    print(f"{'libraries':20}{min(libraries):6}")
    for row, measured in times.items():
        whole, driver, verify = (min(column) for column in zip(*measured, strict=True))
        print(f"{row:20}{whole:6}{driver:8}{verify:8}{whole - driver:19}{LIMIT:7}")


if __name__ == "__main__":
    main()
