"""Everything a locked build needs, fetched once; the snapshot archive where a mirror has moved on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakemkosi import fake
from mirror import Mirror, content, lock, serve

from tinboot.builder import archive, lockfile, places, prepare
from tinboot.builder.lockfile import Lock, Package
from tinboot.builder.mkosi import Mkosi
from tinboot.formats.errors import Unavailable

#: What mkosi does with `Snapshot=`: it downloads packages into its cache, then fails or not.
SNAPSHOT = """
cache = Path(option["package-cache-directory"]) / "debian/archives"
cache.mkdir(parents=True)
Path(sys.argv[0]).with_name("called").write_text(json.dumps(sys.argv))
(cache / "beta_1.0_all.deb").write_text({content!r})
say("‣ Resolving failed" if {status} else "‣ Done")
sys.exit({status})
"""


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Mirror]:
    """A checkout whose tools are locked to alpha and beta, and a mirror that has alpha only."""
    (tmp_path / "apt.conf").write_text('Acquire::Retries "0";\nAcquire::http::Proxy "DIRECT";\n')
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages/tools.lock").write_text(lockfile.dump(lock("alpha", "beta")))
    monkeypatch.setattr(places, "REPOSITORY", tmp_path)
    monkeypatch.setenv("TINBOOT_BUILD", str(tmp_path / "build"))
    with serve() as served:
        served.add(lock("alpha"))
        monkeypatch.setenv(archive.variable("debian"), served.uri)
        yield served


def run(tool: Mkosi) -> tuple[Path, list[str]]:
    said: list[str] = []
    folder = prepare.locked_packages("tools", tool, said.append, lambda *_: None)
    return folder, said


def snapshot(tmp_path: Path, text: str, status: int = 0) -> Mkosi:
    return fake(tmp_path / "mkosi", SNAPSHOT.format(content=text, status=status))


def test_the_snapshot_of_the_locks_day(tmp_path: Path, mirror: Mirror) -> None:
    folder, said = run(snapshot(tmp_path, content("beta").decode()))
    assert {path.name for path in folder.iterdir()} == {"alpha_1.0_all.deb", "beta_1.0_all.deb"}
    assert said[0] == "not on this machine's mirrors: beta 1.0; trying the snapshot of 20261125T040357Z"
    arguments = json.loads((tmp_path / "called").read_text())
    assert "--snapshot=20261125T040357Z" in arguments
    assert f"--directory={tmp_path / 'mkosi.tools'}" in arguments
    assert not any(word.startswith("--mirror") for word in arguments)


@pytest.mark.parametrize(("text", "status"), [("beta of another day", 0), ("half", 1)])
def test_where_that_fails_the_package_and_the_command_are_named(
    tmp_path: Path, mirror: Mirror, text: str, status: int
) -> None:
    with pytest.raises(Unavailable, match=r"no longer has beta 1\.0") as refused:
        run(snapshot(tmp_path, text, status))
    assert refused.value.hint.endswith("tinboot lock --distribution debian")
    folder = tmp_path / "build/packages/tools"
    assert {path.name for path in folder.iterdir() if path.is_file()} == {"alpha_1.0_all.deb"}


def test_nothing_is_asked_for_what_is_there(
    tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.add(lock("beta"))
    run(Mkosi(("false",), {}, "27.1", ""))
    monkeypatch.delenv(archive.variable("debian"))
    monkeypatch.setattr(archive, "read_sources", list)  # apt's sources name no archive at all
    assert len(list(run(Mkosi(("false",), {}, "27.1", ""))[0].iterdir())) == 2


def test_no_mirror(tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(archive.variable("debian"))
    monkeypatch.setattr(archive, "read_sources", list)
    with pytest.raises(Unavailable, match="name no debian archive"):
        run(Mkosi(("false",), {}, "27.1", ""))


@pytest.fixture
def sources(mirror: Mirror, tmp_path: Path) -> list[Package]:
    """Two tarballs, alpha and gamma, that a checkout's firmware is made from; the mirror has the first."""
    packages = [
        Package(p.name, p.version, "source", p.sha256, p.archive, p.path.replace("_all.deb", ".tar.xz"))
        for p in lock("alpha", "gamma").packages
    ]
    (tmp_path / "ovmf").mkdir()
    made = Lock("debian", "trixie", "20261125T040357Z", tuple(packages))
    (tmp_path / "ovmf/sources.lock").write_text(lockfile.dump(made))
    mirror.files[f"/debian/{packages[0].path}"] = content("alpha")
    return packages


def get_sources() -> tuple[Path, ...]:
    return prepare.firmware_sources(lambda _: None, lambda *_: None)


def test_sources_of_the_firmware(mirror: Mirror, sources: list[Package]) -> None:
    mirror.files[f"/debian/{sources[1].path}"] = content("gamma")
    assert [path.read_bytes() for path in get_sources()] == [content("alpha"), content("gamma")]
    asked = len(mirror.asked)
    get_sources()
    assert len(mirror.asked) == asked  # a second time needs no network


def test_a_source_that_is_gone(tmp_path: Path, mirror: Mirror, sources: list[Package]) -> None:
    """It is named, and where to put it; put there by hand it is taken, if it is the one."""
    with pytest.raises(Unavailable, match=r"no longer has gamma_1\.0\.tar\.xz \(debian: pool/") as gone:
        get_sources()
    folder = tmp_path / "build/packages/sources"
    assert str(folder) in gone.value.hint
    assert "TINBOOT_DEBIAN_MIRROR" in gone.value.hint
    (folder / "gamma_1.0.tar.xz").write_bytes(b"another")
    with pytest.raises(Unavailable, match=r"gamma_1\.0\.tar\.xz"):
        get_sources()
    (folder / "gamma_1.0.tar.xz").write_bytes(content("gamma"))
    assert len(get_sources()) == 2


def test_a_locks_options_are_those_of_its_images() -> None:
    for tree in prepare.TREES:
        assert prepare.image_options(tree) == [f"--directory={places.REPOSITORY / f'mkosi.{tree}'}"]
    options = prepare.image_options("ubuntu")
    assert "--distribution=ubuntu" in options
    assert "--profile=debug" in options  # the widest: a lock holds the packages of every profile
