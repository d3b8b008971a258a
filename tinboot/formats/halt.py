"""Why a boot ends before hand-over: the closed list of reasons, and the line that tells one.

The guest prints exactly one such line on its console and powers off:

    tinboot-halt {"hook":"20-root","reason":"root-hash-mismatch","detail":"..."}

`docs/boot.md` lists the same reasons; a test keeps the two equal.
"""

from __future__ import annotations

import json
from typing import NamedTuple

PREFIX = "tinboot-halt "

#: reason -> what it says, in one line. Closed: `line()` refuses any other.
REASONS = {
    # the runner, before and around the hooks
    "hook-failed": "a hook raised something that is not a refusal: a bug, or a device that misbehaves",
    "hook-timeout": "a hook did not finish by its deadline",
    "hook-exited": "a hook ended the process instead of returning",
    "hook-killed": "the process of the hooks was killed by a signal",
    "cpu-no-rdrand": "the CPU offers no RDRAND; an SNP guest has it, and no key may be made without",
    "memory-too-small": "the machine has less memory than the config's `memory` allows for",
    # 10-config
    "cmdline-malformed": "the command line is not the template: a word missing, unknown, moved or changed",
    "cmdline-duplicate": "a tinboot parameter stands twice on the command line",
    "config-missing": "no disk carries the serial of the config",
    "config-duplicate": "more than one disk carries the serial of the config",
    "config-empty": "the config disk begins with padding: there is no config on it",
    "config-too-large": "the config disk is larger than 1 MiB",
    "config-padding": "a byte other than NUL follows the first NUL, or the padding is a sector or more",
    "config-hash-mismatch": "the config's SHA-256 is not the command line's",
    "config-not-utf8": "the config is not UTF-8, or holds characters that YAML does not allow",
    "config-malformed": "the config is not one plain YAML document: syntax, alias, tag, duplicate key",
    "config-too-complex": "the config nests too deeply or has too many nodes",
    "config-unknown-key": "the config has a key that the schema does not know",
    "config-invalid": "a value in the config is missing or not what the schema allows",
    # 20-root and 30-volumes
    "root-missing": "no disk carries the serial of the root",
    "root-duplicate": "more than one disk carries the serial of the root",
    "root-writable": "the root's disk is not read-only",
    "root-size": "the root's disk is not as long as data, superblock and hash tree of this block count",
    "root-hash-mismatch": "the hash tree's top block does not hash to the command line's root hash",
    "root-data-mismatch": "the root's first block does not hash up to the root hash",
    "root-block-count": "the command line's block count is not that of the verified file system",
    "root-verity": "the kernel refused the verity table, or reads back another one",
    "root-mount": "the verified root does not mount",
    "volume-missing": "no disk carries the serial of a volume that the config names",
    "volume-duplicate": "two disks carry the serial of one volume",
    "volume-writable": "the disk of a volume is not read-only",
    "volume-size": "the disk of a volume is not as long as data, superblock and hash tree",
    "volume-hash-mismatch": "a volume's top tree block does not hash to the config's root hash",
    "volume-data-mismatch": "the first block of a volume does not hash up to its root hash",
    "volume-block-count": "the config's hash offset is not the size of the verified file system",
    "volume-uuid": "the verified file system carries another UUID than the config's",
    "volume-verity": "the kernel refused the verity table of a volume, or reads back another one",
    "volume-mount": "a verified volume does not mount",
    "operator-duplicate": "more than one disk carries the serial of the operator's input",
    "disk-unexpected": "a disk is attached that neither the command line nor the config names",
    # 40-gpu, and the gate in the verified root that it starts
    "gpu-unexpected": "a display or NVIDIA device is on the bus and the config asks for no GPU",
    "gpu-foreign": "a display device of another maker, or a device of NVIDIA's that is no GPU, is on the bus",
    "gpu-count": "there are fewer or more GPUs, on the bus or by the driver, than the config asks for",
    "gpu-driver": "the verified root's GPU driver does not load",
    "gpu-timeout": "the gate did not finish by its deadline",
    "gpu-gate-failed": "the gate ended without an outcome: a bug, or a device that misbehaves",
    "gpu-reference-values": "the root's reference values, trust anchor or RIMs are absent or altered",
    "gpu-clock": "the machine's time is before the reference values were made, or years after it",
    "gpu-persistenced": "nvidia-persistenced, which keeps the GPUs' sessions, did not start",
    "gpu-nvml-missing": "the root has no NVML library",
    "gpu-nvml-failed": "a call of NVML failed",
    "gpu-nvml-timeout": "a call of NVML did not come back",
    "gpu-nvml-malformed": "a call of NVML answered what cannot be",
    "gpu-not-production": "the GPUs' confidential computing is not in its production environment",
    "gpu-cc-off": "the GPUs' confidential computing is off",
    "gpu-devtools": "the GPUs are in the mode for developer tools, in which they can be read",
    "gpu-multi-gpu": "the GPUs are in a multi-GPU mode, which this gate does not verify",
    "gpu-ready-early": "the GPUs were told to take work before anything was verified",
    "gpu-architecture": "a GPU is of another architecture than the config's",
    "gpu-duplicate": "two GPUs show the same identity",
    "gpu-evidence-malformed": "a GPU's report or certificates cannot be read",
    "gpu-root": "a GPU's certificates end in another root than the pinned one",
    "gpu-chain": "a GPU's certificates do not hold: one is missing, exchanged, or not of its role",
    "gpu-expired": "a GPU's certificate is not valid at the machine's time",
    "gpu-nonce": "a GPU's report is not of the nonce that was asked for",
    "gpu-signature": "a GPU's report is not signed by the key of its certificate",
    "gpu-fwid": "the firmware in a GPU's certificate is not that in its report",
    "gpu-version": "the driver tells another version of itself or of a VBIOS than the GPU's report",
    "gpu-unknown-version": "there are no reference values for a GPU's driver or VBIOS",
    "gpu-measurement": "a measurement is none of its reference values",
    "gpu-uncovered": "a measurement without reference values is not zero",
    "gpu-mode": "a GPU's report says that it works with others in a protected mode",
    "gpu-ocsp-missing": "the config asks for OCSP responses, and the disk or one of them is absent",
    "gpu-ocsp-duplicate": "more than one disk carries the serial of the OCSP responses",
    "gpu-ocsp-invalid": "an OCSP response is of another certificate or responder, or stale",
    "gpu-revoked": "a GPU's certificate is revoked",
    "gpu-second-verifier": "nv-local-gpu-verifier refuses a GPU",
    "gpu-second-verifier-failed": "nv-local-gpu-verifier came to no verdict",
    "gpu-ready-failed": "the GPUs' ready state is not what it was set to",
    # 90-handover
    "handover-failed": "the switch to the verified root failed",
    # the root's first unit, tinboot-report.service
    "report-unavailable": "no interface of the kernel leads to a PSP: this is no SNP guest",
    "report-busy": "the host put a request for a report off until the deadline",
    "report-timeout": "a request for a report did not come back until the deadline",
    "report-refused": "the PSP, the VMM or the kernel refused the request for a report",
    "report-malformed": "the answer is no report, or its certificate table is none",
    "report-mismatch": "the report is not of the data that it was asked for",
    "report-policy": "the guest was launched so that its host may read or move it, or is not in VMPL 0",
    "report-failed": "the program that collects the report failed: a bug, or a device that misbehaves",
    # the root's second unit, tinboot-prepare.service
    "config-unsupported": "the config asks for what this image does not do",
    "operator-malformed": "the operator's disk is not the JSON that it has to be",
    "operator-undeclared": "the operator gives a value that the config does not ask for, or must not take",
    "operator-missing": "the config asks for a value that the operator does not give",
    "network-missing": "the config serves or fetches something, and the machine has no network device",
    "network-failed": "the network device does not take its address",
    "prepare-failed": "the program that prepares the service failed: a bug, or a device that misbehaves",
    # tinboot-attestation.service; the report's reasons are its own, too
    "attestation-failed": "the program that serves evidence ended: a bug, or a device that misbehaves",
}


