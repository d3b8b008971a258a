"""How mkosi is started: what reaches it, what comes back, and that it never outlives its starter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakemkosi import fake

from tinboot.builder import mkosi, places
from tinboot.builder.mkosi import Mkosi
from tinboot.formats.errors import Unavailable


def build(tool: Mkosi, folder: Path, *, sources: str | None = "", network: bool = True) -> list[str]:
    said: list[str] = []
    (folder / "scratch").mkdir()
    tool.build(
        ["--output-directory=x"],
        sources=sources,
        scratch=folder / "scratch",
        log=folder / "log",
        network=network,
        report=said.append,
    )
    return said


def test_reports_steps_and_logs_all(tmp_path: Path) -> None:
    tool = fake(tmp_path / "mkosi", 'say("‣ Building root"); say("detail"); say("‣  Done")')
    assert build(tool, tmp_path) == ["Building root", "Done"]
    assert (tmp_path / "log").read_text().splitlines() == ["‣ Building root", "detail", "‣  Done"]


def test_nothing_of_the_caller_reaches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LD_PRELOAD", "PYTHONPATH", "SOURCE_DATE_EPOCH", "MKOSI_X", "LANG"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    body = "say(json.dumps([dict(os.environ), sys.argv, os.umask(0), sys.stdin.read()]))"
    before = os.umask(0o077)
    try:
        build(fake(tmp_path / "mkosi", body), tmp_path)
    finally:
        os.umask(before)
    environment, arguments, umask, given = json.loads((tmp_path / "log").read_text())
    assert environment.keys() - {"LC_CTYPE"} <= {"PATH", "LC_ALL", "TZ", "HOME", "USER"}
    assert (environment["TZ"], environment["LC_ALL"]) == ("UTC", "C.UTF-8")
    assert (umask, given) == (0o022, "")
    assert arguments[-3:] == ["--output-directory=x", "--force", "build"]


@pytest.mark.parametrize("sources", [None, "", "Types: deb\n"])
def test_sources(tmp_path: Path, sources: str | None) -> None:
    body = 'say(json.dumps([p.read_text() for p in Path(option["sandbox-tree"]).rglob("mkosi.sources")]))'
    build(fake(tmp_path / "mkosi", body), tmp_path, sources=sources)
    assert json.loads((tmp_path / "log").read_text()) == ([] if sources is None else [sources])


@pytest.mark.skipif(os.geteuid() != 0, reason="a user's mkosi makes its own network namespace")
def test_without_network(tmp_path: Path) -> None:
    tool = fake(tmp_path / "mkosi", 'say(Path("/proc/net/dev").read_text())')
    build(tool, tmp_path, network=False)
    devices = (tmp_path / "log").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in devices if line] == ["lo"]


def test_a_failure_says_its_end_and_where_the_rest_is(tmp_path: Path) -> None:
    body = 'for i in range(40): say(f"line {i}")\nsys.exit(3)'
    with pytest.raises(Unavailable) as refused:
        build(fake(tmp_path / "mkosi", body), tmp_path)
    assert refused.value.message.startswith("mkosi ended with status 3:\n  line 28")
    assert refused.value.message.endswith("line 39")
    assert refused.value.hint == f"the whole log is {tmp_path / 'log'}"


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    body = 'say("cp: error writing: No space left on device"); say("‣ trace"); sys.exit(1)'
    with pytest.raises(Unavailable) as refused:
        build(fake(tmp_path / "mkosi", body), tmp_path)
    assert refused.value.hint.startswith(f"make room on the file system of {tmp_path}; ")


def test_one_that_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"mkosi does not start: .*/none: No such file") as refused:
        build(Mkosi((str(tmp_path / "none"),), {}, "27.1", "none"), tmp_path)
    assert refused.value.hint == "tinboot setup"


def test_its_workspace_goes_with_it(tmp_path: Path) -> None:
    body = """
work = Path(option["workspace-directory"])
(work / "big").write_text("x")
say(str(work))
sys.exit(1)
"""
    with pytest.raises(Unavailable):
        build(fake(tmp_path / "mkosi", body), tmp_path)
    assert not Path((tmp_path / "log").read_text().strip()).exists()


def test_without_memory_the_workspace_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mkosi, "_WORKSPACE", 1 << 60)
    build(fake(tmp_path / "mkosi", 'say(option["workspace-directory"])'), tmp_path)
    assert (tmp_path / "log").read_text().startswith(str(tmp_path / "scratch"))


@pytest.mark.parametrize("stubborn", [False, True])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_with_its_starter(tmp_path: Path, signum: signal.Signals, stubborn: bool) -> None:
    """Also where only the starter gets the signal, and where mkosi would rather not."""
    body = f"""
import signal
if {stubborn}:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
say("‣ working")
Path({str(tmp_path / "pid")!r}).write_text(str(os.getpid()))
time.sleep(60)
"""
    fake(tmp_path / "mkosi", body)
    (tmp_path / "scratch").mkdir()
    code = """
import sys
from pathlib import Path
from tinboot.builder import mkosi, stopping
mkosi._ENDS = 0.5
folder = Path(sys.argv[1])
tool = mkosi.Mkosi((str(folder / "mkosi"),), {}, "27.1", "")
with stopping.stoppable():
    tool.build([], sources="", scratch=folder / "scratch", log=folder / "log", network=True, report=print)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], cwd=places.REPOSITORY, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "pid").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.1)  # the number is written after the file is made
        pid = int((tmp_path / "pid").read_text())
        process.send_signal(signum)
        assert process.stderr is not None
        assert "Stopped: stopped by" in process.stderr.read()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
