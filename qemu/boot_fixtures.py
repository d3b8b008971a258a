"""What a boot test takes: a folder for logs that only a failure outlives, and one for disks.

In a conftest.py: `from boot_fixtures import disk_dir, log_dir, pytest_runtest_makereport`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import boot_logs
import pytest

_FAILED = pytest.StashKey[bool]()


@pytest.fixture
def log_dir(request: pytest.FixtureRequest) -> Iterator[Path]:
    """`build/boot-logs/<test>/`, which only a failure outlives."""
    folder = boot_logs.empty(request.node.nodeid, boot_logs.ROOT)
    yield folder
    if not request.node.stash.get(_FAILED, False):
        shutil.rmtree(folder)


@pytest.fixture
def disk_dir() -> Iterator[Path]:
    """A folder for copies of disks, gone after the test in any case: pytest's tmp_path keeps three runs."""
    with tempfile.TemporaryDirectory(prefix="tinboot-disks-") as name:
        yield Path(name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Notes that the test failed before its fixtures end, and says in the report where its logs are."""
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
        folder = boot_logs.folder_of(item.nodeid, boot_logs.ROOT)
        if folder.is_dir():
            report.sections.append(("serial logs", f"kept in {folder}"))
    return report
