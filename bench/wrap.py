"""`tinboot wrap` beside `mkfs.erofs` then `veritysetup format` on the same input, in one run.

Each command runs as a person would start it, in turn and in changing order, `--rounds` times; the table
has the best of each. Before each the disk is synced, and each must leave its bytes on the disk: what a
command does not sync itself is synced, and counted, after it. The input is in memory (read once
before). The default input is the real weights, repeated with every byte shifted until they fill --size.
"""

from __future__ import annotations

import argparse
import filecmp
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tinboot.builder import places
from tinboot.builder.output import sync
from tinboot.builder.tools import find_tool, tool, version
from tinboot.builder.wrap import uuid_for
from tinboot.formats.verity import salt_for

REPO = "bench/weights@1"
MIB = 1 << 20

ROWS = (
    "mkfs.erofs",
    "veritysetup format",
    "both, on the disk",
    "tinboot wrap",
    "limit: SHA-256, all CPUs",
    "limit: reading the input",
)


def make_input(folder: Path, size: int) -> None:
    """`size` bytes or a little more; no two blocks are alike."""
    weights = subprocess.run(
        [sys.executable, places.REPOSITORY / "qemu/weights.py"], check=True, capture_output=True, text=True
    ).stdout.strip()
    shutil.copytree(weights, folder)
    content = (folder / "model.safetensors").read_bytes()
    for shift in range(1, max(1, -(-size // len(content)))):
        shifted = content.translate(bytes((byte + shift) % 256 for byte in range(256)))
        (folder / f"model-{shift:05}.safetensors").write_bytes(shifted)


def read_all(paths: list[Path]) -> int:
    """Reads everything a MiB at a time, as dd does; returns the bytes read."""
    buffer = bytearray(MIB)
    total = 0
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while got := file.readinto(buffer):
                total += got
    return total


def hash_all(path: Path) -> None:
    """The limit: SHA-256 of the bytes in long runs, on all CPUs, writing nothing."""
    size, jobs = path.stat().st_size, len(os.sched_getaffinity(0))

    def part(number: int) -> None:
        state, buffer = hashlib.sha256(), bytearray(MIB)
        with path.open("rb", buffering=0) as file:
            file.seek(size * number // jobs)
            left = size * (number + 1) // jobs - file.tell()
            while left > 0 and (got := file.readinto(memoryview(buffer)[: min(MIB, left)])):
                state.update(memoryview(buffer)[:got])
                left -= got

    with ThreadPoolExecutor(jobs) as threads:
        list(threads.map(part, range(jobs)))


class Times:
    """Seconds of each step: the best and the median of all rounds."""

    def __init__(self) -> None:
        self.all: dict[str, list[float]] = {}

    def add(self, name: str, seconds: float) -> float:
        self.all.setdefault(name, []).append(seconds)
        return seconds

    def best(self, name: str) -> float:
        return min(self.all[name])

    def median(self, name: str) -> float:
        return sorted(self.all[name])[len(self.all[name]) // 2]


def timed(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def timed_sync(path: Path) -> float:
    began = time.perf_counter()
    sync(path)
    return time.perf_counter() - began


def run(source: Path, work: Path, rounds: int) -> Times:
    times = Times()
    ours, theirs = work / "ours.mpk", work / "theirs.mpk"
    salt, uuid = salt_for(REPO), uuid_for(REPO)
    mkfs = [*tool("mkfs.erofs"), "--quiet", "--all-root", "-T0", f"-U{uuid}", str(theirs), str(source)]
    verity = [*tool("veritysetup"), "format", f"--salt={salt}", f"--uuid={uuid}"]
    tinboot = [sys.executable, "-I", "-c", "from tinboot.cli.main import main; main()"]
    files = [path for path in source.rglob("*") if path.is_file()]

    def reference() -> None:
        both = times.add("mkfs.erofs", timed(mkfs))
        offset = theirs.stat().st_size
        step = timed([*verity, f"--hash-offset={offset}", str(theirs), str(theirs)])
        both += times.add("veritysetup format", step)
        times.add("both, on the disk", both + timed_sync(theirs))

    def candidate() -> None:
        step = timed([*tinboot, "wrap", str(source), "--repo", REPO, "-o", str(ours)])
        times.add("tinboot wrap", step + timed_sync(ours))

    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        for path in work.glob("*.mpk*"):
            path.unlink()
        read_all(files)
        for who in (reference, candidate) if number % 2 else (candidate, reference):
            os.sync()
            who()
        if not filecmp.cmp(ours, theirs, shallow=False):
            sys.exit("error: the two volumes differ")
        began = time.perf_counter()
        hash_all(ours)
        times.add("limit: SHA-256, all CPUs", time.perf_counter() - began)
        began = time.perf_counter()
        read_all(files)
        times.add("limit: reading the input", time.perf_counter() - began)
    return times


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--size", type=int, default=1024, metavar="MIB", help="of the input (default 1024)")
    options.add_argument(
        "--source", type=Path, help="a directory to wrap instead; modes must be 0644 and 0755"
    )
    options.add_argument("--rounds", type=int, default=5)
    given = options.parse_args()
    base = places.build_folder() / "bench"
    base.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=base, prefix="wrap-") as folder:
        source = given.source or Path(folder) / "input"
        if not given.source:
            make_input(source, given.size * MIB)
        size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
        times = run(source, Path(folder), given.rounds)
    names = {name: version(find_tool(name)) for name in ("mkfs.erofs", "veritysetup")}
    print(
        f"tinboot wrap: {size / MIB:.0f} MiB, {len(os.sched_getaffinity(0))} CPUs, best of {given.rounds}, ",
        end="",
    )
    print(", ".join(" ".join(pair) for pair in names.items()))
    reference = times.best("both, on the disk")
    print(f"{'':26} {'best s':>8} {'median s':>9} {'MiB/s':>7} {'of both':>8}")
    for name in ROWS:
        best = times.best(name)
        row = f"{best:8.2f} {times.median(name):9.2f} {size / MIB / best:7.0f} {best / reference:8.2f}"
        print(f"{name:26} {row}")
    ratio = times.best("tinboot wrap") / reference
    held = ratio <= 1
    print(f"wrap takes {ratio:.2f} of the two tools' time; the limit is 1.00: {'held' if held else 'MISSED'}")
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
