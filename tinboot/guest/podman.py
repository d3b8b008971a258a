"""Programs that the workload's supervisor runs, each with a deadline: podman, quadlet, systemctl and nft."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import NamedTuple

from tinboot.guest import workload_units

PODMAN = "/usr/bin/podman"
QUADLET = "/usr/libexec/podman/quadlet"
SYSTEMCTL = "/usr/bin/systemctl"
NFT = "/usr/sbin/nft"

#: All that the programs know of the environment. Quadlet reads its files from one folder.
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin",
    "CONTAINERS_STORAGE_CONF": f"{workload_units.FOLDER}/{workload_units.STORAGE_FILE}",
    "CONTAINERS_REGISTRIES_CONF": f"{workload_units.FOLDER}/{workload_units.REGISTRIES_FILE}",
    "QUADLET_UNIT_DIRS": f"{workload_units.FOLDER}/{workload_units.QUADLET_FOLDER}",
}

_SAID = 4 << 10  # characters of what a program says of its failure
TIMED_OUT = 124  # as timeout(1) has it


class Done(NamedTuple):
    """`output`: standard output of a program that ended with 0; else the last that it said."""

    status: int
    output: str


def run(words: Sequence[str], seconds: float) -> Done:
    """Never raises for what the program does; `TIMED_OUT` where it did not end."""
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
            env=ENVIRONMENT,
        )
    except subprocess.TimeoutExpired:
        return Done(TIMED_OUT, f"{words[0]} did not end within {seconds:g} s")
    except OSError as error:
        return Done(127, f"{words[0]}: {error.strerror}")
    if done.returncode == 0:
        return Done(0, done.stdout)
    return Done(done.returncode, done.stderr.strip()[-_SAID:])


def expect(words: Sequence[str], seconds: float) -> str:
    """Standard output; raises `RuntimeError` with what the program said."""
    done = run(words, seconds)
    if done.status:
        raise RuntimeError(f"{' '.join(words[:2])} ended with {done.status}: {done.output}")
    return done.output


def image_is_there(image: str) -> bool:
    """Whether a store has it (podman-image-exists(1)); where Podman does not tell, it is taken to have."""
    return run([PODMAN, "image", "exists", image], 60).status != 1
