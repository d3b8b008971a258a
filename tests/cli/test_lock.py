"""`tinboot lock`: writes what mkosi took and apt vouches for, and says what changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from mirror import lock as small
from mirror import package

from tinboot.builder import archive, lockfile, mkosi_tool, places, prepare, relock
from tinboot.builder.lockfile import Lock
from tinboot.builder.mkosi import Mkosi
from tinboot.cli import lock
from tinboot.formats.errors import Unavailable


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose archive has alpha 2 and gamma 1 today; tools are locked to alpha 1 and beta 1."""

    def today(distribution: str, release: str, *_: object) -> Lock:
        packages = (package("alpha", "2"), package("gamma", "1"))
        return Lock(distribution, release, "20261231T000000Z", packages)

    (tmp_path / "packages").mkdir()
    (tmp_path / "packages/tools.lock").write_text(lockfile.dump(small("alpha", "beta")))
    monkeypatch.setattr(places, "REPOSITORY", tmp_path)
    for kind in ("debian", "debian-security"):
        monkeypatch.setenv(f"TINBOOT_{kind.upper().replace('-', '_')}_MIRROR", "http://mirror.invalid/d")
    monkeypatch.setattr(mkosi_tool, "find_mkosi", lambda: Mkosi(("false",), {}, "27.1", ""))
    monkeypatch.setattr(prepare, "tree", lambda *_: tmp_path)
    monkeypatch.setattr(prepare, "download", lambda *_: [])
    monkeypatch.setattr(prepare, "python_packages", lambda *_: tmp_path)
    monkeypatch.setattr(relock, "lock_of", today)
    return tmp_path


def test_renews_all_and_says_what_changed(repository: Path) -> None:
    result = CliRunner().invoke(lock.command, ["--distribution", "debian"])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "- beta 1.0",
        "+ gamma 1",
        *2 * ["+ alpha 2", "+ gamma 1"],
    ]
    for name in ("tools", "firmware", "debian"):
        path = repository / "packages" / f"{name}.lock"
        assert lockfile.parse(name, path.read_text()).stamp == "20261231T000000Z"
        assert path.stat().st_mode & 0o777 == 0o644


def test_without_tools(repository: Path) -> None:
    before = (repository / "packages/tools.lock").read_text()
    result = CliRunner().invoke(lock.command, ["--distribution", "debian", "--no-tools"])
    assert result.exit_code == 0
    assert (repository / "packages/tools.lock").read_text() == before


def test_a_failure_leaves_the_lock(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Lock:
        raise Unavailable("no")

    monkeypatch.setattr(relock, "lock_of", fail)
    before = (repository / "packages/tools.lock").read_text()
    result = CliRunner().invoke(lock.command, ["--distribution", "debian"])
    assert isinstance(result.exception, Unavailable)
    assert (repository / "packages/tools.lock").read_text() == before
    assert [path.name for path in (repository / "packages").iterdir()] == ["tools.lock"]


def test_an_archive_that_this_machine_does_not_know(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "read_sources", list)
    result = CliRunner().invoke(lock.command, ["--distribution", "ubuntu", "--no-tools"])
    assert isinstance(result.exception, Unavailable)
    assert "TINBOOT_UBUNTU_MIRROR" in result.exception.hint
