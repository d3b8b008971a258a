"""What a hostile program can do where NVIDIA's verifier runs: nothing but compute, and not for long.

Each program below is run by the code that runs the verifier, and tries.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import textwrap
from pathlib import Path

import pytest
import second_verifier

from tinboot.formats.errors import Unavailable
from tinboot.guest import confine, confined

_SAY = """
import json, os, socket, sys
def say(value):
    os.write(3, json.dumps(value).encode())
def attempt(work):
    try:
        work()
    except BaseException as error:
        return type(error).__name__
    return "did it"
"""


def run(program: str, question: bytes = b"", seconds: float = 20.0) -> bytes:
    python, _ = second_verifier.interpreter()
    path = second_verifier.folder() / "program.py"
    path.write_text(_SAY + textwrap.dedent(program))
    return confined.ask(python, [str(path)], question, seconds)


def test_it_hears_the_question_and_is_heard() -> None:
    question = os.urandom(1 << 20)
    said = run("data = sys.stdin.buffer.read(); os.write(3, data[-100000:])", question)
    assert said == question[-100000:]


def test_it_has_no_network() -> None:
    said = run(
        """
        def connect(address, family=socket.AF_INET):
            with socket.socket(family) as one:
                one.connect(address)
        say([
            attempt(lambda: connect(("127.0.0.1", 9))),
            attempt(lambda: connect(("192.0.2.1", 443))),
            open("/proc/net/dev").read().count(":"),
            attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
        ])
        """
    )
    assert json.loads(said) == [
        "OSError",
        "OSError",
        1,
        "PermissionError",
    ]  # the one device is lo, and it is down


def test_it_has_no_descriptors_but_its_own() -> None:
    kept = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(kept, True)
    try:
        listing = run('say(sorted(int(n) for n in os.listdir("/proc/self/fd")))')
    finally:
        os.close(kept)
    assert json.loads(listing) == [0, 1, 2, 3, 4]  # 4 is the listing's own


def test_it_has_no_privileges_and_cannot_have_any() -> None:
    said = run(
        """
        status = dict(line.split(":", 1) for line in open("/proc/self/status"))
        say({
            "ids": [os.getresuid(), os.getresgid()],
            "capabilities": [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")],
            "no new": status["NoNewPrivs"].strip(),
            "root": attempt(lambda: os.setuid(0)),
            "mount": attempt(lambda: os.chroot("/")),
        })
        """
    )
    found = json.loads(said)
    assert found["ids"] == [[confine.NOBODY] * 3] * 2
    assert found["capabilities"] == [0, 0, 0, 0]
    assert found["no new"] == "1"
    assert found["mount"] == "PermissionError"
    assert found["root"] in {"PermissionError", "OSError"}  # in a user's own namespace there is no root


def test_supplementary_groups_of_root_are_gone() -> None:
    if os.geteuid() != 0:
        pytest.skip("a user cannot give up groups in a namespace of his own, nor do they open what is root's")
    before = os.getgroups()
    os.setgroups([0, 4])
    try:
        assert json.loads(run("say(os.getgroups())")) == []
    finally:
        os.setgroups(before)


def test_its_namespaces_are_its_own() -> None:
    kinds = ["ipc", "mnt", "net", "pid", "uts"]
    said = json.loads(run(f"say([os.readlink('/proc/self/ns/' + kind) for kind in {kinds}])"))
    for kind, own in zip(kinds, said, strict=True):
        assert own.startswith(f"{kind}:[")
        assert own != str(Path(f"/proc/self/ns/{kind}").readlink())


def test_it_writes_nowhere_but_in_its_own_folder(tmp_path: Path) -> None:
    second_verifier.folder()
    said = run(
        """
        def write(path):
            with open(path, "w") as file:
                file.write("x")
        say([os.getcwd(), os.listdir("."), attempt(lambda: write("verifier.log"))]
            + [attempt(lambda: write(path + "/tinboot-test")) for path in PLACES]
            + [attempt(lambda: write("/proc/sys/kernel/hostname"))])
        """.replace("PLACES", repr(("/", "/etc", "/usr/lib", "/tmp", "/var/tmp", "/dev/shm", str(tmp_path))))
    )
    assert json.loads(said)[:3] == [confine.HOME, [], "did it"]
    assert set(json.loads(said)[3:]) <= {"PermissionError", "OSError", "FileNotFoundError"}
    assert not Path(confine.HOME, "verifier.log").exists()


def test_it_opens_no_device() -> None:
    """Those of the driver are open to everybody, as /dev/null is."""
    said = run(
        """
        names = ("null", "zero", "urandom", "tty")
        say([attempt(lambda: open("/dev/" + name, mode)) for name in names for mode in ("rb", "wb")])
        """
    )
    assert set(json.loads(said)) == {"PermissionError"}


def test_what_it_writes_is_bounded() -> None:
    said = run(
        """
        def one():
            with open("one", "wb") as file:
                file.write(bytes(5 << 20))
        def fill():
            for number in range(100):
                with open(str(number), "wb") as file:
                    file.write(bytes(1 << 20))
        say([attempt(one), attempt(fill), sum(os.path.getsize(name) for name in os.listdir("."))])
        """
    )
    *errors, size = json.loads(said)
    assert errors == ["OSError", "OSError"]
    assert size <= confine.HOME_BYTES


def test_its_environment_is_exactly_this() -> None:
    assert json.loads(run("say(dict(os.environ))")) == {
        "HOME": confine.HOME,
        "LC_ALL": "C.UTF-8",
        "PATH": "/usr/bin:/bin",
    }


def test_it_finds_no_packages() -> None:
    said = json.loads(run('say([attempt(lambda: __import__("cryptography")), sys.path])'))
    assert said[0] == "ModuleNotFoundError"
    assert not any("packages" in path for path in said[1])


def test_its_memory_is_bounded() -> None:
    assert json.loads(run("say(attempt(lambda: bytearray(1 << 30)))")) == "MemoryError"


def test_its_processes_are_bounded() -> None:
    said = run(
        """
        import time
        def bomb():
            for _ in range(1000):
                if os.fork() == 0:
                    time.sleep(30)
        say(attempt(bomb))
        """
    )
    assert json.loads(said) == "BlockingIOError"


def test_it_sees_no_other_process() -> None:
    """Signals need a number in its own namespace, where it is alone."""
    said = run(
        f"say([os.getpid(), attempt(lambda: os.kill({os.getpid()}, 0)), attempt(lambda: os.kill(2, 9))])"
    )
    assert json.loads(said) == [1, "ProcessLookupError", "ProcessLookupError"]
    listing = run('say(sorted(name for name in os.listdir("/proc") if name.isdecimal()))')
    assert json.loads(listing) == ["1"]


def test_it_ends_at_the_deadline_with_all_that_it_started() -> None:
    mark = f"tinboot-left-behind-{os.getpid()}"
    with pytest.raises(Unavailable, match="did not end within 2 s"):
        run(
            f"""
            import signal, time
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if os.fork() == 0:
                os.setsid()
                sleep = ["-I", "-S", "-c", "import time; time.sleep(99)", {mark!r}]
                os.execv(sys.executable, [sys.executable, *sleep])
            time.sleep(99)
            """,
            seconds=2,
        )
    assert not left(mark)


def test_it_ends_when_what_confines_it_is_killed() -> None:
    python, _ = second_verifier.interpreter()
    mark = f"tinboot-left-behind-{os.getpid()}"
    program = second_verifier.folder() / "program.py"
    program.write_text("import os, time; os.write(3, b'.'); time.sleep(99)")
    answer, its_answer = os.pipe()
    command = [python, *confined.FLAGS, str(confined.CONFINE), str(its_answer)]
    command += [python, *confined.FLAGS, str(program), mark]
    with subprocess.Popen(command, pass_fds=(its_answer,), start_new_session=True) as started:
        os.close(its_answer)
        assert os.read(answer, 1) == b"."
        started.kill()
    ready, _, _ = select.select([answer], [], [], 20.0)
    assert ready, "the program outlived it"
    assert os.read(answer, 1) == b""  # nobody holds the other end
    os.close(answer)


def left(mark: str) -> list[Path]:
    """Processes with `mark` on their command line."""
    return [path for path in Path("/proc").glob("[0-9]*/cmdline") if mark.encode() in _bytes(path)]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # it has ended meanwhile


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("os.write(3, b'half'); os._exit(3)", "ended with 3: without a word"),
        ("raise ValueError('upstream\\nfailed')", "ended with 1: 'failed'"),
        (
            "os.write(3, b'whole'); os.kill(os.getpid(), 11); import ctypes; ctypes.string_at(0)",
            "ended with 139",
        ),
        ("while True: os.write(3, bytes(65536))", "said more than 262144 bytes"),
        ("while True: os.write(1, bytes(65536))", "said more than 1048576 bytes"),
        ("import time; [os.close(n) for n in range(4)]; time.sleep(99)", "did not end"),
        ("import time; time.sleep(99)", "did not end within 2 s"),
    ],
    ids=["code", "exception", "crash", "answer", "chatter", "silence", "hang"],
)
def test_anything_but_an_orderly_end_is_no_answer(program: str, said: str) -> None:
    with pytest.raises(Unavailable, match=said):
        run(program, seconds=2)


def test_a_python_that_is_not_there_is_no_answer() -> None:
    with pytest.raises(Unavailable, match="cannot start /nowhere/python3"):
        confined.ask("/nowhere/python3", ["/nowhere/program.py"], b"")


def test_what_cannot_be_confined_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here: the folder that its own file system is to lie over is not there."""
    python, _ = second_verifier.interpreter()
    altered = tmp_path / "confine.py"
    altered.write_text(confined.CONFINE.read_text().replace('HOME = "/run"', 'HOME = "/nowhere"'))
    monkeypatch.setattr(confined, "CONFINE", altered)
    program = second_verifier.folder() / "program.py"
    program.write_text("import os; os.write(3, b'ran')")
    with pytest.raises(Unavailable, match=r"ended with 125: .*No such file"):
        confined.ask(python, [str(program)], b"")
