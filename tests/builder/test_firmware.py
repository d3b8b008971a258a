"""The firmware's build: its inputs, its cache, its pin, and what a build that fails or is stopped leaves."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakemkosi import fake

from tinboot.builder import firmware, mkosi, places
from tinboot.builder.firmware import Conditions
from tinboot.builder.mkosi import Mkosi
from tinboot.builder.prepare import FirmwareKit
from tinboot.formats.errors import Malformed, Mismatch, Unavailable

#: A sandbox that runs a test's program in place of the compiler: `words` are those behind "--", `work` is the
#: host's folder that the build's folder is bound to.
HEAD = """
at = sys.argv.index("--")
words = sys.argv[at + 1:]
bound = [sys.argv[n + 1 : n + 3] for n in range(at) if sys.argv[n] == "--bind"]
work = Path(next(host for host, place in bound if place == words[4]))
with open(Path(sys.argv[0]).with_name("calls"), "a") as calls:
    calls.write(json.dumps([words, dict(os.environ), sys.argv[1:at]]) + "\\n")
"""

MAKE = 'say("‣ Compiling"); (work / "OVMF.fd").write_bytes(b"firmware")\n'


def kit(folder: Path, body: str) -> FirmwareKit:
    fake(folder / "mkosi-sandbox", HEAD + body)
    sources = (folder / "a.debian.tar.xz", folder / "a.orig.tar.xz")
    return FirmwareKit(Mkosi((str(folder / "mkosi"),), {}, "27.1", ""), folder / "tree", sources)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with the recipe of this one, and a build folder of its own."""
    for name in ("ovmf", "mkosi.firmware"):
        shutil.copytree(places.REPOSITORY / name, tmp_path / "checkout" / name)
    (tmp_path / "checkout/packages").mkdir()
    shutil.copy(places.REPOSITORY / "packages/firmware.lock", tmp_path / "checkout/packages")
    monkeypatch.setenv("TINBOOT_BUILD", str(tmp_path / "build"))
    return tmp_path / "checkout"


def build(repository: Path, body: str = MAKE) -> firmware.Built:
    said: list[str] = []
    return firmware.build(repository, lambda: kit(repository.parent, body), said.append)


def calls(repository: Path) -> list[str]:
    return (repository.parent / "calls").read_text().splitlines()


def test_built_once(repository: Path) -> None:
    one, other = build(repository), build(repository)
    assert one == other
    assert one.path.read_bytes() == b"firmware"
    assert one.sha256 == hashlib.sha256(b"firmware").hexdigest()
    assert one.path.stat().st_mode & 0o777 == 0o644
    assert len(calls(repository)) == 1


@pytest.mark.parametrize(
    "name",
    [
        *(
            "ovmf/build",
            "ovmf/sources.lock",
            "ovmf/patches/0001-no-grub.patch",
            "ovmf/patches/0009-new.patch",
        ),
        *("packages/firmware.lock", "mkosi.firmware/mkosi.conf"),
    ],
)
def test_another_input_makes_another(repository: Path, name: str) -> None:
    before = build(repository)
    with (repository / name).open("a") as file:
        file.write("\n")
    assert build(repository).path != before.path
    assert len(calls(repository)) == 2


def test_the_pin_is_no_input(repository: Path) -> None:
    before = firmware.inputs(repository)
    (repository / "ovmf/OVMF.fd.sha256").write_text("")
    assert firmware.inputs(repository) == before


@pytest.mark.parametrize("damage", ["OVMF.fd", "firmware.json"])
def test_what_was_changed_is_made_again(repository: Path, damage: str) -> None:
    path = build(repository).path
    path.with_name(damage).write_bytes(b"other")
    assert build(repository).path.read_bytes() == b"firmware"
    assert len(calls(repository)) == 2


def test_old_ones_go(repository: Path) -> None:
    for number in range(6):
        (repository / "ovmf/patches/0009-new.patch").write_text(str(number))
        build(repository)
    assert len(list((repository.parent / "build/ovmf").glob("firmware-*"))) == 4


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("say('gcc: no'); sys.exit(2)", "status 2:\n  gcc: no"),
        ("say('done')", "status 0:\n  done"),
    ],
)
def test_a_failure_is_said_and_leaves_its_log(repository: Path, body: str, message: str) -> None:
    with pytest.raises(Unavailable) as refused:
        build(repository, body)
    assert message in refused.value.message
    left = repository.parent / "build/ovmf"
    assert {path.name for path in left.iterdir()} == {".firmware.lock", "firmware.log"}
    assert refused.value.hint == f"the whole log is {left / 'firmware.log'}"


def test_a_build_folder_that_cannot_be_made(repository: Path) -> None:
    (repository.parent / "build").touch()
    with pytest.raises(Unavailable, match="build"):
        build(repository)


def test_a_machine_without_namespaces(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository))
    monkeypatch.setattr(mkosi, "environment", lambda _: {"PATH": str(repository)})
    with pytest.raises(Unavailable, match="setpriv"):
        build(repository)


def test_steps_are_reported(repository: Path) -> None:
    said: list[str] = []
    firmware.build(repository, lambda: kit(repository.parent, 'say("detail");' + MAKE), said.append)
    assert said == ["Compiling"]


