"""configfs-tsm on a folder that behaves as the kernel's: each read and write is one of the real interface.

An entry is a folder in a tmp_path whose files a stand-in for the kernel fills when it is made.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tinboot.guest import configfs_tsm
from tinboot.guest.evidence import BadAnswer, Busy, DeviceError, Evidence, NoDevice, Patience

DATA = bytes(range(64))
REPORT = b"r" * 1184
FILES = {
    "provider": b"sev_guest\n",
    "generation": b"2\n",
    "outblob": REPORT,
    "auxblob": b"table",
    "inblob": b"",
    "privlevel": b"",
}


class Tsm:
    """`entries` as the kernel shows them; `on_open` may raise for a file, or change it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entries = folder / "report"
        self.entries.mkdir()
        self.files = dict(FILES)
        self.opened: list[str] = []
        self.written: dict[str, bytes] = {}
        self.on_open: Callable[[str], None] = lambda _: None
        mkdir, rmdir, open_ = Path.mkdir, Path.rmdir, Path.open

        def make(path: Path) -> None:
            mkdir(path)
            for name, data in self.files.items():
                (path / name).write_bytes(data)

        def remove(path: Path) -> None:
            for file in path.iterdir():
                if file.name in ("inblob", "privlevel"):
                    self.written[file.name] = file.read_bytes()
                file.unlink()
            rmdir(path)

        def opening(path: Path, *rest: object, **named: object) -> object:
            if path.parent.parent == self.entries and rest == ("rb",):
                self.opened.append(path.name)
                self.on_open(path.name)
            return open_(path, *rest, **named)  # type: ignore[call-overload]  # passed on as given

        monkeypatch.setattr(Path, "mkdir", make)
        monkeypatch.setattr(Path, "rmdir", remove)
        monkeypatch.setattr(Path, "open", opening)

    def collect(self) -> Evidence:
        now = [0.0]

        def sleep(seconds: float) -> None:
            now[0] += seconds

        return configfs_tsm.collect(DATA, Patience(15, lambda: now[0], sleep), self.entries)

    @property
    def left(self) -> list[Path]:
        return list(self.entries.iterdir())


@pytest.fixture
def tsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tsm:
    return Tsm(tmp_path, monkeypatch)


def test_what_is_asked_and_given(tsm: Tsm) -> None:
    assert tsm.collect() == Evidence("configfs-tsm", REPORT, b"table")
    assert tsm.written == {"inblob": DATA, "privlevel": b"0"}
    assert tsm.opened == ["provider", "generation", "outblob", "auxblob", "generation"]
    assert tsm.left == []


@pytest.mark.parametrize("times", [1, 3])
def test_another_writer(tsm: Tsm, times: int) -> None:
    """`generation` has changed at the end: all is asked for again."""
    seen: list[str] = []

    def on_open(name: str) -> None:
        if name == "auxblob" and len(seen) < times:
            seen.append(name)
            (entry,) = tsm.left
            (entry / "generation").write_bytes(b"%d\n" % (9 + len(seen)))

    tsm.on_open = on_open
    assert tsm.collect().report == REPORT
    assert tsm.opened.count("outblob") == times + 1


def test_another_writer_for_ever(tsm: Tsm) -> None:
    def on_open(name: str) -> None:
        if name == "auxblob":
            (entry,) = tsm.left
            (entry / "generation").write_bytes(b"%d\n" % len(tsm.opened))

    tsm.on_open = on_open
    with pytest.raises(Busy, match="another writer changes it"):
        tsm.collect()
    assert len(tsm.opened) < 100
    assert tsm.left == []


def failing(tsm: Tsm, name: str, number: int, times: int = 1 << 30) -> None:
    left = [times]

    def on_open(opened: str) -> None:
        if opened == name and left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number))

    tsm.on_open = on_open


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT])
def test_busy(tsm: Tsm, number: int) -> None:
    failing(tsm, "outblob", number, times=2)
    assert tsm.collect().report == REPORT
    failing(tsm, "outblob", number)
    with pytest.raises(Busy, match="and so it was until the deadline"):
        tsm.collect()
    assert tsm.left == []


@pytest.mark.parametrize("name", ["provider", "generation", "outblob", "auxblob"])
@pytest.mark.parametrize("number", [errno.EIO, errno.EINVAL, errno.ENXIO])
def test_refused(tsm: Tsm, name: str, number: int) -> None:
    failing(tsm, name, number)
    with pytest.raises(DeviceError, match=f"{name}: {os.strerror(number)}"):
        tsm.collect()
    assert tsm.left == []


@pytest.mark.parametrize("name", ["inblob", "privlevel"])
def test_a_write_that_is_refused(tsm: Tsm, name: str) -> None:
    del tsm.files[name]
    with pytest.raises(DeviceError, match=f"{name}: No such file"):
        tsm.collect()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("provider", b"tdx_guest\n", "the provider is 'tdx_guest', not sev_guest"),
        ("provider", b"x" * 65, "more than 64 bytes"),
        ("generation", b"1" * 65, "more than 64 bytes"),
        ("outblob", REPORT[:-1], "1183 bytes, expected 1184"),
        ("outblob", b"", "0 bytes, expected 1184"),
        ("outblob", REPORT + b"x", "more than 1184 bytes"),
        ("auxblob", bytes(16385), "more than 16384 bytes"),
    ],
)
def test_malformed(tsm: Tsm, name: str, content: bytes, message: str) -> None:
    tsm.files[name] = content
    with pytest.raises(BadAnswer, match=message):
        tsm.collect()
    assert tsm.left == []


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EOPNOTSUPP])
def test_no_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """tsm.ko without a provider answers mkdir with ENXIO; without tsm.ko there is no folder."""

    def make(path: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", make)
    with pytest.raises(NoDevice, match=os.strerror(number)):
        configfs_tsm.collect(DATA, Patience(), tmp_path)


def test_an_entry_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / f"tinboot-{os.getpid()}").touch()
    with pytest.raises(DeviceError, match="File exists"):
        configfs_tsm.collect(DATA, Patience(), tmp_path)


def test_other_lengths_are_the_callers_fault(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="64 bytes"):
        configfs_tsm.collect(bytes(48), Patience(), tmp_path)
