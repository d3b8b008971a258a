"""From QEMU's start to the mounted root: our initrd beside a busybox one and mkosi's own.

One run, the same kernel, root bytes and QEMU arguments. Each is booted twice a run: for the CPU seconds that
QEMU takes, and for the number of instructions that it executes (`-icount`, QMP query-replay), which other
work on the machine does not change. The markers:

    ours       the line of hook 20-root: read, verified, opened, mounted
    systemd    bench-mounted.service, ordered after sysroot.mount, verity by systemd-veritysetup
    busybox    `echo` after a mount of the same EROFS without any verity
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "qemu"))

import peers
from arguments import COUNT_INSTRUCTIONS, Disk, arguments
from hostile_disks import config_disk
from machine import Machine
from serial_log import Outcome

from tinboot.builder import archive, image, places, prepare, recipe
from tinboot.formats import cmdline, configdisk
from tinboot.formats.errors import Unavailable
from tinboot.formats.verity import BLOCK, serial_for

CONFIG = b"cpus: 1\nmemory: 1024\n"
OURS = 'tinboot-hook {"hook":"20-root"'

#: What our command line has and theirs have not: no tests of the kernel's own cryptography (docs/adr/0005).
OUR_SETTING = " cryptomgr.notests=1"

#: What ours may take at most of each, in CPU seconds.
LIMITS = {"systemd": 0.2, "busybox": 1.35}


@dataclass(frozen=True, slots=True)
class Contender:
    """What is booted, and the line that says that the root is mounted."""

    name: str
    initrd: Path
    cmdline: str
    disks: tuple[Disk, ...]
    marker: str


def contenders(folder: Path) -> Iterator[Contender]:
    """All of them, with the files they need in `folder`."""
    wanted = recipe.this_checkout(archive.distribution_of_machine(), "release")
    chain = prepare.toolchain(wanted.distribution, lambda _: None, lambda *_: None)
    built = image.build(wanted, chain, places.build_folder() / "images", lambda _: None)
    root = Disk(built.folder / "root", serial_for(built.verity.root_hash))
    line = cmdline.render(cmdline.CommandLine(hashlib.sha256(CONFIG).hexdigest(), *built.verity))
    config = Disk(config_disk(CONFIG, folder), configdisk.SERIAL)
    ours = built.folder / "initrd"
    yield Contender("ours", ours, line, (config, root), OURS)

    common = "console=ttyS0 quiet panic=-1"
    program = Path("/bin/busybox").read_bytes()
    found = peers.entries(ours.read_bytes())
    for name, hurried, more in (("busybox", False, ""), ("busybox, our settings", True, OUR_SETTING)):
        bare = folder / name.replace(", ", "-").replace(" ", "-")
        bare.write_bytes(peers.busybox_initrd(program, found, hurried=hurried))
        yield Contender(name, bare, common + more, (root,), peers.MOUNTED)

    tree = folder / "tree"  # systemd-veritysetup wants a hash device whose superblock comes first
    tree.write_bytes((built.folder / "root").read_bytes()[built.verity.blocks * BLOCK :])
    made = peers.make(built, chain, wanted.lock(), lambda step: print(step, file=sys.stderr))
    verity = (
        f"{common} root=/dev/mapper/root rootfstype=erofs ro roothash={built.verity.root_hash} "
        "systemd.verity_root_data=/dev/vda systemd.verity_root_hash=/dev/vdb"
    )
    yield Contender("systemd", made.systemd, verity, (root, Disk(tree)), peers.MOUNTED)
    yield Contender("systemd, with Python", made.python, verity, (root, Disk(tree)), peers.MOUNTED)


def measure(contender: Contender, kernel: Path, folder: Path, *, counted: bool) -> float:
    """Until the marker: thousand million instructions if `counted`, else CPU seconds of QEMU."""
    listed = arguments(kernel, contender.initrd, contender.cmdline, contender.disks)
    log = folder / "boot.log"
    log.unlink(missing_ok=True)
    with Machine([*listed, *(COUNT_INSTRUCTIONS if counted else ())], log=log) as machine:
        event = machine.wait(900, marker=contender.marker)
        if event.outcome is not Outcome.MARKER:
            raise Unavailable(f"{contender.name} did not mount its root: {event}\n{log.read_text()[-3000:]}")
        if not counted:
            return event.cpu_seconds
        machine.execute("stop")
        replay = machine.execute("query-replay")
        assert isinstance(replay, dict)  # a ReplayInfo, QEMU's qapi/replay.json
        return float(replay["icount"]) / 1e9


def main() -> None:
    """Prints the table; runs alternate, so that a busy minute hits all alike."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="boots of each (default 3)")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as name:
        listed = list(contenders(Path(name)))
        kernel = listed[0].disks[1].path.parent / "kernel"
        taken: dict[tuple[str, bool], list[float]] = {}
        for _ in range(runs):
            for contender in listed:
                for counted in (False, True):
                    value = measure(contender, kernel, Path(name), counted=counted)
                    taken.setdefault((contender.name, counted), []).append(value)
        best = {which: min(values) for which, values in taken.items()}
        print(f"\nQEMU's start to the root mounted, best of {runs} runs each; limits are of CPU seconds")
        print(
            f"{'':22}{'CPU s':>7}{'ours is':>8}{'limit':>6}"
            f"{'10^9 instr.':>12}{'ours is':>8}{'initrd':>10}{'files':>6}"
        )
        for contender in listed:
            which, size = contender.name, contender.initrd.stat().st_size / 1e6
            count = peers.files(contender.initrd.read_bytes())
            limit = f"{LIMITS[which]:.2f}" if which in LIMITS else ""
            seconds, instructions = best[which, False], best[which, True]
            print(
                f"{which:22}{seconds:7.2f}{best['ours', False] / seconds:8.2f}{limit:>6}"
                f"{instructions:12.2f}{best['ours', True] / instructions:8.2f}{size:7.2f} MB{count:6}"
            )


if __name__ == "__main__":
    main()
