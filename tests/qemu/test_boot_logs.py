"""Logs outlive a failure and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import boot_logs
import pytest


def test_kept_on_failure(tmp_path: Path) -> None:
    with boot_logs.kept_on_failure("a test", tmp_path) as folder:
        (folder / "boot.log").touch()
    assert not folder.exists()

    def fail() -> None:
        with boot_logs.kept_on_failure("a test", tmp_path) as folder:
            (folder / "boot.log").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        fail()
    assert caught.value.__notes__ == [f"serial logs are kept in {folder}"]
    assert (folder / "boot.log").exists()
    with boot_logs.kept_on_failure("a test", tmp_path) as folder:
        assert list(folder.iterdir()) == []


def test_every_name_has_a_folder_of_its_own(tmp_path: Path) -> None:
    names = ["tests/boot/test_a.py::test[a b]", "tests/boot/test_a.py::test[a/b]", "../..", "", "x" * 999]
    folders = {boot_logs.folder_of(name, tmp_path) for name in names}
    assert len(folders) == len(names)
    assert {folder.resolve().parent for folder in folders} == {tmp_path.resolve()}
    assert all(len(folder.name) < 200 for folder in folders)


def test_the_fixtures(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        f"import sys\nsys.path.insert(0, {str(Path(boot_logs.__file__).parent)!r})\nimport boot_logs\n"
        f"from pathlib import Path\nboot_logs.ROOT = Path({str(tmp_path / 'kept')!r})\n"
        "from boot_fixtures import disk_dir, log_dir, pytest_runtest_makereport\n"
    )
    (tmp_path / "test_two.py").write_text(
        "def test_passes(log_dir):\n    (log_dir / 'boot.log').touch()\n"
        "def test_fails(log_dir, disk_dir):\n    (log_dir / 'boot.log').touch()\n"
        "    (disk_dir / 'root').touch()\n    print('disks in', disk_dir)\n    assert False\n"
    )
    said = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    ).stdout  # fmt: skip
    assert "1 failed, 1 passed" in said
    (folder,) = (tmp_path / "kept").iterdir()
    assert folder.name.startswith("test_two.py_test_fails-")
    assert (folder / "boot.log").exists()
    assert f"kept in {folder}" in said
    disks = said.partition("disks in ")[2].split()[0]
    assert not Path(disks).exists()
