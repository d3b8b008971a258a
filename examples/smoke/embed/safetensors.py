"""Weights of a .safetensors file as arrays that stay in the file: mapped, never copied.

Format (huggingface/safetensors, README, "Format"): 8 bytes, the length of a JSON header; the header, each
tensor's name to its dtype, shape and data_offsets; the data, which the offsets count from.
"""

from __future__ import annotations

import json
import mmap

import numpy as np

_MAX_HEADER = 1 << 20
_TYPES = {"F32": np.dtype("<f4"), "I64": np.dtype("<i8")}


def load(path: str) -> dict[str, np.ndarray]:
    """Read-only arrays by name; raises ValueError for a file that is not in the format."""
    with open(path, "rb") as file:  # noqa: PTH123 - pathlib takes longer to import than this to run
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    length = int.from_bytes(data[:8], "little")
    if length > min(_MAX_HEADER, len(data) - 8):
        raise ValueError(f"{path}: a header of {length} bytes")
    body = data[8 + length :]
    tensors = {}
    for name, described in json.loads(bytes(data[8 : 8 + length])).items():
        if name == "__metadata__":
            continue
        begin, end = described["data_offsets"]
        if not 0 <= begin <= end <= len(body):
            raise ValueError(f"{path}: {name} lies outside of the file")
        values = np.frombuffer(body[begin:end], _TYPES[described["dtype"]])
        tensors[name] = values.reshape(described["shape"])
    return tensors
