"""Between the hook 40-gpu and the gate that it starts in the verified root: what is asked, what comes back.

Both are JSON, each in one piece: the job on the gate's standard input, the outcome on its descriptor 3.
"""

from __future__ import annotations

import json
from typing import NamedTuple

#: The gate, whose `main` is called in the verified root.
MODULE = "tinboot.guest.gpu_gate"
DESCRIPTOR = 3
MAX_OUTCOME = 1 << 20  # bytes: evidence and claims of 8 GPUs take a quarter of it

#: Below the root: what the image knows of GPUs (docs/gpu.md).
FOLDER = "/usr/lib/tinboot/gpu"
MODULES_FILE = "modules"  # kernel modules, paths in the root, in load order

#: Files that a passed gate leaves in bootlog.SEALED.
EVIDENCE_FILE = "gpu-evidence.json"
CLAIMS_FILE = "gpu-claims.json"

#: virtio serial of the disk with OCSP responses, where the config's gpu-policy asks for them.
OCSP_SERIAL = "tinboot-gpu-ocsp"


class Job(NamedTuple):
    """What the attested config demands. `ocsp`: the disk with the responses, or nothing."""

    gpus: int
    architecture: str
    verifiers: tuple[str, ...]
    revocation: str
    ocsp: str


class Outcome(NamedTuple):
    """`refused`: reason (formats/halt.py) and detail, or empty. `found` and `files` of a gate that passed."""

    refused: tuple[str, ...]
    found: dict[str, object]
    files: dict[str, str]


def pack_job(job: Job) -> bytes:
    return json.dumps(job._asdict()).encode()


def parse_job(data: bytes) -> Job:
    """The inverse; the hook is believed, it is as measured as the gate."""
    fields = json.loads(data)
    return Job(**fields | {"verifiers": tuple(fields["verifiers"])})


def pack_outcome(outcome: Outcome) -> bytes:
    return json.dumps(outcome._asdict()).encode()


def parse_outcome(data: bytes) -> Outcome:
    """The inverse; raises ValueError for what a gate that broke off may leave."""
    fields = json.loads(data)
    if not isinstance(fields, dict) or sorted(fields) != sorted(Outcome._fields):
        raise ValueError(f"the gate's outcome is {data[:80]!r}")
    outcome = Outcome(tuple(fields["refused"]), fields["found"], fields["files"])
    if len(outcome.refused) not in {0, 2} or bool(outcome.refused) == bool(outcome.found):
        raise ValueError(f"the gate's outcome is {data[:80]!r}")
    return outcome
