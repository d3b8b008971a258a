"""A lock is what apt's signed index says of the files that mkosi took: here with an archive of our own."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tinboot.builder import lockfile, places, relock
from tinboot.builder.lockfile import Kind, Package
from tinboot.cli import lock as command
from tinboot.formats.errors import Unavailable

CONTROL = (
    "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: A <a@example>\nDescription: x\n"
)
#: kind -> URI of the archive; the security one is empty.
Mirrors = dict[Kind, str]


def deb(folder: Path, name: str, version: str) -> Path:
    tree = folder / f"tree-{name}-{version.replace(':', '-')}"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(CONTROL.format(name=name, version=version))
    path = folder / "pool/main" / f"{name}_{version.rsplit(':', maxsplit=1)[-1]}_all.deb"
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["dpkg-deb", "-b", tree, path], check=True, capture_output=True)
    return path


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Mirrors]:
    """Writes the indices of two archives in folders; unsigned ones, which apt is told to trust."""
    sources = relock.sources

    def trusting(distribution: str, release: str, mirrors: Mirrors) -> str:
        return re.sub("Signed-By: .*", "Trusted: yes", sources(distribution, release, mirrors))

    monkeypatch.setattr(relock, "sources", trusting)
    monkeypatch.setattr(relock, "KEYRINGS", {"debian": "/dev/null"})
    main, security = tmp_path / "debian", tmp_path / "security"

    def index(strongest: str = "SHA256") -> Mirrors:
        for top in (main, security):
            top.mkdir(exist_ok=True)
            scanned = subprocess.run(
                ["apt-ftparchive", "packages", "."], cwd=top, check=True, capture_output=True, text=True
            ).stdout.replace("Filename: ./", "Filename: ")
            if strongest == "SHA256":
                scanned = re.sub("^SHA512: .*\n", "", scanned, flags=re.MULTILINE)
            for suite in ("trixie", "trixie-updates", "trixie-security"):
                place = top / "dists" / suite / "main/binary-amd64"
                place.mkdir(parents=True, exist_ok=True)
                (place / "Packages").write_text(scanned if suite == "trixie" else "")
                release = subprocess.run(
                    ["apt-ftparchive", "release", "."],
                    cwd=top / "dists" / suite,
                    check=True,
                    capture_output=True,
                ).stdout
                (top / "dists" / suite / "Release").write_bytes(f"Suite: {suite}\n".encode() + release)
        return {"debian": f"file:{main}", "debian-security": f"file:{security}"}

    return index


@pytest.mark.parametrize("strongest", ["SHA256", "SHA512"])
def test_what_mkosi_took(tmp_path: Path, publish: Callable[..., Mirrors], strongest: str) -> None:
    one, two = deb(tmp_path / "debian", "one", "1:1.0+b1"), deb(tmp_path / "debian", "two", "2.0~rc1")
    deb(tmp_path / "debian", "three", "3")
    cache = tmp_path / "cache"
    cache.mkdir()
    taken = [cache / "one_1%3a1.0+b1_all.deb", cache / "two_2.0~rc1_all.deb"]
    taken[0].write_bytes(one.read_bytes())
    taken[1].write_bytes(two.read_bytes())
    made = relock.lock_of("debian", "trixie", publish(strongest), taken, tmp_path / "apt")
    assert (made.distribution, made.release) == ("debian", "trixie")
    assert [(p.name, p.version, p.archive) for p in made.packages] == [
        ("one", "1:1.0+b1", "debian"),
        ("two", "2.0~rc1", "debian"),
    ]
    assert [p.sha256 for p in made.packages] == [hashlib.sha256(p.read_bytes()).hexdigest() for p in taken]
    assert [p.path for p in made.packages] == [
        "pool/main/one_1.0%2bb1_all.deb",
        "pool/main/two_2.0%7erc1_all.deb",
    ]
    assert lockfile.parse("x", lockfile.dump(made)) == made


def test_a_file_that_is_not_the_indexs(tmp_path: Path, publish: Callable[..., Mirrors]) -> None:
    deb(tmp_path / "debian", "one", "1")
    taken = tmp_path / "one_1_all.deb"
    taken.write_bytes(b"another")
    with pytest.raises(Unavailable, match=r"index and the file of one_1_all\.deb disagree"):
        relock.lock_of("debian", "trixie", publish(), [taken], tmp_path / "apt")


def test_a_package_that_apt_does_not_know(tmp_path: Path, publish: Callable[..., Mirrors]) -> None:
    deb(tmp_path / "debian", "one", "1")
    (tmp_path / "two_2_all.deb").touch()
    with pytest.raises(Unavailable, match=r"apt-get download failed: E: .*two"):
        relock.lock_of("debian", "trixie", publish(), [tmp_path / "two_2_all.deb"], tmp_path / "apt")


def test_an_archive_out_of_reach(tmp_path: Path, publish: Callable[..., Mirrors]) -> None:
    mirrors = publish() | {"debian": f"file:{tmp_path}/nowhere"}
    with pytest.raises(Unavailable, match="apt-get update failed") as refused:
        relock.lock_of("debian", "trixie", mirrors, [tmp_path / "one_1_all.deb"], tmp_path / "apt")
    assert "reachable" in refused.value.hint


def test_an_unsigned_archive_is_refused(
    tmp_path: Path, publish: Callable[..., Mirrors], monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrors = publish()
    monkeypatch.undo()
    with pytest.raises(Unavailable, match=r"apt-get update failed: E: .*not signed"):
        relock.lock_of("debian", "trixie", mirrors, [tmp_path / "one_1_all.deb"], tmp_path / "apt")


def test_a_missing_keyring_names_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relock, "KEYRINGS", {"ubuntu": str(tmp_path / "ubuntu-archive-keyring.gpg")})
    with pytest.raises(Unavailable, match=r"ubuntu-archive-keyring\.gpg is not there") as refused:
        relock.lock_of("ubuntu", "noble", {}, [], tmp_path)
    assert "ubuntu-keyring" in refused.value.hint


def test_releases_and_components_are_the_recipes() -> None:
    for name, release in command.RELEASES.items():
        text = (places.REPOSITORY / "mkosi.conf.d" / f"{name}.conf").read_text()
        assert f"\nRelease={release}\n" in text
        listed = re.search(r"^Repositories=\n((?:\s+[\w-]+\n)*)", text, re.MULTILINE)
        components = ["main", *(listed[1].split() if listed else [])]
        assert relock.COMPONENTS[name].split() == components
    tools = (places.REPOSITORY / "mkosi.tools/mkosi.conf").read_text()
    assert f"\nRelease={command.RELEASES['debian']}\n" in tools


def test_sources_name_each_suite_once() -> None:
    text = relock.sources(
        "ubuntu", "noble", {"ubuntu": "http://a.example/u", "ubuntu-security": "http://b.example/u"}
    )
    assert re.findall("Suites: (.*)", text) == ["noble noble-updates", "noble-security"]
    assert re.findall("Signed-By: .*ubuntu-archive-keyring", text) == 2 * [
        "Signed-By: /usr/share/keyrings/ubuntu-archive-keyring"
    ]


def test_changes() -> None:
    def package(name: str, version: str, digest: str) -> Package:
        return Package(name, version, "all", digest * 64, "debian", f"pool/{name}.deb")

    before = tuple(package(name, "1", "a") for name in ("gone", "moved", "rebuilt", "same"))
    after = (package("moved", "2", "b"), package("new", "1", "a"), package("rebuilt", "1", "c"), before[3])
    lines = command.changes(before, lockfile.Lock("debian", "trixie", "x", after))
    assert lines == ["- gone 1", "  moved 1 -> 2", "+ new 1", "  rebuilt 1 -> 1, another file"]
