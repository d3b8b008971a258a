"""What the test initrd holds of the stub PSP: its guest half in an archive behind the production initrd.

The production's /init, runner, hooks and command line stay as they are; one more hook runs, between them and
the hand-over, and says so in what is sealed.
"""

from __future__ import annotations

import fcntl
import lzma
import subprocess
import tarfile
from pathlib import Path
from typing import Literal

import testcpio

from tinboot.builder import places, recipe
from tinboot.formats import cpio
from tinboot.formats.errors import Unavailable

Kind = Literal["cuse", "tsm"]

HOOK = "85-stub-psp"
FOLDER = "usr/lib/tinboot-test"

_SOURCES = Path(__file__).parent / "stubs"
_FORMAT = "tinboot/formats/sevguest.py"  # not in the initrd, which asks for no report
_CUSE = "/kernel/fs/fuse/cuse.ko.xz"


def entries(kind: Kind = "cuse") -> tuple[cpio.Entry, ...]:
    """The files for one `kind` of interface: /dev/sev-guest, or configfs-tsm."""
    listed = [
        testcpio.hook(HOOK, (_SOURCES / "hook.py").read_text("utf-8")),
        cpio.file(f"usr/lib/tinboot/{_FORMAT}", (places.REPOSITORY / _FORMAT).read_bytes()),
    ]
    names = ("psp_port", "cuse_sev_guest" if kind == "cuse" else "fuse_tsm")
    listed += [cpio.file(f"{FOLDER}/stubs/{n}.py", (_SOURCES / f"{n}.py").read_bytes()) for n in names]
    if kind == "cuse":
        listed.append(cpio.file(f"{FOLDER}/cuse.ko", cuse_module()))
    return tuple(listed)


def cuse_module() -> bytes:
    """From the kernel package of this checkout's lock, unpacked; kept in the build folder."""
    distribution = recipe.default_distribution()
    lock = recipe.read_lock(places.REPOSITORY, distribution)
    (package,) = (package for package in lock.packages if _is_kernel(package.name))
    kept = places.build_folder() / "stub-psp" / f"cuse-{package.sha256[:16]}.ko"
    kept.parent.mkdir(parents=True, exist_ok=True)
    with (kept.parent / ".lock").open("w") as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)
        if not kept.exists():
            archive = places.build_folder() / "packages" / distribution / package.file
            temporary = kept.with_suffix(".part")
            temporary.write_bytes(lzma.decompress(member(archive, _CUSE)))
            temporary.rename(kept)
    return kept.read_bytes()


def _is_kernel(name: str) -> bool:
    """`linux-image-6.12…`, not the package that only depends on it."""
    return name.startswith("linux-image-") and name.removeprefix("linux-image-")[:1].isdigit()


def member(archive: Path, suffix: str) -> bytes:
    """The file in a package whose path ends with `suffix`."""
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as files,
    ):
        for entry in files:
            content = files.extractfile(entry) if entry.name.endswith(suffix) else None
            if content is not None:
                return content.read()
    raise Unavailable(f"{archive.name} has no {suffix}", "the kernel of this distribution has CUSE elsewhere")
