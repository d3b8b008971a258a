"""Builds an image twice under conditions that should not matter, to see that they do not.

Each build runs in a process of its own, from a copy of the checkout, in namespaces of its own. They
differ in path, umask, locale, time zone, host name, user, number of CPUs, in what was left in the checkout,
and in the time of day, which nobody sets: the second begins when the first has ended. Each says what it
saw, so that a condition that could not be had is not taken for one.
"""

from __future__ import annotations

import datetime
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tinboot.builder import gpu_reference, image, mkosi, recipe, stopping
from tinboot.builder.mkosi import Mkosi, Report
from tinboot.builder.prepare import Toolchain
from tinboot.formats.errors import TinbootError, Unavailable

#: A user that exists only in the mount namespace of the build, with ids far from those in use.
_USER, _USER_ID, _SUBORDINATE = "tinboot-rebuild", 61234, 1_000_000_000

#: Seconds that a build has to take its own mkosi down with it.
_ENDS = 40.0


@dataclass(frozen=True, slots=True)
class Conditions:
    """`folder` is relative to the scratch space; `user` None is the caller, `cpus` None all there are.

    `leftover`: the checkout has been worked in, so interpreters left their files there.
    """

    folder: str
    umask: int
    locale: str
    zone: str
    host: str
    cpus: int | None
    user: str | None
    leftover: bool


PLAIN = Conditions("a", 0o022, "C.UTF-8", "UTC", "builder", None, None, False)
OTHER = Conditions(
    "another/and/much/longer/path", 0o077, "de_DE.UTF-8", "Asia/Tokyo", "elsewhere", 1, _USER, True
)

_LEFTOVERS = shutil.ignore_patterns("__pycache__")

#: In the repository, what a copy needs to build an image.
_COPIED = (
    "initrd-hooks",
    "mkosi.conf",
    "mkosi.conf.d",
    "mkosi.images",
    "packages",
    "tinboot",
)


@dataclass(frozen=True, slots=True)
class Built:
    """An image, and the conditions as its build saw them: name to value."""

    folder: Path
    seen: dict[str, str]


def twice(wanted: recipe.Recipe, chain: Toolchain, report: Report) -> Iterator[Built]:
    """Yields the two builds; their folders live until the generator ends."""
    if os.geteuid() != 0:
        raise Unavailable("a rebuild changes host name and user, which takes root", "sudo tinboot rebuild")
    other = OTHER
    if not _users_may_build():
        report("this kernel forbids user namespaces to users: both builds run as root")
        other = replace(OTHER, user=None)
    with tempfile.TemporaryDirectory(prefix="tinboot-rebuild-", dir="/var/tmp") as scratch:
        Path(scratch).chmod(0o755)
        for conditions in (PLAIN, other):
            yield _build(wanted, chain, conditions, Path(scratch), report)


def _users_may_build() -> bool:
    command = [*_as_user(), "unshare", "--user", "--map-root-user", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _as_user() -> list[str]:
    return ["setpriv", f"--reuid={_USER_ID}", f"--regid={_USER_ID}", "--clear-groups", "--"]


def _build(
    wanted: recipe.Recipe, chain: Toolchain, conditions: Conditions, scratch: Path, report: Report
) -> Built:
    place = scratch / conditions.folder
    checkout, given, images = place / "checkout", place / "given", place / "images"
    for folder in (checkout, given, images):
        folder.mkdir(parents=True)
    for name in _COPIED:
        source = wanted.repository / name
        if source.is_dir():
            shutil.copytree(source, checkout / name, symlinks=True, ignore=_LEFTOVERS)
        elif source.exists():
            shutil.copy2(source, checkout / name)
    if wanted.reference is not None:
        (given / "reference").mkdir()
        wanted.reference.write(given / "reference")
    if conditions.leftover:
        for folder in (checkout / "tinboot/formats", checkout / "initrd-hooks"):
            (folder / "__pycache__").mkdir()
            (folder / "__pycache__/cmdline.cpython-311.pyc").write_bytes(b"left over")
    # Bound into the place: where the caller keeps them, another user may not be allowed to look.
    environment = dict(chain.mkosi.environment)
    module = environment.get("PYTHONPATH")
    bound = {
        given / "python": Path(sys.prefix),
        given / "tools": chain.tools.resolve(),
        given / "packages": chain.packages.resolve(),
        given / "nvidia": chain.python.resolve(),
    } | ({given / "mkosi": Path(module)} if module else {})
    if module:
        environment["PYTHONPATH"] = str(given / "mkosi")
    request = {
        "repository": str(checkout),
        "distribution": wanted.distribution,
        "profile": wanted.profile,
        "reference": None if wanted.reference is None else str(given / "reference"),
        "mkosi": [list(chain.mkosi.command), environment, chain.mkosi.version, chain.mkosi.origin],
        "tools": str(given / "tools"),
        "packages": str(given / "packages"),
        "nvidia": str(given / "nvidia"),
        "images": str(images),
        "umask": conditions.umask,
    }
    python = given / "python/bin" / Path(sys.executable).name
    command = [str(python), "-m", "tinboot.builder.rebuild", json.dumps(request)]
    if conditions.cpus is not None:
        command = ["taskset", "--cpu-list", f"0-{conditions.cpus - 1}", *command]
    for folder in bound:
        folder.mkdir()
    if conditions.user is not None:
        for path in (place, *place.rglob("*")):
            os.chown(path, _USER_ID, _USER_ID, follow_symlinks=False)
    answer = _run([*_namespaces(conditions, scratch, bound), *command], conditions, place, report)
    return Built(Path(answer["folder"]), {k: v for k, v in answer.items() if k != "folder"})


def _run(command: list[str], conditions: Conditions, place: Path, report: Report) -> dict[str, str]:
    """What the child printed last; its other lines go to `report`."""
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": conditions.locale,
        "LC_ALL": conditions.locale,
        "TZ": conditions.zone,
        "HOME": str(place),
        "PYTHONPATH": str(place / "checkout"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TINBOOT_TOOLS": str(place / "given/tools"),
    }
    said: list[str] = []
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        cwd=place,
    ) as process:
        assert process.stdout is not None  # noqa: S101 - asked for above
        try:
            for line in process.stdout:
                said = [*said[-20:], line.rstrip()]
                if not line.startswith("{"):
                    report(line.strip())
        except BaseException:
            mkosi.end(process, _ENDS)
            raise
    if process.returncode:
        raise Unavailable(f"the build in {place} failed:\n  " + "\n  ".join(said))
    answer: dict[str, str] = json.loads(said[-1])
    return answer


