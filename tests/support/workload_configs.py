"""Configs with containers, for tests of the workload."""

from __future__ import annotations

from tinboot.formats.config import Config, load

IMAGE = f"example.com/a@sha256:{'1' * 64}"


def config(before: str = "", **containers: str) -> Config:
    """`before`: top-level keys. `containers`: name to further keys of it, one a line."""
    lines = ["cpus: 2", "memory: 1024", before.rstrip("\n")]
    if containers:
        lines.append("containers:")
    for name, keys in containers.items():
        lines += [f"  - name: {name}", f"    image: {IMAGE}"]
        lines += [f"    {key}" for key in keys.splitlines()]
    return load("\n".join(lines).encode())
