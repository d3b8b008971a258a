"""What a boot that goes on says: the console lines of the hooks, and the files they seal.

    tinboot-hook {"hook":"20-root","ms":41,"found":{...}}       one a hook that passed
    tinboot-handover {"hooks":5,"ms":1234}                      the last line before the root's init

`halt.py` has the line of a boot that ends. Written in the initrd, read by the harness and in the
guest's root.
"""

from __future__ import annotations

import json
from typing import NamedTuple

PASSED_PREFIX = "tinboot-hook "
HANDOVER_PREFIX = "tinboot-handover "

#: What a hook verified: JSON values under short keys, the same in the console line and in `SEALED`.
Found = dict[str, object]

#: A tmpfs of its own, remounted read-only at hand-over; everything below `SEALED` is in it.
SEALED = "/run/tinboot"
CONFIG_FILE = "config.yml"  # the config's bytes as hashed
REPORT_FILE = "boot.json"  # what each hook verified, and how long it took
MACHINE_ID_FILE = "machine-id"  # random, bound over the root's /etc/machine-id
IMAGES_FOLDER = "images"  # one for each container's image, by the first 20 hex digits of the root hash
SERVICES_FILE = "services"  # empty; there where the config has services, which the root then prepares
VOLUMES_FOLDER = "volumes"  # one mount point for each model, by its name

#: virtio serial of the disk that the root reads, and nothing in the initrd (operatorinput.py).
OPERATOR_SERIAL = "tinboot-operator"


class Passed(NamedTuple):
    """One hook that passed, the time it took in milliseconds, and what it verified."""

    hook: str
    ms: int
    found: Found


def passed_line(passed: Passed) -> str:
    """The console line: one line of ASCII, JSON after `PASSED_PREFIX`."""
    return PASSED_PREFIX + json.dumps(passed._asdict(), separators=(",", ":"))


def parse_passed(text: str) -> Passed:
    """The inverse of `passed_line`; raises ValueError for anything else."""
    if not text.startswith(PASSED_PREFIX):
        raise ValueError(f"not the line of a hook: {text[:80]!r}")
    fields = json.loads(text[len(PASSED_PREFIX) :])
    if not isinstance(fields, dict) or sorted(fields) != ["found", "hook", "ms"]:
        raise ValueError(f"the line of a hook has hook, ms and found: {text[:200]!r}")
    return Passed(**fields)


def handover_line(hooks: int, ms: int) -> str:
    """The console line of a completed boot: how many hooks passed, `ms` since the runner began."""
    return HANDOVER_PREFIX + json.dumps({"hooks": hooks, "ms": ms}, separators=(",", ":"))
