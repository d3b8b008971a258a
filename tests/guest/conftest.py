"""At the end of a run: what both GPU verifiers said of each fault (test_backends.py)."""

from __future__ import annotations

import textwrap
from collections import defaultdict

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, value in report.user_properties:
            if name == "gpu-verdicts" and report.when == "call":
                fault, native, second = value
                found[native, second].append(fault)
    if not found:
        return
    terminalreporter.section("verdicts of both GPU verifiers")
    for (native, second), faults in sorted(found.items()):
        terminalreporter.write_line(f"native: {native}; nv-local-gpu-verifier: {second}")
        for line in textwrap.wrap(", ".join(faults), 96):
            terminalreporter.write_line(f"    {line}")
