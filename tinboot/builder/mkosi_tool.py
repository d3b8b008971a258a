"""The mkosi that builds images: an installed one that is new enough, else Debian's package by its SHA-256.

Images do not depend on which of the two it is as long as the version is the same; the recipe's digest holds
the version. The package is pure Python and is unpacked, not installed: nothing of the host changes.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tinboot.builder import archive, cache, output, places
from tinboot.builder.mkosi import Mkosi
from tinboot.builder.packages import APT_HELPER
from tinboot.formats.errors import Unavailable

#: MinimumVersion= of mkosi.conf, from which the recipes' options are; a test keeps the two equal.
MINIMUM = (27, 1)

PINNED_VERSION = "27.1"
#: Debian's mkosi 27.1-1 (forky, sid); the path is relative to the archive's URI, and dpkg-deb reads the file.
PINNED_PATH = "pool/main/m/mkosi/mkosi_27.1-1_all.deb"
PINNED_SHA256 = "b8cec2f88e217bbfcde6b70605f67ea94069f64c21b1b6a9b88c0e177b23af81"

#: mkosi 27 wants Python 3.10; the distribution's own interpreter is never that of a virtual environment.
_PYTHON = "/usr/bin/python3"

#: Seconds for 300 KB, with apt's own retries.
_DEADLINE = 300


def find_mkosi() -> Mkosi:
    """Raises `Unavailable`, with the remedy, if there is none and none can be fetched.

    The pinned package is fetched if it is needed and absent, and checked again at each call.
    """
    return installed_mkosi() or pinned_mkosi(places.build_folder())


def installed_mkosi() -> Mkosi | None:
    """The mkosi in the host's PATH if it is at least `MINIMUM`, else None."""
    path = shutil.which("mkosi")
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None  # one that does not start is none; the pinned one takes its place
    version = parse_version(done.stdout)
    if done.returncode or version is None or version < MINIMUM:
        return None
    return Mkosi((path,), {}, ".".join(map(str, version)), path)


def parse_version(printed: str) -> tuple[int, ...] | None:
    """`mkosi 27.1` -> (27, 1); None for anything that is no release, such as `mkosi 28~devel`."""
    match = re.fullmatch(r"mkosi (\d+(?:\.\d+)*)\s*", printed)
    return tuple(map(int, match[1].split("."))) if match else None


def pinned_mkosi(build: Path) -> Mkosi:
    """Debian's package, unpacked below `build`; fetched from the machine's own mirror if it is not there."""
    package = build / "cache" / PINNED_PATH.rpartition("/")[2]
    tree = build / f"mkosi-{PINNED_VERSION}"
    with cache.alone(build / ".mkosi.lock", lambda _: None):
        try:
            if not _genuine(package):
                _fetch(package)
            if not same_as_package(package, tree):
                _unpack(package, tree)
        except OSError as error:
            raise output.unavailable(error, build) from error
        except subprocess.CalledProcessError as error:
            raise Unavailable(
                f"dpkg-deb cannot unpack {package} below {build}", "is the disk full?"
            ) from error
    environment = {
        "PYTHONPATH": str(tree / "usr/lib/python3/dist-packages"),
        "PYTHONDONTWRITEBYTECODE": "1",  # the tree stays what the package holds
    }
    # -P: a folder named mkosi below the current one must not come first
    return Mkosi((_PYTHON, "-P", "-m", "mkosi"), environment, PINNED_VERSION, str(tree))


def _genuine(package: Path) -> bool:
    try:
        with package.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == PINNED_SHA256
    except FileNotFoundError:
        return False


def _fetch(package: Path) -> None:
    """By apt's own program, which knows the machine's proxy and credentials; each mirror in turn."""
    mirror_variable = archive.variable("debian")
    hint = f"install mkosi {PINNED_VERSION} or newer, or set {mirror_variable} to a mirror that has it"
    try:
        mirrors = archive.machine_mirrors("debian")
    except Unavailable as error:
        raise Unavailable(f"no mkosi {PINNED_VERSION} to build images with: {error.message}", hint) from None
    package.parent.mkdir(parents=True, exist_ok=True)
    said = ""
    for mirror in mirrors:
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=package.parent) as folder:
            arrived = Path(folder) / package.name
            said = _download(f"{mirror}/{PINNED_PATH}", arrived)
            if _genuine(arrived):
                # for a file: mirror apt leaves a link to it, and a rename would keep that
                whole = shutil.copyfile(arrived, Path(folder) / "whole")
                whole.replace(package)
                return
    tried = ", ".join(map(archive.redacted, mirrors))
    raise Unavailable(f"{package.name} with the pinned SHA-256 could not be had from {tried}: {said}", hint)


def _download(uri: str, target: Path) -> str:
    """Returns what went wrong, in a line; whether it went well is for the file's hash to tell."""
    try:
        done = subprocess.run(
            [APT_HELPER, "-qq", "download-file", uri, str(target), f"SHA256:{PINNED_SHA256}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_DEADLINE,
            env=os.environ | {"LC_ALL": "C"},
            check=False,
        )
    except FileNotFoundError:
        return f"{APT_HELPER} is not there"
    except subprocess.TimeoutExpired:
        return f"no answer within {_DEADLINE} s"
    errors = [line.removeprefix("E: ") for line in done.stderr.splitlines() if line.startswith("E: ")]
    return archive.redacted(errors[0]) if errors else f"apt-helper ended with status {done.returncode}"


def same_as_package(package: Path, tree: Path) -> bool:
    """Whether `tree` holds the package's files, byte for byte and mode for mode, and no other."""
    found = {path for path in tree.rglob("*") if path.is_symlink() or not path.is_dir()}
    with tempfile.TemporaryFile() as stream:
        subprocess.run(["dpkg-deb", "--fsys-tarfile", package], stdout=stream, check=True)
        stream.seek(0)
        with tarfile.open(fileobj=stream) as archived:
            for member in archived:
                path = tree / member.name
                if member.isdir():
                    continue
                if path not in found or not _same(archived, member, path):
                    return False
                found.remove(path)
    return not found


def _same(archived: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> bool:
    if member.issym():
        return path.is_symlink() and str(path.readlink()) == member.linkname
    content = archived.extractfile(member)
    if content is None or path.is_symlink():
        return False
    return path.stat().st_mode & 0o7777 == member.mode and path.read_bytes() == content.read()


def _unpack(package: Path, tree: Path) -> None:
    """Whole or not at all: `tree` appears under its name when everything is in it."""
    shutil.rmtree(tree, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".{tree.name}-", dir=tree.parent) as folder:
        unpacked = Path(folder) / "tree"
        subprocess.run(["dpkg-deb", "-x", package, unpacked], umask=0o022, check=True)
        unpacked.chmod(0o755)
        unpacked.replace(tree)
