"""GPU evidence as NVIDIA's attestation SDK serialises it: a JSON array, one object a GPU.

    [{"arch": "HOPPER", "certificate": "<base64 of PEM>", "evidence": "<base64>", "nonce": "<64 hex>"}]

`certificate` is the chain that NVML returned, leaf first; `evidence` the report (gpureport.py). The SDK in
C++ (GpuEvidence's to_json) writes three more, and reads nothing without them: `"version": "1.0"`, and in
`driver_version` and `vbios_version` what NVML said. Other collectors leave them out.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from tinboot.formats import gpureport
from tinboot.formats.errors import Malformed
from tinboot.formats.jsonfields import Fields, parse_array

MAX_COUNT = 16  # of GPUs: a host has at most 8, switches and the next machine have room
MAX_CERTIFICATES = 0x1400  # bytes; nvml.h: NVML_GPU_ATTESTATION_CERT_CHAIN_SIZE
MAX_SIZE = MAX_COUNT * 4 * (MAX_CERTIFICATES + gpureport.MAX_SIZE)

_VERSION = "1.0"

#: The SDK's word -> the config's (`gpu-policy.architecture`).
ARCHITECTURES = {"HOPPER": "hopper", "BLACKWELL": "blackwell"}


class GpuEvidence(NamedTuple):
    """Of one GPU. `arch`: a key of `ARCHITECTURES`. `certificate`: PEM. `nonce`: 32 bytes, as asked for.

    The versions are the collector's word, which nothing signs; None where it says none.
    """

    arch: str
    certificate: bytes
    evidence: bytes
    nonce: bytes
    driver_version: str | None = None
    vbios_version: str | None = None


def parse(data: bytes) -> tuple[GpuEvidence, ...]:
    """At least one GPU's. Raises `Malformed` with the member's path."""
    return read(parse_array("evidence", data, MAX_SIZE))


def read(entries: Sequence[Fields], least: int = 1) -> tuple[GpuEvidence, ...]:
    """As `parse`, of an array that is part of a document; `least` so many GPUs'."""
    if not least <= len(entries) <= MAX_COUNT:
        raise Malformed(f"evidence of {len(entries)} GPUs, expected {least} to {MAX_COUNT}")
    return tuple(_one(entry) for entry in entries)


def render(items: Sequence[GpuEvidence]) -> bytes:
    """The inverse of `parse`, always the same bytes: one line, members in order."""
    listed = [members(item) for item in items]
    return json.dumps(listed, separators=(",", ":")).encode() + b"\n"


def members(item: GpuEvidence) -> dict[str, str]:
    """One GPU's object."""
    found = {
        "arch": item.arch,
        "certificate": base64.b64encode(item.certificate).decode(),
        "evidence": base64.b64encode(item.evidence).decode(),
        "nonce": item.nonce.hex(),
    }
    stated = {"driver_version": item.driver_version, "vbios_version": item.vbios_version}
    found |= {name: value for name, value in stated.items() if value is not None}
    return found | ({"version": _VERSION} if None not in stated.values() else {})


def _one(entry: Fields) -> GpuEvidence:
    arch = entry.text("arch")
    if arch not in ARCHITECTURES:
        raise Malformed(f"{entry.where}.arch is {arch!r}, expected {' or '.join(ARCHITECTURES)}")
    certificate = _base64(entry, "certificate", MAX_CERTIFICATES)
    evidence = _base64(entry, "evidence", gpureport.MAX_SIZE)
    nonce = entry.text("nonce")
    if not re.fullmatch("[0-9a-fA-F]{64}", nonce):
        raise Malformed(f"{entry.where}.nonce is {nonce[:80]!r}, expected 64 hex digits")
    if "version" in entry.names and (version := entry.text("version")) != _VERSION:
        raise Malformed(f"{entry.where}.version is {version!r}, expected {_VERSION!r}")
    versions = [
        entry.text(name, 80) if name in entry.names else None for name in ("driver_version", "vbios_version")
    ]
    entry.end()
    return GpuEvidence(arch, certificate, evidence, bytes.fromhex(nonce), *versions)


def _base64(entry: Fields, name: str, limit: int) -> bytes:
    text = entry.text(name, 4 * (limit // 3 + 1))
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise Malformed(f"{entry.where}.{name} is not in base64: {error}") from error
    if not 0 < len(data) <= limit:
        raise Malformed(f"{entry.where}.{name} has {len(data)} bytes, expected 1 to {limit}")
    return data
