"""Builds an image twice under conditions that should not matter, to see that they do not.

Each build runs in a process of its own, from a copy of the checkout, in namespaces of its own. They
differ in path, umask, locale, time zone, host name, user, number of CPUs, and in the time of day, which
nobody sets: the second begins when the first has ended.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tinboot.builder import image, recipe
from tinboot.builder.mkosi import Mkosi, Report
from tinboot.builder.prepare import Toolchain
from tinboot.formats.errors import TinbootError, Unavailable

#: A user that exists only in the mount namespace of the build, with ids far from those in use.
_USER, _USER_ID, _SUBORDINATE = "tinboot-rebuild", 61234, 1_000_000_000


@dataclass(frozen=True, slots=True)
class Conditions:
    """`folder` is relative to the scratch space; `user` None is the caller."""

    folder: str
    umask: int
    locale: str
    zone: str
    host: str
    cpus: int | None
    user: str | None


PLAIN = Conditions("a", 0o022, "C.UTF-8", "UTC", "builder", None, None)
OTHER = Conditions(
    "another/and/much/longer/path", 0o077, "de_DE.UTF-8", "Asia/Tokyo", "elsewhere", 1, _USER
)

#: In the repository, what a copy needs to build an image.
_COPIED = (
    "initrd-hooks",
    "mkosi.conf",
    "mkosi.conf.d",
    "mkosi.images",
    "mkosi.profiles",
    "packages",
    "tinboot",
)


def twice(wanted: recipe.Recipe, chain: Toolchain, report: Report) -> Iterator[tuple[Conditions, Path]]:
    """Yields each build's conditions and image folder; the folders live until the generator ends."""
    if os.geteuid() != 0:
        raise Unavailable("a rebuild changes host name and user, which takes root", "sudo tinboot rebuild")
    with tempfile.TemporaryDirectory(prefix="tinboot-rebuild-", dir="/var/tmp") as scratch:
        Path(scratch).chmod(0o755)
        for conditions in (PLAIN, OTHER):
            yield conditions, _build(wanted, chain, conditions, Path(scratch), report)


def _build(
    wanted: recipe.Recipe, chain: Toolchain, conditions: Conditions, scratch: Path, report: Report
) -> Path:
    place = scratch / conditions.folder
    place.mkdir(parents=True)
    for name in _COPIED:
        source = wanted.repository / name
        if source.is_dir():
            shutil.copytree(source, place / "checkout" / name, symlinks=True)
        elif source.exists():
            shutil.copy2(source, place / "checkout" / name)
    images = place / "images"
    images.mkdir()
    request = {
        "repository": str(place / "checkout"),
        "distribution": wanted.distribution,
        "profile": wanted.profile,
        "mkosi": [list(chain.mkosi.command), dict(chain.mkosi.environment), chain.mkosi.version],
        "tools": str(chain.tools.resolve()),
        "packages": str(chain.packages),
        "images": str(images),
        "umask": conditions.umask,
    }
    command = [sys.executable, "-m", "tinboot.builder.rebuild", json.dumps(request)]
    if conditions.cpus is not None:
        command = ["taskset", "--cpu-list", f"0-{conditions.cpus - 1}", *command]
    if conditions.user is not None:
        for path in (place, *place.rglob("*")):
            os.chown(path, _USER_ID, _USER_ID, follow_symlinks=False)
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": conditions.locale,
        "LC_ALL": conditions.locale,
        "TZ": conditions.zone,
        "HOME": str(place),
        "PYTHONPATH": str(place / "checkout"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TINBOOT_TOOLS": str(chain.tools.resolve()),
    }
    with subprocess.Popen(
        [*_namespaces(conditions, scratch), *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        cwd=place,
    ) as process:
        assert process.stdout is not None  # noqa: S101 - asked for above
        said: list[str] = []
        for line in process.stdout:
            said = [*said[-20:], line.rstrip()]
            report(line.strip())
    if process.returncode:
        raise Unavailable(f"the build in {place} failed:\n  " + "\n  ".join(said))
    return Path(said[-1])


def _namespaces(conditions: Conditions, scratch: Path) -> list[str]:
    """The command prefix that gives a build its host name, and its user if that is not the caller."""
    steps = [f"echo {conditions.host} > /proc/sys/kernel/hostname"]
    drop = []
    if conditions.user is not None:
        steps += _pretend(conditions.user, scratch / "etc")
        drop = ["setpriv", f"--reuid={_USER_ID}", f"--regid={_USER_ID}", "--clear-groups", "--"]
    script = " && ".join([*steps, 'exec "$@"'])
    return ["unshare", "--uts", "--mount", "--", "sh", "-c", script, "sh", *drop]


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
        before = Path("/etc", file).read_text("utf-8")
        (etc / file).write_text(before + line + "\n", "utf-8")
        steps.append(f"mount --bind {shlex.quote(str(etc / file))} /etc/{file}")
    return steps


def _child(request: str) -> None:
    """One build, in the conditions that the parent made; the last line printed is the image's folder."""
    r = json.loads(request)
    os.umask(r["umask"])
    command, environment, version = r["mkosi"]
    made = image.build(
        recipe.Recipe(Path(r["repository"]), r["distribution"], r["profile"]),
        Mkosi(tuple(command), environment, version),
        Path(r["tools"]),
        Path(r["packages"]),
        Path(r["images"]),
        lambda step: print(step, flush=True),
    )
    print(made.folder, flush=True)


if __name__ == "__main__":
    try:
        _child(sys.argv[1])
    except TinbootError as error:
        sys.exit(error.message)
