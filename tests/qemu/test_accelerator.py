"""KVM only where a probe reached user space. The probe's program itself is run by the boot tests only:
it powers the machine off."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import accelerator
import pytest

from tinboot.formats import cpio

FakeQemu = Callable[[str], Path]  # conftest.py

COUNT = "open(sys.argv[0] + '.runs', 'a').write('x')\n"
REACHES = COUNT + f"say({accelerator.MARKER!r} + '\\n')\nend('guest-shutdown')"


@pytest.fixture(autouse=True)
def _kvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "kvm").touch()
    (tmp_path / "kernel").write_bytes(b"kernel")
    monkeypatch.setattr(accelerator, "_DEVICE", tmp_path / "kvm")
    monkeypatch.setattr(accelerator, "PROBE_SECONDS", 1.0)
    yield
    accelerator.choose.cache_clear()


def choose(tmp_path: Path) -> tuple[str, int]:
    """What is chosen in a new process, and how many probes there were so far."""
    accelerator.choose.cache_clear()
    chosen = accelerator.choose(tmp_path / "kernel", tmp_path / "verdicts")
    runs = tmp_path / "fake-qemu.runs"
    return chosen, len(runs.read_text()) if runs.exists() else 0


def test_without_a_device_nothing_is_probed(fake_qemu: FakeQemu, tmp_path: Path) -> None:
    fake_qemu(REACHES)
    (tmp_path / "kvm").unlink()
    assert choose(tmp_path) == ("tcg", 0)


def test_a_kvm_that_boots_is_taken_and_remembered(fake_qemu: FakeQemu, tmp_path: Path) -> None:
    fake_qemu(REACHES)
    assert [choose(tmp_path) for _ in range(2)] == [("kvm", 1)] * 2
    (tmp_path / "kernel").write_bytes(b"another kernel")
    assert choose(tmp_path) == ("kvm", 2)
    fake_qemu(REACHES + "\n# another QEMU")
    assert choose(tmp_path) == ("kvm", 3)


@pytest.mark.parametrize(
    "body",
    [
        "say('SeaBIOS\\n')\ntime.sleep(60)",
        "end('guest-reset')",
        "sys.exit('qemu: failed to set MSR 0x10a')",
        "os.abort()",
        f"say('Command line: ' + {accelerator.MARKER!r} + '\\n')\ntime.sleep(60)",
    ],
)
def test_a_kvm_that_does_not_boot(fake_qemu: FakeQemu, tmp_path: Path, body: str) -> None:
    fake_qemu(COUNT + body)
    assert [choose(tmp_path) for _ in range(2)] == [("tcg", 1)] * 2


def test_a_verdict_cut_short_is_no_verdict(fake_qemu: FakeQemu, tmp_path: Path) -> None:
    fake_qemu(REACHES)
    choose(tmp_path)
    (verdict,) = (tmp_path / "verdicts").iterdir()
    verdict.write_text("kv")
    assert choose(tmp_path) == ("kvm", 2)
    assert verdict.read_text() == "kvm"


def test_the_probe_s_initrd() -> None:
    _, console, init = cpio.read(accelerator.probe_initrd())
    assert (console.path, console.rdev, stat.S_ISCHR(console.mode)) == ("dev/console", (5, 1), True)
    assert init.data.startswith(b"\x7fELF\x02\x01")
    assert init.data.endswith(f"{accelerator.MARKER}\n".encode())
    # `lea rsi, [rip + d]` at offset 10 of the code leads to the message
    code = init.data[120:]
    displacement = int.from_bytes(code[13:17], "little")
    assert code[17 + displacement :].decode() == f"{accelerator.MARKER}\n"