def _namespaces(conditions: Conditions, scratch: Path, bound: dict[Path, Path]) -> list[str]:
    """The command prefix that gives a build its host name, its view of files, and another user if any."""
    steps = [f"echo {conditions.host} > /proc/sys/kernel/hostname"]
    steps += [_bind(source, target) for target, source in bound.items()]
    drop = []
    if conditions.user is not None:
        steps += _pretend(conditions.user, scratch / "etc")
        drop = _as_user()
    script = " && ".join([*steps, 'exec "$@"'])
    return ["unshare", "--uts", "--mount", "--", "sh", "-c", script, "sh", *drop]


def _bind(source: Path, target: Path) -> str:
    return f"mount --bind {shlex.quote(str(source))} {shlex.quote(str(target))}"


def _pretend(user: str, etc: Path) -> list[str]:
    """Shell steps that make the user known, with subordinate ids, in this mount namespace alone."""
    etc.mkdir()
    steps = []
    for file, line in (
        ("passwd", f"{user}:x:{_USER_ID}:{_USER_ID}::/:/bin/sh"),
        ("group", f"{user}:x:{_USER_ID}:"),
        ("subuid", f"{user}:{_SUBORDINATE}:65536"),
        ("subgid", f"{user}:{_SUBORDINATE}:65536"),
    ):
        path = Path("/etc", file)
        before = path.read_text("utf-8") if path.exists() else ""
        (etc / file).write_text(before + line + "\n", "utf-8")
        steps.append(_bind(etc / file, path))
    return steps


def _seen() -> dict[str, str]:
    """What of the conditions reaches this process."""
    return {
        "path": str(Path.cwd()),
        "umask": f"{_umask():03o}",
        "locale": os.environ["LC_ALL"],
        "time zone": f"{os.environ['TZ']} (UTC{datetime.datetime.now().astimezone():%z})",
        "host name": os.uname().nodename,
        "user": str(os.getuid()),
        "CPUs": str(len(os.sched_getaffinity(0))),
        "leftovers": str(len(list(Path("checkout").rglob("__pycache__")))),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _child(request: str) -> None:
    """One build, in the conditions that the parent made; the last line printed is a JSON object."""
    r = json.loads(request)
    os.umask(r["umask"])
    command, environment, version, origin = r["mkosi"]
    reference = None if r["reference"] is None else gpu_reference.read(Path(r["reference"]))
    seen = _seen()
    made = image.build(
        recipe.Recipe(Path(r["repository"]), r["distribution"], r["profile"], reference),
        Toolchain(
            Mkosi(tuple(command), environment, version, origin),
            Path(r["tools"]),
            Path(r["packages"]),
            Path(r["nvidia"]),
        ),
        Path(r["images"]),
        lambda step: print(step, flush=True),
    )
    print(json.dumps({"folder": str(made.folder), **seen}), flush=True)


if __name__ == "__main__":
    try:
        with stopping.stoppable():
            _child(sys.argv[1])
    except stopping.Stopped as stopped:
        sys.exit(str(stopped))
    except TinbootError as error:
        sys.exit(error.message)
