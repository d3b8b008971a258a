"""Which QEMU is new enough, and which device nodes a launch needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinboot.formats import cmdline
from tinboot.formats.errors import Unavailable
from tinboot.formats.launchspec import Disk, LaunchSpec, Measured
from tinboot.host import qemu
from tinboot.host.launch import Form

SPEC = LaunchSpec(
    Measured("/f", "/k", "/i", cmdline.CommandLine("c" * 64, "a" * 64, "b" * 64, 3), 1),
    1024,
    (Disk("config", "/c", "tinboot-config"), Disk("root", "/r", "r")),
)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)", (7, 2)),
        ("QEMU emulator version 10.0.2", (10, 0)),
        ("QEMU emulator version 9.1.0-rc0 (v9.1.0-rc0)", (9, 1)),
        ("qemu-img version 9.1.0", None),
        ("", None),
    ],
)
def test_version(text: str, version: tuple[int, int] | None) -> None:
    assert qemu.parse_version(text) == version


def test_ten_is_newer_than_nine() -> None:
    assert (10, 0) > qemu.MINIMUM[Form.PRODUCTION] > (7, 2)


def test_a_program_that_fails_has_no_version(tmp_path: Path) -> None:
    assert qemu.version_text("/bin/false") is None
    assert qemu.version_text(str(tmp_path / "none")) is None


def test_devices(tmp_path: Path) -> None:
    qemu.require_devices(SPEC, Form.HARNESS, tmp_path)
    with pytest.raises(Unavailable, match="kvm does not exist"):
        qemu.require_devices(SPEC, Form.PRODUCTION, tmp_path)
    (tmp_path / "kvm").touch()
    qemu.require_devices(SPEC, Form.PRODUCTION, tmp_path)
    with pytest.raises(Unavailable, match="iommu does not exist"):
        qemu.require_devices(SPEC._replace(gpus=("0000:41:00.0",)), Form.PRODUCTION, tmp_path)
