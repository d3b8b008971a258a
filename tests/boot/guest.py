"""A machine before its boot: what a test replaces in it is all that is not the production's."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import forwarding
import measured_boot
import stub_files
import stub_gpu_files
import testcpio
from arguments import Disk, arguments
from boot import BootResult, boot
from gpu import Gpus
from gpu_faults import Faults
from hostile_disks import config_disk
from machine import Machine
from psp import GOOD, Behaviour, Psp
from serial_log import Outcome
from vfio_user_h100 import can_be_shown

from tinboot.builder import image, wrap
from tinboot.builder.weights_source import scan
from tinboot.formats import bootlog, cmdline, cpio
from tinboot.formats.cmdline import CommandLine
from tinboot.formats.configdisk import SERIAL
from tinboot.formats.verity import Verity, VolumeRef, serial_for
from tinboot.host.launch import HARNESS_CPU

#: What the last hook prints as it leaves the initrd (tinboot/formats/bootlog.py).
HANDOVER = bootlog.HANDOVER_PREFIX


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A small volume: as the config names it, and its file."""

    name: str
    repo: str
    ref: VolumeRef
    path: Path

    @property
    def disk(self) -> Disk:
        return Disk(self.path, serial_for(self.ref.root_hash))


@dataclass(frozen=True, slots=True)
class Guest:
    """One machine before its boot. Tests replace what they are about; `boot` starts it."""

    image: image.Image
    config: bytes
    line: CommandLine
    config_disk: Disk
    root: Disk
    volumes: tuple[Wrapped, ...]
    log_dir: Path
    extra_files: tuple[cpio.Entry, ...] = ()
    #: The production firmware; None for QEMU's own loader, which starts any kernel and is quicker.
    firmware: Path | None = None
    #: How its stub PSP answers, and through which interface. None: it has no PSP, no stub in its initrd.
    behaviour: Behaviour | None = GOOD
    interface: stub_files.Kind = "cuse"
    #: Its stub GPUs, and what its image knows of GPUs (stub_gpu_files.known). None: it has no GPU.
    gpus: Gpus | None = None
    known: stub_gpu_files.Known = field(default_factory=dict)
    #: In the place of the stubs' library and daemon.
    gpu_files: Mapping[str, bytes] = field(default_factory=dict)
    #: Its TCP ports that are reached from here (forwarding.port). None: it has no network device.
    ports: tuple[int, ...] = ()

    @property
    def cmdline(self) -> str:
        """The production command line."""
        return cmdline.render(self.line)

    @property
    def disks(self) -> list[Disk]:
        """In the launcher's order."""
        return [self.config_disk, self.root, *(volume.disk for volume in self.volumes)]

    def initrd(self) -> Path:
        """The production initrd; in a second archive behind it `extra_files` and the stubs, if any."""
        production = self.image.folder / "initrd"
        files = list(self.extra_files)
        if self.gpus is not None:
            files = [*self._gpu_entries(self.gpus.faults), *files]
        if self.behaviour is not None:
            files += stub_files.entries(self.interface)
        if not files:
            return production
        made = self.log_dir / "initrd"
        made.write_bytes(testcpio.append(production.read_bytes(), files))
        return made

    def _gpu_entries(self, faults: Faults) -> tuple[cpio.Entry, ...]:
        library, daemon = self.gpu_files.get("library"), self.gpu_files.get("persistenced")
        made_up = not can_be_shown()
        return stub_gpu_files.entries(
            faults, self.known, on_bus=made_up, library=library, persistenced=daemon
        )

    @contextmanager
    def _gpu_arguments(self) -> Iterator[list[str]]:
        """QEMU's, for the ports of its GPUs and what it can show of them on the bus."""
        if self.gpus is None:
            yield []
            return
        with stub_gpu_files.shown(self.gpus.faults) as functions:
            yield [*self.gpus.arguments, *functions.arguments]

    def boot(
        self,
        line: str | None = None,
        disks: Sequence[Disk] | None = None,
        *,
        memory: int = 1024,
        cpu: str = HARNESS_CPU,
        marker: str | None = None,
        deadline: float = 180,
        extra: Sequence[str] = (),
    ) -> BootResult:
        """Boots with the production command line and disks, or with others in their place."""
        with self._psp() as psp, self._gpu_arguments() as listed:
            return boot(
                self.image.folder / "kernel",
                self.initrd(),
                self.cmdline if line is None else line,
                self.disks if disks is None else disks,
                log_dir=self.log_dir,
                memory=memory,
                cpu=cpu,
                marker=marker,
                deadline=deadline,
                extra=[*extra, *listed, *self._network()],
                under=self.firmware,
                psp=psp,
            )

    def hands_over(
        self, line: str | None = None, disks: Sequence[Disk] | None = None, *, extra: Sequence[str] = ()
    ) -> BootResult:
        """Boots until the last hook makes the verified root /, and asserts that it comes to that."""
        bare = replace(self, behaviour=None)  # no report is asked for so early
        result = bare.boot(line, disks, marker=HANDOVER, extra=extra)
        assert result.outcome is Outcome.MARKER, result.describe()
        assert result.halt is None, result.describe()
        return result

    @contextmanager
    def machine(
        self, disks: Sequence[Disk] | None = None, *, extra: Sequence[str] = (), psp: Psp | None = None
    ) -> Iterator[Machine]:
        """The same for a boot in steps. `psp`: one whose behaviour the test changes meanwhile."""
        listed = arguments(
            self.image.folder / "kernel",
            self.initrd(),
            self.cmdline,
            self.disks if disks is None else disks,
        )
        listed += [*extra, *self._network()]
        if self.firmware is not None:
            table = measured_boot.hashes(listed)
            listed = measured_boot.under(listed, self.firmware, self.log_dir, table)
        given = self._psp() if psp is None else nullcontext(psp)
        with given as asked, self._gpu_arguments() as more:
            listed += more
            if asked is not None:
                listed += asked.arguments if self.firmware is None else [*asked.arguments, "-S"]
            with Machine(listed, log=self.log_dir / "boot.log") as machine:
                if asked is not None and self.firmware is not None:
                    asked.start(machine, self.firmware)
                yield machine

    def _network(self) -> list[str]:
        return forwarding.arguments(*self.ports) if self.ports else []

    def _psp(self) -> Psp | nullcontext[None]:
        return nullcontext() if self.behaviour is None else Psp(self.behaviour)

    def with_config(self, config: bytes, folder: Path) -> Guest:
        """Another config, attested: its hash is on the command line."""
        digest = hashlib.sha256(config).hexdigest()
        disk = Disk(config_disk(config, folder), SERIAL)
        return replace(self, config=config, line=self.line._replace(config_hash=digest), config_disk=disk)

    def with_service(self, folder: Path, *lines: str) -> Guest:
        """A config with a `shim`, its further `lines`, and the volumes; a machine with a network device."""
        shim = "\n".join(("shim:", "  upstream-port: 8080", *(f"  {line}" for line in lines), ""))
        asking = self.with_config(make_config(self.volumes) + shim.encode(), folder)
        return replace(asking, ports=(443,))

    def with_gpus(self, gpus: Gpus, known: stub_gpu_files.Known, folder: Path, *lines: str) -> Guest:
        """A config that asks for two GPUs, with further `lines`; a machine that has these."""
        asking = self.with_config(make_config(self.volumes, "gpus: 2", *lines), folder)
        return replace(asking, gpus=gpus, known=known)

    def with_root(self, path: Path) -> Guest:
        """Another file as the root's disk, under the serial that the command line asks for."""
        return replace(self, root=Disk(path, self.root.serial))

    def with_hook(self, name: str, source: str) -> Guest:
        """One hook more, or another in its place."""
        return replace(self, extra_files=(*self.extra_files, testcpio.hook(name, source)))


