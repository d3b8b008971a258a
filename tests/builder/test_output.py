from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from tinboot.builder.output import publish, scratch, write_whole
from tinboot.builder.stopping import Stopped, stoppable
from tinboot.formats.errors import Refused, Unavailable


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_whole_files(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"one")
    with pytest.raises(Refused, match="exists already"):
        write_whole(tmp_path / "a", b"two")
    assert (tmp_path / "a").read_bytes() == b"one"
    write_whole(tmp_path / "a", b"two", force=True)
    assert (tmp_path / "a").read_bytes() == b"two"
    assert listing(tmp_path) == ["a"]


def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: Path, _target: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    write_whole(tmp_path / "a", b"one")
    with pytest.raises(Refused, match="exists already"):
        write_whole(tmp_path / "a", b"two")
    assert (tmp_path / "a").read_bytes() == b"one"


def test_a_dangling_link_counts_as_existing(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("nowhere")
    with pytest.raises(Refused):
        write_whole(tmp_path / "a", b"one")
    assert listing(tmp_path) == ["a"]


def test_scratch_is_private_and_goes_away(tmp_path: Path) -> None:
    def fail() -> None:
        with scratch(tmp_path / "final") as folder:
            assert folder.parent == tmp_path
            assert folder.stat().st_mode & 0o777 == 0o700
            (folder / "half").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert listing(tmp_path) == []


def test_errors_name_the_place(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no/such"), scratch(tmp_path / "no/such" / "final"):
        pass
    with pytest.raises(Unavailable, match="missing"):
        publish(tmp_path / "missing", tmp_path / "final")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_unwind(signum: signal.Signals) -> None:
    before = signal.getsignal(signum)
    with pytest.raises(Stopped) as caught, stoppable():
        signal.raise_signal(signum)
    assert caught.value.signum == signum
    assert signal.getsignal(signum) is before
