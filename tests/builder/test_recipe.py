"""Equal digests mean equal images: everything that reaches one is in it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tinboot.builder import archive, places, recipe
from tinboot.formats.errors import Malformed, Refused, Unavailable


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("initrd-hooks", "mkosi.conf", "mkosi.conf.d", "mkosi.images", "packages", "tinboot"):
        source = places.REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("*.pyc"))
        else:
            shutil.copy2(source, tmp_path / name)
    return tmp_path


def digest(
    checkout: Path, distribution: str = "debian", profile: str = "release", mkosi: str = "27.1"
) -> str:
    return recipe.Recipe(checkout, distribution, profile).digest(mkosi)


def test_the_place_does_not_matter(checkout: Path) -> None:
    assert digest(checkout) == digest(places.REPOSITORY)


def test_what_it_is_does(checkout: Path) -> None:
    variants = {
        digest(checkout),
        digest(checkout, profile="debug"),
        digest(checkout, "ubuntu"),
        digest(checkout, mkosi="27.2"),
    }
    assert len(variants) == 4


@pytest.mark.parametrize(
    "name",
    [
        "initrd-hooks/20-root",
        "initrd-hooks/stage/runner.py",
        "mkosi.conf",
        "mkosi.conf.d/debian.conf",
        "mkosi.images/initrd/inventory",
        "mkosi.images/root/mkosi.extra/etc/hosts",
        "mkosi.images/root/mkosi.profiles/debug/mkosi.conf",
        "packages/debian.lock",
        "packages/tools.lock",
        "tinboot/builder/hashtree.py",
        "tinboot/builder/inventory.py",
        "tinboot/formats/verity.py",
        "tinboot/guest/status.py",
    ],
)
def test_each_input_counts(checkout: Path, name: str) -> None:
    before = digest(checkout)
    with (checkout / name).open("a") as file:
        file.write("\n")
    assert digest(checkout) != before


def test_execute_bits_links_and_names_count(checkout: Path) -> None:
    seen = {digest(checkout)}
    script = checkout / "mkosi.images/root/mkosi.finalize"
    script.chmod(0o644)
    seen.add(digest(checkout))
    link = checkout / "mkosi.images/root/mkosi.extra/etc/resolv.conf"
    link.unlink()
    link.symlink_to("elsewhere")
    seen.add(digest(checkout))
    (checkout / "initrd-hooks/new").touch()
    seen.add(digest(checkout))
    assert len(seen) == 4


def test_what_does_not_reach_an_image_does_not_count(checkout: Path) -> None:
    before = digest(checkout)
    for name in ("tinboot/cli/build.py", "packages/host.txt", "tinboot/builder/wrap.py"):
        (checkout / name).write_text("x")
    (checkout / "tinboot/formats/__pycache__").mkdir(exist_ok=True)
    (checkout / "tinboot/formats/__pycache__/x.pyc").touch()
    (checkout / "mkosi.conf").chmod(0o600)
    assert digest(checkout) == before


def test_what_the_build_runs_is_an_input() -> None:
    """Modules of the builder that the recipes' scripts start, and those that make what an image holds."""
    inputs = recipe._INPUTS
    for script in (places.REPOSITORY / "mkosi.images").rglob("mkosi.finalize"):
        for module in re.findall(r"-m tinboot\.(\S+)", script.read_text()):
            assert f"tinboot/{module.replace('.', '/')}.py" in inputs
    assert [name for name in inputs if not (places.REPOSITORY / name).exists()] == []


@pytest.mark.parametrize(("distribution", "profile"), [("fedora", "release"), ("debian", "test")])
def test_unknown_ones_are_refused(distribution: str, profile: str) -> None:
    with pytest.raises(Refused, match=f"no recipe for {distribution}, {profile}"):
        recipe.Recipe(places.REPOSITORY, distribution, profile)


def test_a_missing_lock_names_the_command(checkout: Path) -> None:
    with pytest.raises(Unavailable, match=r"packages/ubuntu\.lock is not there") as refused:
        recipe.Recipe(checkout, "ubuntu", "release").lock()
    assert "tinboot lock --distribution ubuntu" in refused.value.hint


def test_a_damaged_lock_names_file_and_line(checkout: Path) -> None:
    with (checkout / "packages/debian.lock").open("a") as file:
        file.write("zsh\n")
    with pytest.raises(Malformed, match=r"packages/debian\.lock:\d+: "):
        recipe.Recipe(checkout, "debian", "release").lock()


def test_inventories(checkout: Path) -> None:
    lists = recipe.Recipe(checkout, "ubuntu", "debug").inventories("root")
    assert [path.name for path in lists] == ["inventory", "inventory.ubuntu", "inventory.debug"]
    lists = recipe.Recipe(checkout, "debian", "release").inventories("initrd")
    assert [path.name for path in lists] == ["inventory"]


@pytest.mark.parametrize(
    ("machine", "locks", "expected"),
    [
        ("debian", ["debian", "ubuntu"], "debian"),
        ("ubuntu", ["debian", "ubuntu"], "ubuntu"),
        ("ubuntu", ["debian"], "debian"),
        ("ubuntu", [], "ubuntu"),
    ],
)
def test_default_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, locks: list[str], expected: str
) -> None:
    monkeypatch.setattr(archive, "distribution_of_machine", lambda: machine)
    (tmp_path / "packages").mkdir()
    for name in locks:
        (tmp_path / "packages" / f"{name}.lock").touch()
    assert recipe.default_distribution(tmp_path) == expected
