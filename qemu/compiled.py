"""The stubs that are C: compiled once for each text, and kept in the build folder.

The library is loaded in the guest and, by unit tests, on this machine; it needs the C library alone, and none
of its symbols is newer than those of Debian 12, so that what is compiled here runs in any guest of ours.
"""

from __future__ import annotations

import fcntl
import subprocess
from hashlib import sha256
from pathlib import Path

from tinboot.builder import places
from tinboot.formats.errors import Unavailable

_SOURCES = Path(__file__).parent / "stubs"

#: Nothing of this machine goes in: no build id, no symbols, no path.
_OPTIONS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-s", "-Wl,--build-id=none")
_LIBRARY = ("-fPIC", "-shared", "-Wl,-soname,libnvidia-ml.so.1", "-Wl,-z,now")


def nvml() -> Path:
    """libnvidia-ml.so.1, which asks the stub GPUs."""
    return _compiled("nvml_stub.c", "libnvidia-ml.so.1", _LIBRARY)


def persistenced() -> Path:
    """The stand-in for nvidia-persistenced."""
    return _compiled("persistenced.c", "nvidia-persistenced", ())


def probe() -> Path:
    """The program of the containers that tests run."""
    return _compiled("probe.c", "probe", ("-static",))


def _compiled(source: str, name: str, options: tuple[str, ...]) -> Path:
    text = (_SOURCES / source).read_bytes()
    words = [*_OPTIONS, *options]
    digest = sha256("\0".join(words).encode() + b"\0" + text).hexdigest()
    folder = places.build_folder() / "stub-gpu" / digest[:16]
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / name
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            temporary = folder / f"{name}.part"
            _run(["gcc", *words, "-o", str(temporary), "-x", "c", "-"], text)
            temporary.rename(made)
    return made


def _run(words: list[str], text: bytes) -> None:
    try:
        done = subprocess.run(words, input=text, capture_output=True, check=False)
    except FileNotFoundError:
        raise Unavailable("there is no gcc, which the stub GPU's library needs", "run ./setup.sh") from None
    if done.returncode:
        message = done.stderr.decode(errors="replace")
        raise Unavailable(f"gcc failed with status {done.returncode}: {message}", "see its message")
