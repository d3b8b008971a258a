"""What the GPU gate adds to a boot, under emulation and with stub GPUs: by the guest's own clock.

Each row is a boot of its own, so that every file is read through dm-verity for the first time:

    bare       a chrooted interpreter of the root that imports what any gate needs: pynvml, P-384
    N GPUs     hook 40-gpu as it says of itself; `driver` is what passes in the daemon and in NVML
    unemulated the same gate as a process of this machine, from its start to its end, files cached

On hardware the driver takes seconds for each GPU (4 to 7 have been seen).
"""

from __future__ import annotations

import argparse
import json
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
COUNTS = (1, 2, 8)
BARE = "39-bare"

_IMPORTS = "import pynvml; from cryptography.hazmat.primitives.asymmetric import ec"
_HOOK = f"""
def run(state):
    from stage import rootprogram
    words = ("/usr/bin/python3", "-IBc", "{_IMPORTS}")
    rootprogram.run(state.kernel, state.places, words, b"", 60, 1)
    return {{}}
"""


def hooks(built: image.Image, gpus: int, folder: Path, *, bare: bool) -> dict[str, Passed]:
    """What each hook of one boot said."""
    config = f"cpus: 1\nmemory: 1024\ngpus: {gpus}\n".encode()
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
            *([testcpio.hook(BARE, _HOOK)] if bare else []),
        ]
        initrd.write_bytes(testcpio.append((built.folder / "initrd").read_bytes(), files))
        listed = arguments(built.folder / "kernel", initrd, line, disks)
        with Machine([*listed, *stubs.arguments], log=log) as machine:
            event = machine.wait(300, marker=bootlog.HANDOVER_PREFIX)
    if event.outcome is not Outcome.MARKER:
        raise Unavailable(f"no hand-over: {event}")
    lines = log.read_text(errors="replace").splitlines()
    passed = [bootlog.parse_passed(text) for text in lines if text.startswith(bootlog.PASSED_PREFIX)]
    return {one.hook: one for one in passed}


def driver(gate: Passed) -> int:
    """Milliseconds in the daemon and in NVML."""
    ms = gate.found["ms"]
    assert isinstance(ms, dict)
    return sum(ms[name] for name in ("daemon", "evidence", "ready"))


def unemulated(gpus: int, folder: Path) -> Passed:
    """The gate on this machine, as a hook would have told of it."""
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
        words = [sys.executable, "-B", gate_driver.__file__, str(folder), now.isoformat(), "20", "20"]
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
    bare: list[int] = []
    gates: dict[str, list[Passed]] = {}
    with tempfile.TemporaryDirectory() as name:
        for _ in range(runs):
            bare.append(hooks(built, 1, Path(name), bare=True)[BARE].ms)
            for count in COUNTS:
                row = "1 GPU" if count == 1 else f"{count} GPUs"
                gates.setdefault(row, []).append(hooks(built, count, Path(name), bare=False)["40-gpu"])
            gates.setdefault("unemulated, 2", []).append(unemulated(2, Path(name)))
    print(f"\nThe gate's time in a boot, stub GPUs, emulated, ms; the best of {runs} boots each")
    print(f"{'':14}{'hook':>6}{'driver':>8}{'verify':>8}{'rest':>6}{'beyond the driver':>19}{'limit':>7}")
    print(f"{'bare':14}{min(bare):6}")
    for row, listed in gates.items():
        best = min(listed, key=lambda gate: gate.ms - driver(gate))
        ms = json.loads(json.dumps(best.found["ms"]))
        own = best.ms - driver(best)
        rest = own - ms["verification"]
        print(f"{row:14}{best.ms:6}{driver(best):8}{ms['verification']:8}{rest:6}{own:19}{LIMIT:7}")


if __name__ == "__main__":
    main()
