"""40-gpu: what is on the bus, the driver, and whatever the gate in the verified root may do."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

import pytest
from fakeguest import FakeKernel, Guest
from stage import rootprogram
from test_hooks_refuse import config, refused

from tinboot.formats import gpugate
from tinboot.formats.config import load
from tinboot.formats.gpugate import Job, Outcome
from tinboot.formats.halt import Refusal

H100 = (0x10DE, 0x030200)
FOUND: dict[str, object] = {"gpus": 2, "ready": 1}
FILES = {gpugate.EVIDENCE_FILE: "[evidence]\n", gpugate.CLAIMS_FILE: "{claims}\n"}
GOOD = gpugate.pack_outcome(Outcome((), FOUND, FILES))

PATH = os.environ["PATH"]
POLICY = """\
gpu-policy:
  architecture: blackwell
  verifiers: [native, nv-local-gpu-verifier]
  revocation: ocsp
"""


SHELL = "script"  # in the guest's folder: what runs in the place of the root's module


@pytest.fixture
def ready(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> Guest:
    """Two GPUs on the bus, and a root that has no driver's modules; its gate is a shell script."""

    def shell(module: str) -> Callable[[], NoReturn]:
        words = ("/bin/sh", "-c", (Path(guest.places.root) / SHELL).read_text())
        return lambda: os.execve(words[0], words, os.environ | {"MODULE": module, "PATH": PATH})  # noqa: S606 - in a process of its own

    monkeypatch.setattr(rootprogram, "load", shell)
    script(guest, "exit 9")
    sysroot = Path(guest.places.sysroot)
    for folder in ("tmp", "var", f".{gpugate.FOLDER}"):
        (sysroot / folder).mkdir(parents=True)
    (sysroot / f".{gpugate.FOLDER}/modules").write_text("")
    guest.device("0000:00:00.0", 0x8086, 0x060000)
    for number in (1, 2):
        guest.device(f"0000:8{number}:00.0", *H100)
    guest.state.config = load(config(gpus=2))
    return guest


def script(guest: Guest, text: str) -> None:
    (Path(guest.places.root) / SHELL).write_text(text)


def answers(guest: Guest, data: bytes) -> None:
    """The gate reads its job, keeps it, and answers `data`."""
    (Path(guest.places.root) / "answer").write_bytes(data)
    script(guest, f"cat > {guest.places.root}/job; cat {guest.places.root}/answer >&3")


def job(guest: Guest) -> Job:
    return gpugate.parse_job((Path(guest.places.root) / "job").read_bytes())


def test_what_the_gate_verified_is_kept_and_hashed(ready: Guest) -> None:
    answers(ready, GOOD)
    hashes = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in FILES.items()}
    assert ready.run("40-gpu") == FOUND | {"sha256": hashes}
    assert {name: (ready.sealed / name).read_text() for name in FILES} == FILES
    assert job(ready) == Job(2, "hopper", ("native",), "relying-party", "")


def test_the_gate_is_asked_what_the_config_says(ready: Guest) -> None:
    ready.state.config = load(config(gpus=2) + POLICY.encode())
    ready.disk("vdc", gpugate.OCSP_SERIAL, bytes(512))
    answers(ready, GOOD)
    ready.run("40-gpu")
    verifiers = ("native", "nv-local-gpu-verifier")
    assert job(ready) == Job(2, "blackwell", verifiers, "ocsp", "/dev/vdc")


