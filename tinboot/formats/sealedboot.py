"""What the hooks sealed (bootlog.REPORT_FILE), as far as it can be held against what a guest serves.

    {"cmdline":"...","ms":1234,"hooks":[{"hook":"10-config","ms":4,"found":{"config_hash":"<64 hex>"}},...]}

Written in the initrd, bound by the report of the boot (bootreport.py). What else a hook found, nobody looks
into.
"""

from __future__ import annotations

from typing import NamedTuple

from tinboot.formats import gpugate
from tinboot.formats.errors import Malformed
from tinboot.formats.jsonfields import Fields, parse_object

MAX_SIZE = 1 << 20  # bytes
_MAX_CMDLINE = 2048  # characters: COMMAND_LINE_SIZE of x86, and more than cmdline.py lets through
_LONGEST = 1 << 53  # milliseconds

CONFIG, GPU = "10-config", "40-gpu"


class SealedBoot(NamedTuple):
    """`config`: SHA-256 of the config's bytes. `gpus`: how many passed the gate. `gpu_evidence`: SHA-256 of
    the file of their evidence, None without GPUs. All digests in bytes.
    """

    cmdline: str
    config: bytes
    gpus: int
    gpu_evidence: bytes | None


def parse(data: bytes) -> SealedBoot:
    """Raises `Malformed` with the member's path."""
    fields = parse_object("sealed boot", data, MAX_SIZE)
    cmdline = fields.text("cmdline", _MAX_CMDLINE)
    fields.integer("ms", 0, _LONGEST)
    found: dict[str, Fields] = {}
    for entry in fields.records("hooks"):
        hook = entry.text("hook", 64)
        entry.integer("ms", 0, _LONGEST)
        if hook in found:
            raise Malformed(f"{entry.where} is a second {hook!r}")
        found[hook] = entry.record("found")
        entry.end()
    fields.end()
    for hook in (CONFIG, GPU):
        if hook not in found:
            raise Malformed(f"sealed boot.hooks has no {hook!r}")
    config = bytes.fromhex(found[CONFIG].hexadecimal("config_hash", 64))
    gpus = found[GPU].integer("gpus", 0, 64)
    evidence = None
    if gpus:
        evidence = bytes.fromhex(found[GPU].record("sha256").hexadecimal(gpugate.EVIDENCE_FILE, 64))
    return SealedBoot(cmdline, config, gpus, evidence)