def network(log: Path) -> list[str]:
    """The devices in a /proc/net/dev that was printed into `log`."""
    return re.findall(r"^ *(\w+): *\d", log.read_text(), re.MULTILINE)


def test_nothing_of_the_caller_reaches_it(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CFLAGS", "PYTHONPATH", "SOURCE_DATE_EPOCH", "WORKSPACE", "MAKEFLAGS"):
        monkeypatch.setenv(name, "x")
    before = os.umask(0o077)
    body = 'say(f"umask {os.umask(0):o}"); say(Path("/proc/net/dev").read_text())'
    try:
        built = build(repository, MAKE + body)
    finally:
        os.umask(before)
    words, environment, options = json.loads(calls(repository)[0])
    assert environment.keys() - {"LC_CTYPE"} <= {"PATH", "LC_ALL", "TZ", "HOME", "USER"}
    assert "umask 22" in (built.path.parent.parent / "firmware.log").read_text()
    assert words[:4] == ["/ovmf/build", "/source", "/debian", "/ovmf/patches"]
    assert words[4:] == ["/build", str(len(os.sched_getaffinity(0)))]
    assert network(built.path.parent.parent / "firmware.log") == ["lo"]
    mounts = [options[n + 2] for n, word in enumerate(options) if "bind" in word]
    assert sorted(mounts) == ["/build", "/debian", "/etc", "/ovmf", "/proc", "/source", "/usr"]


def test_the_conditions_of_a_check_reach_it(repository: Path, tmp_path: Path) -> None:
    conditions = Conditions("/elsewhere", 7, 0o027, {"LC_ALL": "C", "TZ": "Asia/Tokyo"})
    (tmp_path / "out").mkdir()
    body = MAKE + 'say(f"umask {os.umask(0):o}")'
    log = tmp_path / "log"
    firmware.compile_into(tmp_path / "out", repository, kit(tmp_path, body), conditions, log, lambda _: None)
    words, environment, _ = json.loads(calls(repository)[0])
    assert words[4:] == ["/elsewhere", "7"]
    assert (environment["LC_ALL"], environment["TZ"]) == ("C", "Asia/Tokyo")
    assert "umask 27" in log.read_text()


STOPPED = """
import sys
from pathlib import Path
from tinboot.builder import firmware, stopping
from test_firmware import kit
with stopping.stoppable():
    top = Path(sys.argv[1])
    firmware.build(top, lambda: kit(top.parent, (top / "body").read_text()), print)
"""


def test_a_signal_ends_the_whole_build(repository: Path) -> None:
    """The compiler's children, too, of which some are in sessions of their own."""
    body = (
        "if os.fork() == 0:\n    os.setsid()\n"
        "    pid = Path('/proc/self').readlink().name\n"  # as it is outside
        "    Path(sys.argv[0]).with_name('pid').write_text(pid)\ntime.sleep(300)\n"
    )
    (repository / "body").write_text(body)
    environment = {**os.environ, "PYTHONPATH": f"{places.REPOSITORY}:{Path(__file__).parent}:"}
    environment["PYTHONPATH"] += str(places.REPOSITORY / "tests/support")
    with subprocess.Popen([sys.executable, "-c", STOPPED, str(repository)], env=environment) as process:
        pid = repository.parent / "pid"
        deadline = time.monotonic() + 60
        while not pid.exists() or not pid.read_text():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) != 0
    stat = Path(f"/proc/{pid.read_text()}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"
    left = {path.name for path in (repository.parent / "build/ovmf").iterdir()}
    assert left == {".firmware.lock", "firmware.log"}


def test_the_pin(repository: Path) -> None:
    digest = firmware.pinned(places.REPOSITORY)
    firmware.require_pinned(digest, repository)
    with pytest.raises(Mismatch, match=f"{'0' * 64}.* pins {digest}"):
        firmware.require_pinned("0" * 64, repository)


@pytest.mark.parametrize("text", ["", "0" * 64, "0" * 64 + "  OVMF.fd", "A" * 64 + "  OVMF.fd\n"])
def test_a_pin_that_is_none(repository: Path, text: str) -> None:
    (repository / "ovmf/OVMF.fd.sha256").write_text(text)
    with pytest.raises(Malformed, match=r"OVMF\.fd\.sha256"):
        firmware.pinned(repository)


@pytest.mark.parametrize("names", [("a.orig.tar.xz",), ("a.orig.tar.xz", "b.orig.tar.xz", "c.debian.tar.xz")])
def test_sources_are_one_of_each(repository: Path, tmp_path: Path, names: tuple[str, ...]) -> None:
    made = FirmwareKit(Mkosi(("false",), {}, "27.1", ""), tmp_path, tuple(map(Path, names)))
    with pytest.raises(Malformed, match=r"expected one"):
        firmware.build(repository, lambda: made, lambda _: None)


def test_each_patch_says_why() -> None:
    patches = sorted((places.REPOSITORY / "ovmf/patches").iterdir())
    assert len(patches) >= 6
    for path in patches:
        head = path.read_bytes().partition(b"--- a/")[0].decode()
        title, _, reason = head.partition("\n\n")
        assert title.endswith("."), path.name
        assert len(reason.split()) > 20, path.name
