"""`tinboot gpu ocsp`: what goes on the disk comes off it, and nothing that is no response goes on."""

from __future__ import annotations

from pathlib import Path

import fake_nvidia
import pytest
from click.testing import CliRunner, Result

from tinboot.cli import gpu_ocsp
from tinboot.formats import ocspdisk
from tinboot.formats.errors import TinbootError

RESPONSES = tuple(answer.pack() for answer in fake_nvidia.ocsp()[1:])


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{number}.der" for number in range(len(RESPONSES))]
    for path, data in zip(paths, RESPONSES, strict=True):
        path.write_bytes(data)
    return [str(path) for path in paths]


def run(*words: str) -> Result:
    return CliRunner().invoke(gpu_ocsp.command, list(words))


def failure(result: Result) -> TinbootError:
    assert isinstance(result.exception, TinbootError), result
    return result.exception


def test_what_goes_on_the_disk_comes_off_it(files: list[str], tmp_path: Path) -> None:
    result = run(*files, "-o", str(tmp_path / "disk"))
    assert result.exit_code == 0
    disk = (tmp_path / "disk").read_bytes()
    assert ocspdisk.unpack(disk) == RESPONSES
    assert f"3 responses, {len(disk)} bytes" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.der", "1.der", "2.der", "disk"]


def test_a_disk_that_is_there_stays(files: list[str], tmp_path: Path) -> None:
    target = tmp_path / "disk"
    target.write_bytes(b"mine")
    assert failure(run(*files, "-o", str(target))).exit_code == 5
    assert target.read_bytes() == b"mine"
    assert run(*files, "-o", str(target), "--force").exit_code == 0
    assert target.read_bytes() != b"mine"


@pytest.mark.parametrize(
    ("data", "code", "told"),
    [
        (b"noise", 3, "0.der: "),
        (b"", 3, "0.der: "),
        (RESPONSES[0][:-1], 3, "0.der: "),
        (RESPONSES[0] + b"x", 3, "0.der: "),
        (bytes.fromhex("30030a0103"), 6, "0.der: an OCSP response of status 3, tryLater"),
        (bytes(100_000), 3, "expected at most 16384"),
    ],
)
def test_what_is_no_response(files: list[str], tmp_path: Path, data: bytes, code: int, told: str) -> None:
    Path(files[0]).write_bytes(data)
    error = failure(run(*files, "-o", str(tmp_path / "disk")))
    assert error.exit_code == code
    assert told in error.message
    assert not (tmp_path / "disk").exists()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert failure(run(str(tmp_path / "none"), "-o", str(tmp_path / "disk"))).exit_code == 6


def test_nothing_given(tmp_path: Path) -> None:
    assert run("-o", str(tmp_path / "disk")).exit_code == 2