def make_volume(folder: Path, name: str, repo: str, *, seed: int) -> Wrapped:
    """A volume of one file of 1.2 MB, random but the same for each seed."""
    source = folder / "model"
    source.mkdir()
    (source / "weights").write_bytes(random.Random(seed).randbytes(1_200_000))
    (source / "config.json").write_text(f'{{"model_type": "{name}"}}')
    path = folder / f"{name}.mpk"
    made = wrap.wrap(scan(source), repo, path)
    return Wrapped(name, repo, made.ref, path)


def make_guest(built: image.Image, volumes: tuple[Wrapped, ...], logs: Path, disks: Path) -> Guest:
    config = make_config(volumes)
    opened: Verity = built.verity
    line = CommandLine(hashlib.sha256(config).hexdigest(), *opened)
    root = Disk(built.folder / "root", serial_for(opened.root_hash))
    return Guest(built, config, line, Disk(config_disk(config, disks), SERIAL), root, volumes, logs)


def make_config(volumes: Sequence[Wrapped], *more: str) -> bytes:
    """A config for these volumes; `more` are further lines."""
    lines = ["cvm-version: 0.1.0", "cpus: 1", "memory: 1024", *more]
    if volumes:
        lines.append("models:")
    for volume in volumes:
        lines += [f"  - name: {volume.name}", f"    repo: {volume.repo}", f"    mpk: {volume.ref}"]
    return ("\n".join(lines) + "\n").encode()
