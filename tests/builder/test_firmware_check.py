"""Two builds compared, and the metadata that a launch digest rests on."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from fakemkosi import fake

from tinboot.builder import firmware, firmware_check, places
from tinboot.builder.firmware import Built
from tinboot.builder.mkosi import Mkosi
from tinboot.builder.prepare import FirmwareKit
from tinboot.formats import ovmf
from tinboot.formats.errors import Mismatch, Refused

#: A compiler that writes what its conditions make of `{content}`.
BODY = """
at = sys.argv.index("--")
folder, jobs = sys.argv[-2:]
bound = [sys.argv[n + 1 : n + 3] for n in range(at) if sys.argv[n] == "--bind"]
work = Path(next(host for host, place in bound if place == folder))
mask = os.umask(0)
(work / "OVMF.fd").write_bytes(({content}).encode())
"""


def twice(folder: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> list[tuple[Built, bytes]]:
    monkeypatch.setenv("TINBOOT_BUILD", str(folder / "build"))
    fake(folder / "mkosi-sandbox", BODY.format(content=content))
    sources = (folder / "a.debian.tar.xz", folder / "a.orig.tar.xz")
    kit = FirmwareKit(Mkosi((str(folder / "mkosi"),), {}, "27.1", ""), folder, sources)
    both = (firmware.usual(), firmware_check.OTHER)
    builds = firmware_check.twice(places.REPOSITORY, kit, lambda _: None, both)
    return [(built, built.path.read_bytes()) for built in builds]


def test_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for built, content in twice(tmp_path, monkeypatch, "'the same'"):
        assert content == b"the same"
        assert not built.path.exists()
        assert built.sha256 == hashlib.sha256(content).hexdigest()
    left = {path.name for path in (tmp_path / "build/ovmf").iterdir()}
    assert left == {"check-one.log", "check-other.log"}


@pytest.mark.parametrize(
    "content",
    ["folder", "jobs", "oct(mask)", "os.environ['TZ']", "os.environ['LC_ALL']", "len(folder) * 'x'"],
)
def test_each_condition_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    one, other = twice(tmp_path, monkeypatch, content)
    if content == "jobs" and one[1] == b"1":
        pytest.skip("this machine has one processor: both builds have one job")
    assert one[1] != other[1]


def built(folder: Path, content: bytes) -> Built:
    folder.mkdir()
    (folder / "OVMF.fd").write_bytes(content)
    return Built(folder / "OVMF.fd", hashlib.sha256(content).hexdigest(), 1.0, 1.0)


def test_equal(tmp_path: Path) -> None:
    firmware_check.require_equal(built(tmp_path / "a", b"x" * 5000), built(tmp_path / "b", b"x" * 5000))


@pytest.mark.parametrize(
    ("content", "at"), [(b"x" * 4000 + b"y" + b"x" * 999, 4000), (b"x" * 4999, 4999), (b"", 0)]
)
def test_the_first_byte_that_differs_is_named(tmp_path: Path, content: bytes, at: int) -> None:
    one, other = built(tmp_path / "a", b"x" * 5000), built(tmp_path / "b", content)
    with pytest.raises(Mismatch, match=rf"from byte {at} \({at:#x}\) on") as refused:
        firmware_check.require_equal(one, other)
    assert one.sha256 in refused.value.message
    assert f"5000 and {len(content)} bytes" in refused.value.message


PAGE = ovmf.Section(0x810000, 0x1000, ovmf.SNP_KERNEL_HASHES)
GOOD = ovmf.Firmware(size=4 << 20, sections=(PAGE,), reset_eip=0x80B004, hash_table=(0x810C00, 0x400))


def test_measurable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ovmf, "parse", lambda _: GOOD)
    assert firmware_check.require_measurable(b"") == GOOD


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (GOOD._replace(reset_eip=None), "reset vector"),
        (GOOD._replace(hash_table=None), "no room for a table"),
        (GOOD._replace(sections=()), "no section for kernel hashes"),
        (GOOD._replace(sections=(PAGE._replace(kind=1),)), "no section for kernel hashes"),
        (GOOD._replace(hash_table=(0x80FC00, 0x400)), "outside of their section"),
        (GOOD._replace(hash_table=(0x810C00, 0x401)), "outside of their section"),
    ],
)
def test_not_measurable(monkeypatch: pytest.MonkeyPatch, found: ovmf.Firmware, message: str) -> None:
    monkeypatch.setattr(ovmf, "parse", lambda _: found)
    with pytest.raises(Refused, match=message):
        firmware_check.require_measurable(b"")
