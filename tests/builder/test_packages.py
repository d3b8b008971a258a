"""Locked packages from a mirror: genuine files and nothing else, whatever the mirror and apt do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mirror import Mirror, broken, content, cut, lock, package, serve, wrong_bytes

from tinboot.builder import packages, places
from tinboot.builder.lockfile import Kind, Lock, Package
from tinboot.formats.errors import Unavailable


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Mirror]:
    (tmp_path / "apt.conf").write_text('Acquire::Retries "0";\nAcquire::http::Proxy "DIRECT";\n')
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    with serve() as served:
        yield served


def nothing(missing: list[Package], folder: Path) -> None:
    """A fallback that has nothing."""


def fetch(
    wanted: Lock, folder: Path, *uris: str, fallback: packages.Fallback = nothing
) -> list[tuple[int, int]]:
    counted: list[tuple[int, int]] = []

    def mirrors(kind: Kind) -> tuple[str, ...]:
        assert kind == "debian"
        return uris

    packages.fetch(
        wanted, folder, mirrors, progress=lambda done, of: counted.append((done, of)), fallback=fallback
    )
    return counted


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def all_of(wanted: Lock) -> dict[str, bytes]:
    return {p.file: content(p.name) for p in wanted.packages}


def test_fetches_all_and_nothing_twice(mirror: Mirror, tmp_path: Path) -> None:
    wanted = lock(*(f"p{number:02}" for number in range(20)))
    mirror.add(wanted)
    assert fetch(wanted, tmp_path / "new/debs", mirror.uri) == [(0, 20), (16, 20), (20, 20)]
    assert listing(tmp_path / "new/debs") == all_of(wanted)
    assert len(mirror.asked) == 20
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "new/debs").iterdir()} == {0o644}
    assert fetch(wanted, tmp_path / "new/debs") == [(20, 20)]  # and needs no mirror for that
    assert len(mirror.asked) == 20


def test_damaged_and_foreign_files_go(mirror: Mirror, tmp_path: Path) -> None:
    wanted = lock("alpha", "beta", "gamma")
    mirror.add(wanted)
    fetch(wanted, tmp_path / "debs", mirror.uri)
    alpha, beta, gamma = (tmp_path / "debs" / p.file for p in wanted.packages)
    alpha.write_bytes(b"damaged")
    beta.unlink()
    beta.symlink_to(gamma)
    (tmp_path / "debs/other.deb").touch()
    (tmp_path / "debs/folder").mkdir()
    fetch(wanted, tmp_path / "debs", mirror.uri)
    assert listing(tmp_path / "debs") == all_of(wanted)
    assert not beta.is_symlink()


@pytest.mark.parametrize("fault", [None, wrong_bytes])
def test_a_package_that_moved_is_named_with_the_remedy(
    mirror: Mirror, tmp_path: Path, fault: type[None]
) -> None:
    wanted = lock("alpha", "beta")
    mirror.add(wanted)
    beta = wanted.packages[1]
    if fault is None:
        del mirror.files[f"/debian/{beta.path}"]
    else:
        mirror.fail(beta, fault)
    with pytest.raises(Unavailable) as refused:
        fetch(wanted, tmp_path / "debs", mirror.uri)
    assert f"beta 1.0 (debian: {beta.path})" in refused.value.message
    assert "alpha" not in refused.value.message
    assert "tinboot lock --distribution debian" in refused.value.hint
    assert [path.name for path in (tmp_path / "debs").iterdir() if path.is_file()] == ["alpha_1.0_all.deb"]


@pytest.mark.parametrize("fault", [cut, broken])
def test_trouble_with_the_mirror_is_not_taken_for_a_move(
    mirror: Mirror, tmp_path: Path, fault: packages.Fallback
) -> None:
    wanted = lock("alpha", "beta")
    mirror.add(wanted)
    mirror.fail(wanted.packages[1], fault)  # type: ignore[arg-type] # parametrize's types

    def never(missing: list[Package], folder: Path) -> None:
        raise AssertionError("the snapshot is for packages that moved")

    with pytest.raises(Unavailable, match="cannot fetch beta: http") as refused:
        fetch(wanted, tmp_path / "debs", mirror.uri, fallback=never)
    assert "try again" in refused.value.hint
    mirror.faults.clear()
    mirror.asked.clear()
    fetch(wanted, tmp_path / "debs", mirror.uri, fallback=never)
    assert mirror.asked == [f"/debian/{wanted.packages[1].path}"]


def test_no_network(tmp_path: Path, mirror: Mirror) -> None:
    with pytest.raises(Unavailable, match="Connection refused") as refused:
        fetch(lock("alpha"), tmp_path / "debs", "http://127.0.0.1:1/x")
    assert refused.value.message.startswith("cannot fetch alpha: http://127.0.0.1:1/x/pool/")


def test_passwords_are_not_shown(tmp_path: Path, mirror: Mirror) -> None:
    with pytest.raises(Unavailable) as refused:
        fetch(lock("alpha"), tmp_path / "debs", "http://name:secret@127.0.0.1:1/x")
    assert "secret" not in refused.value.message


def test_the_next_mirror_is_asked_for_what_the_first_lacks(mirror: Mirror, tmp_path: Path) -> None:
    wanted = lock("alpha", "beta")
    mirror.add(wanted)
    del mirror.files[f"/debian/{wanted.packages[0].path}"]
    mirror.files[f"/second/{wanted.packages[0].path}"] = content("alpha")
    second = mirror.uri.replace("/debian", "/second/")
    fetch(wanted, tmp_path / "debs", mirror.uri, second)
    assert listing(tmp_path / "debs") == all_of(wanted)
    assert mirror.asked[-1] == f"/second/{wanted.packages[0].path}"


def test_a_mirror_in_a_folder_is_copied_not_linked(mirror: Mirror, tmp_path: Path) -> None:
    wanted = lock("alpha")
    source = tmp_path / "mirror" / wanted.packages[0].path
    source.parent.mkdir(parents=True)
    source.write_bytes(content("alpha"))
    source.chmod(0o600)
    fetch(wanted, tmp_path / "debs", f"file:{tmp_path}/mirror")
    arrived = tmp_path / "debs" / wanted.packages[0].file
    assert not arrived.is_symlink()
    assert (arrived.stat().st_mode & 0o777, source.stat().st_mode & 0o777) == (0o644, 0o600)


def test_the_fallback_gets_what_moved_and_is_not_trusted(mirror: Mirror, tmp_path: Path) -> None:
    wanted = lock("alpha", "beta", "gamma")
    mirror.add(Lock("debian", "x", "y", wanted.packages[:1]))
    asked = []

    def rescue(missing: list[Package], folder: Path) -> None:
        asked.extend(missing)
        (folder / missing[0].file).write_bytes(content("beta"))
        (folder / missing[1].file).write_bytes(b"another gamma")
        (folder / "more.deb").touch()

    with pytest.raises(Unavailable, match=r"gamma 1\.0") as refused:
        fetch(wanted, tmp_path / "debs", mirror.uri, fallback=rescue)
    assert asked == list(wanted.packages[1:])
    assert "beta" not in refused.value.message
    assert (tmp_path / "debs" / package("beta").file).read_bytes() == content("beta")


HELPER = """#!{python}
import os, signal, sys, time
words = sys.argv[3:]
for uri, target, digest in zip(words[::3], words[1::3], words[2::3]):
    name = os.path.basename(target).split("_")[0]
    if name == "beta":
        open(target, "w").write("half of it")
        {end}
    open(target, "wb").write(f"package {{name}}\\n".encode() * 1000)
