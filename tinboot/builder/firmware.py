"""Builds the firmware, ovmf/: AmdSev OVMF from pinned source, by a pinned compiler, to the bit.

The program ovmf/build does it, inside the tree of packages/firmware.lock, without a network. The result is
cached in `build/ovmf/firmware-<digest of its inputs>/` as OVMF.fd and firmware.json; the SHA-256 that it
must have stands in ovmf/OVMF.fd.sha256.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tinboot.builder import cache, mkosi, output, places
from tinboot.builder.mkosi import Report
from tinboot.builder.prepare import FirmwareKit
from tinboot.formats.errors import Malformed, Mismatch, Unavailable

#: What the build leaves in its working folder.
IMAGE = "OVMF.fd"

#: Firmware of other inputs that stays: 4 MiB for each state of ovmf/ that is worked on.
_KEPT = 4

#: Seconds of the whole build; it takes three minutes of two cores, ten of a busy one.
_DEADLINE = 3600.0

#: Until every process of a build is gone that was killed.
_ENDS = 10.0


@dataclass(frozen=True, slots=True)
class Conditions:
    """What may differ between two builds. `folder`: where the build believes to be, absolute."""

    folder: str
    jobs: int
    umask: int
    environment: Mapping[str, str]


def usual() -> Conditions:
    """Those of `tinboot firmware build`."""
    jobs = len(os.sched_getaffinity(0))
    return Conditions("/build", jobs, 0o022, {"LC_ALL": "C.UTF-8", "TZ": "UTC"})


@dataclass(frozen=True, slots=True)
class Built:
    """A finished firmware. `seconds`, `cpu_seconds`: what its build took, on whichever machine made it."""

    path: Path
    sha256: str
    seconds: float
    cpu_seconds: float


def inputs(repository: Path) -> str:
    """SHA-256 over names and bytes of all that reaches the firmware, in hex."""
    state = hashlib.sha256()
    tops = ("ovmf/build", "ovmf/patches", "ovmf/sources.lock", "mkosi.firmware", "packages/firmware.lock")
    for top in tops:
        path = repository / top
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            state.update(f"{file.relative_to(repository).as_posix()} {content}\n".encode())
    return state.hexdigest()


def pinned(repository: Path) -> str:
    """The SHA-256 in ovmf/OVMF.fd.sha256, a file as sha256sum writes it."""
    path = repository / "ovmf" / f"{IMAGE}.sha256"
    match = re.fullmatch(rf"([0-9a-f]{{64}})  {re.escape(IMAGE)}\n", path.read_text("utf-8"))
    if match is None:
        raise Malformed(f"{path.relative_to(repository)} is not one line of SHA-256, two spaces, {IMAGE}")
    return match[1]


def require_pinned(sha256: str, repository: Path) -> None:
    """Raises `Mismatch`: a firmware of another digest would give every guest another launch digest."""
    expected = pinned(repository)
    if sha256 != expected:
        raise Mismatch(
            f"the firmware built here has SHA-256 {sha256}, ovmf/{IMAGE}.sha256 pins {expected}",
            "after a change of ovmf/, mkosi.firmware/ or packages/firmware.lock: `tinboot firmware check`, "
            "then write the digest it prints into the pin",
        )


def build(repository: Path, kit: Callable[[], FirmwareKit], report: Report) -> Built:
    """The firmware of this checkout, from the cache if it is there; `kit` is called only if it is not.

    Raises `Unavailable` if the build fails, with the end of its output. The pin is not looked at.
    """
    folder = places.build_folder() / "ovmf"
    final = folder / f"firmware-{inputs(repository)[:16]}"
    with cache.alone(folder / ".firmware.lock", report):
        built = _cached(final)
        if built is None:
            prepared = kit()
            try:
                cache.prune(folder, "firmware", _KEPT - 1)
                shutil.rmtree(final, ignore_errors=True)
                built = _make(final, repository, prepared, report)
            except OSError as error:
                raise output.unavailable(error, folder) from error
        cache.used(final)
    return built


def _make(final: Path, repository: Path, kit: FirmwareKit, report: Report) -> Built:
    """`final` appears when everything is in it."""
    with output.scratch(final) as scratch:
        made = scratch / "made"
        made.mkdir()
        built = compile_into(made, repository, kit, usual(), final.with_name("firmware.log"), report)
        fields = {name: value for name, value in asdict(built).items() if name != "path"}
        (made / "firmware.json").write_text(json.dumps(fields) + "\n", "utf-8")
        made.replace(final)
    return replace(built, path=final / IMAGE)


def _cached(final: Path) -> Built | None:
    """None also where the file is not what the build left: it is made again."""
    try:
        fields = json.loads((final / "firmware.json").read_text("utf-8"))
        built = Built(final / IMAGE, **fields)
        return built if _sha256(built.path) == built.sha256 else None
    except (OSError, ValueError, TypeError):
        return None


def compile_into(
    target: Path, repository: Path, kit: FirmwareKit, conditions: Conditions, log: Path, report: Report
) -> Built:
    """Builds in memory or beside `target`, and moves the firmware into that folder."""
    began, before = time.monotonic(), _cpu_seconds()
    with mkosi.workspace(target) as work, log.open("wb") as file:
        command = _command(repository, kit, conditions, work)
        environment = mkosi.environment({**kit.mkosi.environment, **conditions.environment})
        status = _run(command, environment, conditions.umask, file.fileno(), log, report)
        made = work / IMAGE
        if status or not made.is_file():
            said = log.read_text("utf-8", "replace").splitlines()
            raise Unavailable(
                f"the firmware's build ended with status {status}:\n  " + "\n  ".join(said[-12:]),
                f"the whole log is {log}",
            )
        shutil.copyfile(made, target / IMAGE)
    path = target / IMAGE
    path.chmod(0o644)
    return Built(path, _sha256(path), round(time.monotonic() - began, 1), round(_cpu_seconds() - before, 1))


def _command(repository: Path, kit: FirmwareKit, conditions: Conditions, work: Path) -> list[str]:
    """A namespace of processes without a network, and in it mkosi's sandbox.

    Of the host only /proc, a few devices and the working folder are in sight.
    """
    orig, debian = _named(kit.sources, ".orig.tar.xz"), _named(kit.sources, ".debian.tar.xz")
    links = ("bin", "sbin", "lib", "lib64")
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return [
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *("unshare", *user, "--net", "--pid", "--fork", "--kill-child", "--"),
        *kit.mkosi.sandbox,
        *("--ro-bind", str(kit.tree / "usr"), "/usr", "--ro-bind", str(kit.tree / "etc"), "/etc"),
        *(word for name in links for word in ("--symlink", f"usr/{name}", f"/{name}")),
        *("--bind", "/proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"),  # noqa: S108 - of the sandbox
        *("--ro-bind", str(repository / "ovmf"), "/ovmf"),
        *("--ro-bind", str(orig), "/source", "--ro-bind", str(debian), "/debian"),
        *("--bind", str(work), conditions.folder, "--chdir", conditions.folder),
        *("--unsetenv", "PYTHONPATH", "--"),
        *("/ovmf/build", "/source", "/debian", "/ovmf/patches", conditions.folder, str(conditions.jobs)),
    ]


def _named(sources: tuple[Path, ...], suffix: str) -> Path:
    found = [path for path in sources if path.name.endswith(suffix)]
    if len(found) != 1:
        raise Malformed(f"ovmf/sources.lock has {len(found)} files *{suffix}, expected one")
    return found[0]


def _run(
    command: list[str], environment: dict[str, str], umask: int, log: int, path: Path, report: Report
) -> int:
    """The exit status; whatever ends this function early ends the whole build before it."""
    with (
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            umask=umask,
            process_group=0,
        ) as process,
        path.open("r", encoding="utf-8", errors="replace") as written,
    ):
        deadline = time.monotonic() + _DEADLINE
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
                for line in written:
                    if line.startswith("‣"):
                        report(line.removeprefix("‣").strip())
                if process.returncode is not None:
                    return process.returncode
                if time.monotonic() > deadline:
                    raise Unavailable(f"the firmware's build did not end within {_DEADLINE:g} s", str(path))
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kills the group, in which is the first process of the build's namespace; it is gone after all others.

    edk2's own programs leave the group. Of a build that has ended by itself nothing is there.
    """
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + _ENDS
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.02)


def _cpu_seconds() -> float:
    """Of all ended children and theirs, user and system."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