class Halt(NamedTuple):
    """One refusal: the hook that refused, the reason from `REASONS`, and a sentence for a person."""

    hook: str
    reason: str
    detail: str


class Refusal(Exception):
    """Raised by a hook, or by a format that a hook parses, to end the boot with `reason`."""

    def __init__(self, reason: str, detail: str) -> None:
        if reason not in REASONS:
            detail, reason = f"undeclared reason {reason}: {detail}", "hook-failed"
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def line(halt: Halt) -> str:
    """The console line: one line of ASCII, JSON after `PREFIX`, the detail cut at 400 characters."""
    fields = {"hook": halt.hook, "reason": halt.reason, "detail": halt.detail[:400]}
    return PREFIX + json.dumps(fields, separators=(",", ":"))


def parse(text: str) -> Halt:
    """The inverse of `line()`; raises ValueError for anything else (for the harness, on the host)."""
    if not text.startswith(PREFIX):
        raise ValueError(f"not a halt line: {text[:80]!r}")
    fields = json.loads(text[len(PREFIX) :])
    if not isinstance(fields, dict) or sorted(fields) != ["detail", "hook", "reason"]:
        raise ValueError(f"a halt line has hook, reason and detail: {text[:200]!r}")
    if fields["reason"] not in REASONS:
        raise ValueError(f"unknown halt reason {fields['reason']!r}")
    return Halt(**fields)