"""


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "apt-helper"
    monkeypatch.setattr(packages, "APT_HELPER", str(program))
    return program


def write_helper(program: Path, end: str) -> None:
    program.write_text(HELPER.format(python=sys.executable, end=end))
    program.chmod(0o755)


def test_apt_killed_half_way(tmp_path: Path, helper: Path) -> None:
    write_helper(helper, "os.kill(os.getpid(), signal.SIGKILL)")
    wanted = lock("alpha", "beta", "gamma")
    with pytest.raises(Unavailable, match="cannot fetch beta, gamma: apt-helper ended with status -9"):
        fetch(wanted, tmp_path / "debs", "http://mirror.invalid/debian")
    assert (tmp_path / "debs" / package("alpha").file).exists()
    write_helper(helper, "pass")
    fetch(wanted, tmp_path / "debs", "http://mirror.invalid/debian")
    assert listing(tmp_path / "debs") == all_of(wanted)


def test_apt_that_hangs(tmp_path: Path, helper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_BATCH_DEADLINE", 1)
    write_helper(helper, "time.sleep(60)")
    with pytest.raises(Unavailable, match="beta, gamma: the mirror did not deliver 3 packages within 1 s"):
        fetch(lock("alpha", "beta", "gamma"), tmp_path / "debs", "http://mirror.invalid/debian")
    assert (tmp_path / "debs" / package("alpha").file).exists()


def test_no_apt(tmp_path: Path, helper: Path) -> None:
    with pytest.raises(Unavailable, match="apt-helper is not there"):
        fetch(lock("alpha"), tmp_path / "debs", "http://mirror.invalid/debian")


def test_a_killed_fetch_goes_on(tmp_path: Path, helper: Path) -> None:
    """What had arrived whole when the process was killed is taken; what had not is not."""
    write_helper(helper, "open(target + '.now', 'w'); time.sleep(60)")
    code = (
        "from pathlib import Path; import sys, mirror\n"
        "from tinboot.builder import packages\n"
        "packages.APT_HELPER = sys.argv[1]\n"
        "packages.fetch(mirror.lock('alpha', 'beta'), Path(sys.argv[2]), lambda kind: ['http://mirror.invalid'],"
        " progress=lambda *_: None, fallback=lambda *_: None)\n"
    )
    debs = tmp_path / "debs"
    environment = os.environ | {"PYTHONPATH": f"{places.REPOSITORY}:{places.REPOSITORY}/tests/support"}
    with subprocess.Popen([sys.executable, "-c", code, helper, debs], env=environment) as process:
        sign = debs / ".partial" / (package("beta").file + ".now")
        deadline = time.monotonic() + 60
        while not sign.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert [path.name for path in debs.iterdir()] == [".partial"]
    write_helper(helper, "sys.exit(100)")
    with pytest.raises(Unavailable, match="cannot fetch beta"):
        fetch(lock("alpha", "beta"), debs, "http://mirror.invalid")
    assert (debs / package("alpha").file).read_bytes() == content("alpha")
    assert not (debs / package("beta").file).exists()
