"""From QEMU's start to the first answer over TLS: our allow-list of units beside the distribution's own.

The second root is made from the same recipe and packages, less the inventory: every unit, generator and
helper that the packages bring stays, but for the services of HAProxy, Podman and NVIDIA, which only cost
more. Its default target is the distribution's, which then wants tinboot.target. Kernel, initrd, config and
the services of tinboot are the same.

    handover   the last line of the initrd
    report     the boot's report is on the console
    up         tinboot-up: everything has started
    answer     the v2 document came over TLS

CPU seconds are QEMU's, so that other work on this machine counts less; runs alternate, the table has the best
of each. Below it, where our own time goes, by the guest's clock.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("qemu", "tests/support")]

import forwarding
import stub_files
import testcpio
from arguments import Disk, arguments
from hostile_disks import config_disk
from machine import Machine
from psp import GOOD, Psp
from serial_log import Outcome

from tinboot.builder import archive, image, places, prepare, recipe
from tinboot.formats import bootlog, bootreport, cmdline, configdisk
from tinboot.formats.errors import Unavailable
from tinboot.formats.verity import serial_for

#: Of the distribution's CPU seconds from the hand-over to the answer.
LIMIT = 0.6

CONFIG = b'cpus: 1\nmemory: 1024\nshim:\n  upstream-port: 8080\n  paths: ["/*"]\n'
STAGES = ("handover", "report", "up", "answer")
DOCUMENT = "/.well-known/tinfoil-attestation"
BOOT_STAGES = "/.well-known/tinfoil-boot-stages"

_PREFIXES = {"handover": bootlog.HANDOVER_PREFIX, "report": bootreport.PREFIX, "up": "tinboot-up "}
_UNITS = "mkosi.images/root/mkosi.extra/usr/lib/systemd/system"
_FINALIZE = "mkosi.images/root/mkosi.finalize"
_OTHERS = "haproxy|podman|netavark|nvidia"

Times = dict[str, tuple[float, float]]  # stage -> seconds, CPU seconds


def stock(folder: Path) -> recipe.Recipe:
    """This checkout's recipe in `folder`, its root with everything that the packages bring."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=places.REPOSITORY, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.rstrip("\0").split("\0"):
        source = places.REPOSITORY / name
        if source.exists() and not name.startswith(("tests/", "docs/", "bench/")):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    finalize = folder / _FINALIZE
    lines = finalize.read_text().splitlines(keepends=True)
    (inventory,) = (at for at, line in enumerate(lines) if "tinboot.builder.inventory" in line)
    lines[inventory] = (
        f"find \"$BUILDROOT/etc/systemd/system\" -type l | grep -E '/({_OTHERS})' | xargs -r rm\n"
    )
    finalize.write_text("".join(lines))
    (folder / _UNITS / "default.target").unlink()
    wants = folder / _UNITS / "multi-user.target.wants"
    wants.mkdir()
    (wants / "tinboot.target").symlink_to("../tinboot.target")
    return recipe.Recipe(folder, archive.distribution_of_machine(), "release")


def boot(built: image.Image, folder: Path) -> tuple[Times, dict[str, float]]:
    """One boot to its first answer; and its own stages, name to milliseconds."""
    line = cmdline.render(cmdline.CommandLine(sha256(CONFIG).hexdigest(), *built.verity))
    disks = [
        Disk(config_disk(CONFIG, folder), configdisk.SERIAL),
        Disk(built.folder / "root", serial_for(built.verity.root_hash)),
    ]
    initrd = folder / "initrd"
    initrd.write_bytes(testcpio.append((built.folder / "initrd").read_bytes(), stub_files.entries("cuse")))
    times: Times = {}
    clock: list[Callable[[], tuple[float, float]]] = []

    def note(text: str) -> None:
        for stage, prefix in _PREFIXES.items():
            if text.startswith(prefix):
                times.setdefault(stage, clock[0]())

    with Psp(GOOD) as psp:
        listed = arguments(built.folder / "kernel", initrd, line, disks)
        listed += [*forwarding.arguments(443), *psp.arguments]
        with Machine(listed, log=folder / "boot.log", on_line=note) as machine:

            def now() -> tuple[float, float]:
                event = machine.now(Outcome.MARKER, "")
                return event.seconds, event.cpu_seconds

            clock.append(now)
            event = machine.wait(300)
            if event.outcome is not Outcome.UP:
                raise Unavailable(f"it did not come up: {event}")
            port = forwarding.port(machine, 443)
            get(port, DOCUMENT)
            times["answer"] = now()
            told = json.loads(get(port, BOOT_STAGES))
    return times, {stage["name"]: stage["duration_ns"] / 1e6 for stage in told["stages"]}


def get(port: int, path: str) -> bytes:
    """The body of a 200, or an error."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=context)
    try:
        connection.request("GET", path)
        answered = connection.getresponse()
        body = answered.read()
    finally:
        connection.close()
    if answered.status != 200:
        raise Unavailable(f"{path} answers {answered.status}")
    return body


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="boots of each (default 3)")
    runs = parser.parse_args().runs
    ours = recipe.this_checkout(archive.distribution_of_machine(), "release")
    chain = prepare.toolchain(ours.distribution, lambda _: None, lambda *_: None)
    with tempfile.TemporaryDirectory(prefix="tinboot-ready-") as name:
        folder = Path(name)
        (folder / "checkout").mkdir()
        theirs = stock(folder / "checkout")
        roots = {
            "ours": image.build(ours, chain, places.build_folder() / "images", lambda _: None),
            "stock units": image.build(theirs, chain, folder / "images", lambda _: None),
        }
        measured: dict[str, list[Times]] = {row: [] for row in roots}
        own: dict[str, float] = {}
        for _ in range(runs):
            for row, built in roots.items():
                (folder / row.split()[0]).mkdir(exist_ok=True)
                times, told = boot(built, folder / row.split()[0])
                measured[row].append(times)
                own = told if row == "ours" and not own else own
    print(f"\nFrom QEMU's start, emulated, one vCPU: s and CPU s, the best of {runs} boots each")
    print(f"{'':12}" + "".join(f"{stage:>16}" for stage in STAGES) + f"{'after hand-over':>18}")
    after: dict[str, float] = {}
    for row, found in measured.items():
        best = {stage: min((times[stage] for times in found), key=lambda pair: pair[1]) for stage in STAGES}
        after[row] = min(times["answer"][1] - times["handover"][1] for times in found)
        cells = "".join(f"{seconds:8.1f}{cpu:8.2f}" for seconds, cpu in best.values())
        print(f"{row:12}{cells}{after[row]:18.2f}")
    print(
        f"ours / stock units, CPU s after the hand-over: {after['ours'] / after['stock units']:.2f}", end=""
    )
    print(f", limit {LIMIT}")
    print("\nStages of one boot of ours, by the guest's clock, ms")
    for stage, ms in own.items():
        print(f"{stage:24}{ms:8.0f}")


if __name__ == "__main__":
    main()
