"""The GPUs' evidence in a v3 document; nothing but GPUs is known, and none of a number is left out.

    {"format":"https://tinfoil.sh/device-evidence/v1","items":[
      {"id":"gpu0","kind":"gpu","vendor":"nvidia","format":"https://tinfoil.sh/format/nvidia-gpu-evidence/v1",
       "evidence":{"arch":"HOPPER","certificate":"<base64>","evidence":"<base64>","nonce":"<64 hex>"}}]}

`evidence` has four members of gpuevidence.py. REPORT_DATA binds these very bytes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

from tinboot.formats import gpuevidence, gpureport
from tinboot.formats.errors import Malformed
from tinboot.formats.gpuevidence import GpuEvidence
from tinboot.formats.jsonfields import Fields, parse_object

FORMAT = "https://tinfoil.sh/device-evidence/v1"
NVIDIA_GPU = "https://tinfoil.sh/format/nvidia-gpu-evidence/v1"

MAX_SIZE = gpuevidence.MAX_SIZE


def render(gpus: Sequence[GpuEvidence]) -> bytes:
    """Always the same bytes: one line, in order. What the collector says of versions is left out."""
    items = [
        {
            "id": f"gpu{number}",
            "kind": "gpu",
            "vendor": "nvidia",
            "format": NVIDIA_GPU,
            "evidence": {
                "arch": gpu.arch,
                "certificate": base64.b64encode(gpu.certificate).decode(),
                "evidence": base64.b64encode(gpu.evidence).decode(),
                "nonce": gpu.nonce.hex(),
            },
        }
        for number, gpu in enumerate(gpus)
    ]
    return json.dumps({"format": FORMAT, "items": items}, separators=(",", ":")).encode()


def parse(data: bytes) -> tuple[GpuEvidence, ...]:
    """In order; empty for a machine without GPUs. Raises `Malformed` with the member's path."""
    fields = parse_object("device_evidence", data, MAX_SIZE)
    fields.one_of("format", (FORMAT,))
    items = fields.records("items")
    fields.end()
    if len(items) > gpuevidence.MAX_COUNT:
        raise Malformed(f"evidence of {len(items)} devices, expected at most {gpuevidence.MAX_COUNT}")
    return tuple(_gpu(item, number) for number, item in enumerate(items))


def _gpu(item: Fields, number: int) -> GpuEvidence:
    for name, expected in (
        ("id", f"gpu{number}"),
        ("kind", "gpu"),
        ("vendor", "nvidia"),
        ("format", NVIDIA_GPU),
    ):
        item.one_of(name, (expected,))
    evidence = item.record("evidence")
    item.end()
    found = GpuEvidence(
        evidence.one_of("arch", tuple(gpuevidence.ARCHITECTURES)),
        evidence.base64("certificate", gpuevidence.MAX_CERTIFICATES),
        evidence.base64("evidence", gpureport.MAX_SIZE),
        bytes.fromhex(evidence.hexadecimal("nonce", 64)),
    )
    evidence.end()
    return found
