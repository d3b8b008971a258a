"""The command for a person, on a made-up build with a stand-in for QEMU."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import run
import stub_files

from tinboot.formats import cmdline, configdisk, halt, manifest, verity

FakeQemu = Callable[[str], Path]  # conftest.py

UP = "say('booting\\r\\ntinboot-up {}\\r\\n')\n"
POWER_BUTTON = """
asked = b""
while b"system_powerdown" not in asked:
    asked += os.read(qmp, 4096)
os.write(qmp, b'{"return": {}, "id": 1}\\n')
"""


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that the launcher accepts."""
    folder = tmp_path / "build"
    folder.mkdir()
    config = b"a: 1\n"
    files = {"kernel": b"k", "initrd": b"i", "root": bytes(verity.file_blocks(2) * verity.BLOCK)}
    artefacts = {
        name: manifest.Artefact(name, sha256(data).hexdigest(), len(data)) for name, data in files.items()
    }
    line = cmdline.CommandLine(sha256(config).hexdigest(), "2" * 64, "3" * 64, 2)
    made = manifest.Manifest(
        name="made-up", distribution="debian", profile="release",
        kernel=artefacts["kernel"], initrd=artefacts["initrd"], root=artefacts["root"],
        verity=manifest.Root(line.root_hash, line.root_salt, 2, 2 * verity.BLOCK),
        config=manifest.Artefact("tinboot.yml", line.config_hash, len(config)),
        command_line=cmdline.render(line), cpus=1, memory=512, gpus=0,
        volumes=(), packages=(), tools=(), source_date_epoch=0,
    )  # fmt: skip
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / manifest.CONFIG_DISK).write_bytes(configdisk.pad(config))
    (folder / manifest.FILE).write_bytes(made.dump())
    monkeypatch.setattr(run, "ROOT", tmp_path / "kept")
    monkeypatch.setattr(stub_files, "entries", tuple)  # of the kernel's package
    monkeypatch.setattr(run, "choose", lambda _kernel, _verdicts: "tcg")
    monkeypatch.setattr("sys.argv", ["run.py", str(folder)])
    return folder


def status() -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        run.main()
    return ended.value.code


def test_up_and_off(
    fake_qemu: FakeQemu, build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_qemu(UP + POWER_BUTTON + "end('guest-shutdown')")
    assert status() == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{build}: up after ")
    assert said.out.endswith(" powered off\n")
    assert said.out.count("\n") == 1
    assert said.err == "booting\ntinboot-up {}\n"
    assert list((tmp_path / "kept").iterdir()) == []


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (
            f"say({halt.line(halt.Halt('20-root', 'root-size', 'x'))!r} + '\\n')\nend('guest-shutdown')",
            5,
            "the guest halted: tinboot-halt",
        ),
        ("say('Kernel panic - not syncing: why\\n')\nend('guest-reset')", 5, "the guest panicked: why"),
        ("end('guest-shutdown')", 6, "QEMU ended and the guest had said nothing decisive"),
        (UP + POWER_BUTTON + "end('guest-reset')", 6, "came up and did not power off"),
        ("sys.exit('no such machine')", 6, "no such machine"),
    ],
)
def test_failures_keep_the_log(
    fake_qemu: FakeQemu, build: Path, capsys: pytest.CaptureFixture[str], body: str, code: int, message: str
) -> None:
    fake_qemu(body)
    assert status() == code
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err
    kept = Path(said.err.strip().splitlines()[-1].removeprefix("serial logs are kept in "))
    assert (kept / "boot.log").exists()


def test_a_build_that_changed_is_not_booted(
    fake_qemu: FakeQemu, build: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_qemu(UP)
    (build / "initrd").write_bytes(b"j")
    assert status() == 4
    assert "initrd: SHA-256" in capsys.readouterr().err
