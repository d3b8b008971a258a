"""What a container gets of GPUs: the nodes and libraries that are there, and no others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tinboot.guest import cdi


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    """Nodes of two GPUs. Those of /dev/null, which need no driver."""
    folder = tmp_path / "dev"
    folder.mkdir()
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (folder / name).symlink_to("/dev/null")
    return folder


@pytest.fixture
def libraries(tmp_path: Path) -> Path:
    folder = tmp_path / "lib"
    folder.mkdir()
    (folder / "libnvidia-ml.so.580.1").write_bytes(b"")
    (folder / "libnvidia-ml.so.1").symlink_to("libnvidia-ml.so.580.1")
    (folder / "libcuda.so.1").symlink_to("nothing")
    (folder / "libc.so.6").write_bytes(b"")
    return folder


def test_each_gpu_is_a_device_and_the_driver_is_everyone_s(devices: Path, libraries: Path) -> None:
    made = json.loads(json.dumps(cdi.specification(2, devices, libraries)))
    assert (made["cdiVersion"], made["kind"]) == ("0.6.0", "nvidia.com/gpu")
    assert [(d["name"], d["containerEdits"]["deviceNodes"][0]["path"]) for d in made["devices"]] == [
        ("0", "/dev/nvidia0"),
        ("1", "/dev/nvidia1"),
    ]
    edits = made["containerEdits"]
    assert [node["path"] for node in edits["deviceNodes"]] == ["/dev/nvidiactl", "/dev/nvidia-uvm"]
    assert [Path(mount["hostPath"]).name for mount in edits["mounts"]] == [
        "libnvidia-ml.so.1",
        "libnvidia-ml.so.580.1",
    ]
    assert all(mount["hostPath"] == mount["containerPath"] for mount in edits["mounts"])
    assert all("ro" in mount["options"] for mount in edits["mounts"])


def test_a_gpu_that_the_gate_did_not_see_is_none(devices: Path, libraries: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nvidia2"):
        cdi.specification(3, devices, libraries)


def test_a_file_is_no_device(devices: Path, libraries: Path) -> None:
    (devices / "nvidia0").unlink()
    (devices / "nvidia0").write_bytes(b"")
    with pytest.raises(OSError, match="no character device"):
        cdi.specification(1, devices, libraries)


def test_unified_memory_need_not_be_there(devices: Path, libraries: Path) -> None:
    (devices / "nvidia-uvm").unlink()
    made = json.loads(json.dumps(cdi.specification(1, devices, libraries)))
    assert len(made["containerEdits"]["deviceNodes"]) == 1


def test_a_gpu_without_a_node_is_told_and_nothing_written(devices: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nvidia2"):
        cdi.write(8, tmp_path / "cdi", devices)
    assert not (tmp_path / "cdi").exists()
