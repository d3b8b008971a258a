"""The logs of a test's boots as a fixture: `build/boot-logs/<test>/`, which only a failure outlives.

In a conftest.py: `from boot_logs_pytest import log_dir, pytest_runtest_makereport`. A test takes
`log_dir` and hands it to `boot.boot`.
"""

from __future__ import annotations

import shutil
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
