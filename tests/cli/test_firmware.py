"""`tinboot firmware`: what it writes and prints, and that nothing is written that is not pinned."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tinboot.builder import firmware, firmware_check, places, prepare
from tinboot.builder.firmware import Built
from tinboot.builder.mkosi import Mkosi
from tinboot.cli import firmware as command
from tinboot.formats import ovmf
from tinboot.formats.errors import Mismatch, Refused

CONTENT = b"firmware"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
PAGE = ovmf.Section(0x810000, 0x1000, ovmf.SNP_KERNEL_HASHES)
FOUND = ovmf.Firmware(size=4 << 20, sections=(PAGE,), reset_eip=0x80B004, hash_table=(0x810C00, 0x400))


def built(path: Path, content: bytes = CONTENT) -> Built:
    path.write_bytes(content)
    return Built(path, hashlib.sha256(content).hexdigest(), 97.3, 185.5)


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout that pins `CONTENT`, and a compiler that makes it, twice if asked to."""
    (tmp_path / "ovmf").mkdir()
    (tmp_path / "ovmf/OVMF.fd.sha256").write_text(f"{DIGEST}  OVMF.fd\n")
    monkeypatch.setattr(places, "REPOSITORY", tmp_path)

    def twice(*_: object) -> Iterator[Built]:
        yield built(tmp_path / "one")
        yield built(tmp_path / "other")

    kit = prepare.FirmwareKit(Mkosi(("false",), {}, "27.1", ""), tmp_path, ())
    monkeypatch.setattr(prepare, "firmware_kit", lambda *_: kit)
    monkeypatch.setattr(firmware, "build", lambda *_: built(tmp_path / "made"))
    monkeypatch.setattr(firmware_check, "twice", twice)
    monkeypatch.setattr(ovmf, "parse", lambda _: FOUND)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> Result:
    return CliRunner().invoke(command.command, words)


def test_build_writes_and_prints_as_sha256sum(checkout: Path) -> None:
    result = run("build")
    assert (result.exit_code, result.stdout) == (0, f"{DIGEST}  OVMF.fd\n"), result.output
    assert (checkout / "OVMF.fd").read_bytes() == CONTENT


def test_build_json(checkout: Path) -> None:
    record = json.loads(run("build", "-o", "x.fd", "--json").stdout)
    assert record == {"file": "x.fd", "sha256": DIGEST, "seconds": 97.3, "cpu_seconds": 185.5}


def test_build_again(checkout: Path) -> None:
    """The same file may stand there, another one only goes by --force."""
    assert run("build").exit_code == 0
    assert run("build").exit_code == 0
    (checkout / "OVMF.fd").write_bytes(b"mine")
    refused = run("build")
    assert isinstance(refused.exception, Refused)
    assert (checkout / "OVMF.fd").read_bytes() == b"mine"
    assert run("build", "--force").exit_code == 0
    assert (checkout / "OVMF.fd").read_bytes() == CONTENT


def test_build_of_what_is_not_pinned(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firmware, "build", lambda *_: built(checkout / "made", b"other"))
    result = run("build")
    assert isinstance(result.exception, Mismatch)
    assert DIGEST in result.exception.message
    assert result.stdout == ""
    assert not (checkout / "OVMF.fd").exists()


def test_check() -> None:
    result = run("check")
    assert result.exit_code == 0, result.output
    one, other, section, end = result.stdout.splitlines()
    assert one.startswith(f"{DIGEST}  97 s, 186 s of CPU, ")
    assert one.endswith("umask 022")
    assert other == f"{DIGEST}  97 s, 186 s of CPU, 1 jobs, umask 077"
    assert section.split() == ["0x810000", "0x1000", ovmf.KINDS[PAGE.kind]]
    assert end == "two builds, the pinned bytes, and room for the kernel hashes"


def test_check_json() -> None:
    record = json.loads(run("check", "--json").stdout)
    assert [one["sha256"] for one in record["builds"]] == [DIGEST, DIGEST]
    assert record["metadata"] == {
        "size": 4 << 20,
        "reset_eip": 0x80B004,
        "hash_table": [0x810C00, 0x400],
        "sections": [{"gpa": 0x810000, "size": 0x1000, "kind": ovmf.SNP_KERNEL_HASHES}],
    }


def test_check_finds_a_difference(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(*_: object) -> Iterator[Built]:
        yield built(checkout / "one")
        yield built(checkout / "other", b"firmWare")

    monkeypatch.setattr(firmware_check, "twice", twice)
    result = run("check")
    assert isinstance(result.exception, Mismatch)
    assert "from byte 4 (0x4) on" in result.exception.message
    assert result.stdout == ""


def test_check_of_what_is_not_pinned(checkout: Path) -> None:
    (checkout / "ovmf/OVMF.fd.sha256").write_text(f"{'0' * 64}  OVMF.fd\n")
    result = run("check")
    assert isinstance(result.exception, Mismatch)
    assert DIGEST in result.exception.message


def test_check_of_what_cannot_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ovmf, "parse", lambda _: FOUND._replace(sections=()))
    assert isinstance(run("check").exception, Refused)