def test_the_gate_runs_in_the_verified_root_with_mounts_of_its_own(
    ready: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Path(ready.places.root) / "calls"

    def note(self: FakeKernel, *call: object) -> None:
        with calls.open("a") as file:
            file.write(json.dumps(call) + "\n")

    monkeypatch.setattr(FakeKernel, "_note", note)
    answers(ready, GOOD)
    ready.run("40-gpu")
    places, bound = ready.places, 4096 | 16384  # MS_BIND, MS_REC
    expected: list[list[object]] = [["own_mounts"]]
    for name in ("dev", "proc", "sys", "run"):
        source = getattr(places, name)
        expected.append(["mount", source, f"{places.sysroot}/{name}", "", bound, ""])
    for name in ("tmp", "var"):
        expected.append(["mount", "tmpfs", f"{places.sysroot}/{name}", "tmpfs", 2 | 4, "size=64m"])
    expected.append(["chroot", places.sysroot])
    expected.append(["forgo_modules"])  # nvidia-persistenced outlives the hand-over
    assert [json.loads(line) for line in calls.read_text().splitlines()] == expected


def test_the_gate_has_its_words_and_three_descriptors_and_no_other(ready: Guest) -> None:
    root = ready.places.root
    (Path(root) / "answer").write_bytes(GOOD)
    script(
        ready,
        f"env > {root}/env; ls -l /proc/self/fd | sed -n 's/.* \\([0-9]* -> .*\\)/\\1/p' > {root}/fds; "
        f"echo forged; echo forged >&2; cat {root}/answer >&3",
    )
    ready.run("40-gpu")
    lines = (Path(root) / "env").read_text().splitlines()
    environment = dict(line.split("=", 1) for line in lines)
    assert environment["MODULE"] == "tinboot.guest.gpu_gate"
    assert environment.keys() - {"MODULE", "PWD", "OLDPWD", "SHLVL", "_"} == rootprogram.ENVIRONMENT.keys()
    held = [line.split(" -> ")[0] for line in (Path(root) / "fds").read_text().splitlines()]
    assert set(held) <= {"0", "1", "2", "3", "4"}  # 4: the folder that ls itself reads
    streams = [line for line in (Path(root) / "fds").read_text().splitlines() if line.startswith("2 ")]
    assert streams == ["2 -> /dev/null"]


@pytest.mark.parametrize(("vendor", "kind"), [(0x1234, 0x030000), (0x1002, 0x038000), (0x10DE, 0x068000)])
def test_foreign(ready: Guest, vendor: int, kind: int) -> None:
    ready.device("0000:03:00.0", vendor, kind)
    assert refused(ready, "40-gpu") == "gpu-foreign"


@pytest.mark.parametrize("gpus", [1, 3, 8])
def test_count(ready: Guest, gpus: int) -> None:
    ready.state.config = load(config(gpus=gpus))
    assert refused(ready, "40-gpu") == "gpu-count"


def test_no_gpu(guest: Guest) -> None:
    guest.state.config = load(config(gpus=1))
    assert refused(guest, "40-gpu") == "gpu-count"


def test_modules_are_the_roots_in_its_order_with_its_firmware(ready: Guest) -> None:
    sysroot = Path(ready.places.sysroot)
    (sysroot / f".{gpugate.FOLDER}/modules").write_text("/usr/lib/b.ko\n/usr/lib/a.ko\n")
    path = Path(ready.places.sys) / "module/firmware_class/parameters/path"
    path.parent.mkdir(parents=True)
    (Path(ready.places.root) / "answer").write_bytes(GOOD)
    script(ready, f"cat {path} > {ready.places.root}/during; cat {ready.places.root}/answer >&3")
    ready.run("40-gpu")
    loaded = [call[1] for call in ready.kernel.calls if call[0] == "load_module"]
    assert loaded == [f"{sysroot}/usr/lib/b.ko", f"{sysroot}/usr/lib/a.ko"]
    assert (Path(ready.places.root) / "during").read_text() == f"{sysroot}/usr/lib/firmware"
    assert path.read_text() == "/usr/lib/firmware"


def test_a_module_that_does_not_load(ready: Guest) -> None:
    (Path(ready.places.sysroot) / f".{gpugate.FOLDER}/modules").write_text("/usr/lib/a.ko\n")
    path = Path(ready.places.sys) / "module/firmware_class/parameters/path"
    path.parent.mkdir(parents=True)
    ready.kernel.fail["load_module"] = OSError(19, "No such device")
    assert refused(ready, "40-gpu") == "gpu-driver"


def test_a_root_that_lists_no_modules(ready: Guest) -> None:
    (Path(ready.places.sysroot) / f".{gpugate.FOLDER}/modules").unlink()
    assert refused(ready, "40-gpu") == "gpu-driver"


def test_a_bus_that_changed_meanwhile(ready: Guest) -> None:
    """A GPU that comes while others are verified would be made ready with them."""
    (Path(ready.places.root) / "answer").write_bytes(GOOD)
    bus, root = ready.pci, ready.places.root
    script(ready, f"cp -r {bus}/0000:81:00.0 {bus}/0000:83:00.0; cat {root}/answer >&3")
    assert refused(ready, "40-gpu") == "gpu-count"
    script(ready, f"rm -r {bus}/0000:82:00.0; cat {root}/answer >&3")
    assert refused(ready, "40-gpu") == "gpu-count"


def test_a_gate_that_cannot_be_started(ready: Guest) -> None:
    ready.kernel.fail["chroot"] = OSError(2, "No such file or directory")
    assert refused(ready, "40-gpu") == "gpu-gate-failed"


def test_the_disk_of_responses_went_away(ready: Guest) -> None:
    ready.state.config = load(config(gpus=2) + POLICY.encode())
    assert refused(ready, "40-gpu") == "gpu-ocsp-missing"


def test_the_gates_own_refusal(ready: Guest) -> None:
    answers(ready, gpugate.pack_outcome(Outcome(("gpu-nonce", "it is old"), {}, {})))
    with pytest.raises(Refusal) as caught:
        ready.run("40-gpu")
    assert (caught.value.reason, caught.value.detail) == ("gpu-nonce", "it is old")
    assert not list(ready.sealed.iterdir())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        GOOD[:-1],
        GOOD + b"x",
        gpugate.pack_outcome(Outcome((), {}, {})),
        gpugate.pack_outcome(Outcome(("gpu-nonce",), {}, {})),
        gpugate.pack_outcome(Outcome(("gpu-nonce", "x"), FOUND, FILES)),
    ],
)
def test_no_outcome_is_no_pass(ready: Guest, data: bytes) -> None:
    answers(ready, data)
    assert refused(ready, "40-gpu") == "gpu-gate-failed"


