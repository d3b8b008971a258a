"""Reports and RIMs that NVIDIA ships inside nv-local-gpu-verifier, from the wheel that builds fetch."""

from __future__ import annotations

import zipfile

import pytest

from tinboot.builder import places

_WHEEL = "packages/wheels/nv_local_gpu_verifier-2.7.3-py3-none-any.whl"
_FOLDER = "verifier/samples/"


def sample(name: str) -> bytes:
    """Skips the test where the wheel was not fetched."""
    with _wheel() as wheel:
        return wheel.read(_FOLDER + name)


def rims() -> list[str]:
    """The names of all RIMs; none where the wheel was not fetched."""
    if not (places.build_folder() / _WHEEL).is_file():
        return []
    with _wheel() as wheel:
        names = [name.removeprefix(_FOLDER) for name in wheel.namelist()]
    return sorted(name for name in names if name.endswith(".swidtag"))


def _wheel() -> zipfile.ZipFile:
    path = places.build_folder() / _WHEEL
    if not path.is_file():
        pytest.skip(f"{path.name} was not fetched: tinboot setup does it")
    return zipfile.ZipFile(path)
