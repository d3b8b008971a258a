"""Python wheels by their SHA-256, from a lock in pip's own form (packages/nv-verifier.lock):

    name==version \\
        --hash=sha256:<64 hex> \\
        --hash=sha256:<of another Python's wheel>

The machine's own pip transfers, so proxies and credentials work as they are set up. A file counts only if its
hash stands in the lock; what has arrived is kept, so an interrupted fetch goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tinboot.builder import output
from tinboot.formats.errors import Malformed, Unavailable

#: Of the machines that images are for, the newest first; every wheel of the lock has one of them or none.
PLATFORMS = (
    "manylinux_2_28_x86_64",
    "manylinux_2_26_x86_64",
    "manylinux_2_17_x86_64",
    "manylinux2014_x86_64",
)

#: Seconds for one wheel, the largest of 6 MB.
_DEADLINE = 300

_REQUIREMENT = re.compile(r"([A-Za-z0-9-]+)==([0-9][0-9a-z.]*)((?: --hash=sha256:[0-9a-f]{64})+)")


class Requirement(NamedTuple):
    """`hashes`: of its wheels, in hex, one for each Python or one for all."""

    name: str
    version: str
    hashes: frozenset[str]

    def line(self) -> str:
        """For pip."""
        return " ".join(
            (f"{self.name}=={self.version}", *(f"--hash=sha256:{h}" for h in sorted(self.hashes)))
        )


def parse(file: str, text: str) -> tuple[Requirement, ...]:
    """Raises `Malformed` for a line that is not as above: whatever else pip would take is not for a lock."""
    found = []
    for line in re.sub(r" *\\\n *", " ", re.sub(r"(?m)^#.*\n", "", text)).splitlines():
        match = _REQUIREMENT.fullmatch(line.strip())
        if match is None:
            raise Malformed(f"{file}: {line.strip()[:80]!r} is not a version with its hashes")
        hashes = frozenset(re.findall("[0-9a-f]{64}", match[3]))
        found.append(Requirement(match[1], match[2], hashes))
    return tuple(found)


def fetch(
    wanted: Sequence[Requirement], python: str, folder: Path, progress: Callable[[int, int], None]
) -> tuple[Path, ...]:
    """The wheels of `wanted` for a Python such as "3.13", in `folder`, which may hold others too.

    `progress(done, total)`. One process at a time may call it for a folder. Raises `Unavailable`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found: list[Path] = []
        for done, requirement in enumerate(wanted):
            progress(done, len(wanted))
            found.append(_find(requirement, python, folder) or _fetch(requirement, python, folder))
        progress(len(wanted), len(wanted))
    except OSError as error:
        raise output.unavailable(error, folder) from error
    return tuple(found)


def _find(requirement: Requirement, python: str, folder: Path) -> Path | None:
    stem = f"{requirement.name}-{requirement.version}-".lower().replace("-", "_")
    for path in sorted(folder.glob("*.whl")):
        ours = path.name.lower().replace("-", "_").startswith(stem) and fits(path.name, python)
        if ours and not path.is_symlink() and _digest(path) in requirement.hashes:
            return path
    return None


def fits(name: str, python: str) -> bool:
    """Whether a wheel of that file name is for that Python (PyPA, "Binary distribution format": its tags)."""
    interpreters, abi = name.removesuffix(".whl").split("-")[-3:-1]
    own = "cp" + python.replace(".", "")
    if abi == "abi3":  # of its Python and every later one
        return any(
            re.fullmatch(r"cp3\d+", tag) and int(tag[3:]) <= int(own[3:]) for tag in interpreters.split(".")
        )
    return abi == own or (abi == "none" and "py3" in interpreters.split("."))


def _fetch(requirement: Requirement, python: str, folder: Path) -> Path:
    with tempfile.TemporaryDirectory(prefix=".arriving-", dir=folder) as scratch:
        listed = Path(scratch, "requirement")
        listed.write_text(requirement.line() + "\n")
        command = [sys.executable, "-I", "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
        command += ["--disable-pip-version-check", "--require-hashes", "--only-binary=:all:"]
        command += [
            "--implementation=cp",
            f"--python-version={python}",
            *(f"--platform={p}" for p in PLATFORMS),
        ]
        try:
            done = subprocess.run(
                [*command, f"--dest={scratch}", f"--requirement={listed}"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_DEADLINE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            said = f"no answer within {_DEADLINE} s"
        else:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
            said = (errors or done.stderr.splitlines() or [f"pip ended with status {done.returncode}"])[-1]
        arrived = _find(requirement, python, Path(scratch))
        if arrived is None:
            raise Unavailable(
                f"cannot fetch {requirement.name} {requirement.version} for Python {python}: {said}",
                f"try again when that works, or put it into {folder}: only the SHA-256 counts",
            )
        arrived.chmod(0o644)
        return arrived.replace(folder / arrived.name)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