@pytest.mark.parametrize(
    "text", ["exit 1", "kill -9 $$", f"exec 3>&-; exit {7}", "head -c 1100000 /dev/zero >&3"]
)
def test_a_gate_that_fails(ready: Guest, text: str) -> None:
    script(ready, text)
    assert refused(ready, "40-gpu") == "gpu-gate-failed"


def test_a_good_outcome_of_a_gate_that_then_fails_is_none(ready: Guest) -> None:
    (Path(ready.places.root) / "answer").write_bytes(GOOD)
    script(ready, f"cat {ready.places.root}/answer >&3; exit 1")
    assert refused(ready, "40-gpu") == "gpu-gate-failed"


def test_a_gate_that_never_ends_is_killed(ready: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = rootprogram.Program.ask

    def soon(program: rootprogram.Program, given: bytes, _: float, limit: int) -> bytes:
        return asked(program, given, 0.5, limit)

    monkeypatch.setattr(rootprogram.Program, "ask", soon)
    script(ready, f"echo $$ > {ready.places.root}/pid; sleep 60")
    assert refused(ready, "40-gpu") == "gpu-timeout"
    assert killed(ready)


def killed(guest: Guest) -> bool:
    """Whether the gate's process, which left its number, was; the test reaps it, as PID 1 would."""
    pid = int((Path(guest.places.root) / "pid").read_text())
    return os.waitpid(pid, 0)[1] == signal.SIGKILL


def test_what_the_gate_leaves_running_does_not_hold_it_up(ready: Guest) -> None:
    """nvidia-persistenced stays, whatever descriptors it got."""
    (Path(ready.places.root) / "answer").write_bytes(GOOD)
    root = ready.places.root
    script(ready, f"sleep 60 & echo $! > {root}/pid; cat {root}/answer >&3")
    assert ready.run("40-gpu")["gpus"] == 2
    os.kill(int((Path(root) / "pid").read_text()), 9)


class TestOcspDisk:
    """30-volumes takes the disk of OCSP responses where the policy asks for one, and nowhere else."""

    @pytest.fixture
    def asking(self, guest: Guest) -> Guest:
        guest.state.config = load(config(gpus=1) + POLICY.encode())
        return guest

    def test_passes(self, asking: Guest) -> None:
        asking.disk("vda", gpugate.OCSP_SERIAL, bytes(512))
        asking.run("30-volumes")

    def test_missing(self, asking: Guest) -> None:
        assert refused(asking, "30-volumes") == "gpu-ocsp-missing"

    def test_duplicate(self, asking: Guest) -> None:
        asking.disk("vda", gpugate.OCSP_SERIAL, bytes(512))
        asking.disk("vdb", gpugate.OCSP_SERIAL, bytes(512))
        assert refused(asking, "30-volumes") == "gpu-ocsp-duplicate"

    @pytest.mark.parametrize("gpus", [0, 1])
    def test_unexpected_where_nobody_asks(self, guest: Guest, gpus: int) -> None:
        guest.state.config = load(config(gpus=gpus))
        guest.disk("vda", gpugate.OCSP_SERIAL, bytes(512))
        assert refused(guest, "30-volumes") == "disk-unexpected"


def test_a_gate_that_waits_while_a_module_does_not_load_is_killed(
    ready: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(ready.places.root)
    (Path(ready.places.sysroot) / f".{gpugate.FOLDER}/modules").write_text("/usr/lib/a.ko\n")
    path = Path(ready.places.sys) / "module/firmware_class/parameters/path"
    path.parent.mkdir(parents=True)
    script(ready, f"echo $$ > {root}/new; mv {root}/new {root}/pid; cat; sleep 60")

    def load_module(_: str) -> NoReturn:
        while not (root / "pid").exists():
            time.sleep(0.01)
        raise OSError(19, "No such device")

    monkeypatch.setattr(ready.kernel, "load_module", load_module)
    assert refused(ready, "40-gpu") == "gpu-driver"
    assert killed(ready)


def test_a_module_of_the_root_and_what_it_imports_are_the_roots(tmp_path: Path) -> None:
    """What the initrd imported of tinboot it does not get; the standard library is the one that is there."""
    hooks = Path(rootprogram.__file__).parents[1]
    (tmp_path / "tinboot/formats").mkdir(parents=True)
    (tmp_path / "tinboot/formats/bootlog.py").write_text("WHOSE = 'the root'\n")
    (tmp_path / "tinboot/gate.py").write_text(
        "import json\nfrom tinboot.formats import bootlog\ndef main(): print(bootlog.WHOSE, json.kept)\n"
    )
    program = f"""
import json, sys
json.kept = True
sys.path += [{str(hooks)!r}, {str(hooks.parent)!r}, {str(tmp_path)!r}]
from stage import rootprogram
rootprogram._OUR_FOLDER = {str(hooks.parent)!r}
rootprogram.load("tinboot.gate")()
"""
    done = subprocess.run([sys.executable, "-ISEBc", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("the root True\n", "")


def test_jobs_and_outcomes_come_back_as_they_were_sent() -> None:
    asked = Job(8, "hopper", ("native",), "ocsp", "/dev/vdz")
    assert gpugate.parse_job(gpugate.pack_job(asked)) == asked
    files: Mapping[str, str] = FILES
    assert gpugate.parse_outcome(GOOD) == Outcome((), FOUND, dict(files))
