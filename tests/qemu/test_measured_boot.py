"""The arguments that put the firmware, the table of hashes and the three blobs in front of a boot."""

from __future__ import annotations

import hashlib
from pathlib import Path

import measured_boot
import pytest
from arguments import arguments

from tinboot.formats import kernelhashes, ovmf
from tinboot.formats.errors import Refused

PLACE = (0x810C00, 0x400)


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Files to boot, and a firmware whose footer says `PLACE`."""
    for name in ("kernel", "initrd", "fd"):
        (tmp_path / name).write_bytes(name.encode())
    found = ovmf.Firmware(size=4 << 20, sections=(), reset_eip=None, hash_table=PLACE)
    monkeypatch.setattr(ovmf, "parse", lambda _: found)


def listed(folder: Path, cmdline: str = "quiet") -> list[str]:
    return arguments(folder / "kernel", folder / "initrd", cmdline)


def under(folder: Path, given: list[str], table: bytes | None = b"table") -> list[str]:
    return measured_boot.under(given, folder / "fd", folder, table)


def test_the_table_is_of_what_is_listed(tmp_path: Path) -> None:
    kernel, initrd = hashlib.sha256(b"kernel").digest(), hashlib.sha256(b"initrd").digest()
    line = kernelhashes.command_line_digest("quiet")
    assert measured_boot.hashes(listed(tmp_path)) == kernelhashes.table(kernel, initrd, line)


def test_the_table_without_initrd_and_command_line(tmp_path: Path) -> None:
    kernel = hashlib.sha256(b"kernel").digest()
    table = measured_boot.hashes(["-kernel", str(tmp_path / "kernel")])
    expected = kernelhashes.table(kernel, kernelhashes.NO_INITRD, kernelhashes.command_line_digest(""))
    assert table == expected
    with pytest.raises(ValueError, match="no -kernel"):
        measured_boot.hashes([])


def test_the_table_lies_where_the_firmware_says(tmp_path: Path) -> None:
    words = under(tmp_path, listed(tmp_path))
    path = tmp_path / "kernel-hashes"
    assert words[words.index("-bios") + 1] == str(tmp_path / "fd")
    assert f"loader,file={path},addr=0x810c00,force-raw=on" in words
    assert path.read_bytes() == b"table"


def test_without_a_table_there_is_no_loader(tmp_path: Path) -> None:
    assert not any(word.startswith("loader") for word in under(tmp_path, listed(tmp_path), None))


@pytest.mark.parametrize(("place", "size"), [(None, 176), (PLACE, 0x401)])
def test_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: tuple[int, int] | None, size: int
) -> None:
    found = ovmf.Firmware(size=4 << 20, sections=(), reset_eip=None, hash_table=place)
    monkeypatch.setattr(ovmf, "parse", lambda _: found)
    with pytest.raises(Refused, match="no room"):
        under(tmp_path, listed(tmp_path), bytes(size))


def test_blobs_are_given_by_name(tmp_path: Path) -> None:
    """By `-kernel` an old QEMU would change the kernel's header. Everything else stays as it is."""
    given = listed(tmp_path, "quiet panic=-1")
    words = under(tmp_path, given)
    assert not {"-kernel", "-initrd", "-append"} & set(words)
    assert (tmp_path / "cmdline").read_bytes() == b"quiet panic=-1\0"
    blobs = [words[at + 1] for at, word in enumerate(words) if word == "-fw_cfg"]
    files = {"kernel": "kernel", "initrd": "initrd", "cmdline": "cmdline"}
    assert blobs == [f"name=etc/boot/{name},file={tmp_path / file}" for name, file in files.items()]
    assert words[: words.index("-bios")] == given[: given.index("-kernel")]


@pytest.mark.parametrize("option", ["-kernel", "-initrd", "-append"])
def test_what_is_not_listed_is_not_given(tmp_path: Path, option: str) -> None:
    given = listed(tmp_path)
    at = given.index(option)
    words = under(tmp_path, given[:at] + given[at + 2 :])
    assert option not in words
    assert sum("etc/boot/" in word for word in words) == 2


def test_twice(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="-append stands twice"):
        under(tmp_path, [*listed(tmp_path), "-append", "other"])


def test_a_comma_in_a_path(tmp_path: Path) -> None:
    assert measured_boot.blob("shim", Path("/a,b")) == ["-fw_cfg", "name=etc/boot/shim,file=/a,,b"]
