"""The tree of NVIDIA's Python: what the inventory lists, out of wheels, and equal however it is made."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from tinboot.builder import nv_verifier, places, wheels
from tinboot.formats.errors import Refused

INVENTORY = """pynvml.py
nv-verifier/child.py
nv-verifier/site/verifier/*.py
nv-verifier/site/native.cpython-{abi}.so
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with locks of two wheels, which are in the store."""
    build = tmp_path / "build"
    (build / "packages/wheels").mkdir(parents=True)
    monkeypatch.setenv("TINBOOT_BUILD", str(build))
    monkeypatch.setattr(places, "REPOSITORY", tmp_path)
    contents = {
        ("nvml", "nvidia_ml_py-1-py3-none-any.whl"): [
            "pynvml.py",
            "example.py",
            "nvidia_ml_py-1.dist-info/RECORD",
        ],
        ("nv-verifier", "verifier-2-cp313-cp313-any.whl"): [
            "verifier/__init__.py",
            "verifier/samples/rim.xml",
            "native.cpython-313.so",
        ],
    }
    files = {
        "mkosi.images/root/nv-verifier.inventory": INVENTORY,
        "tinboot/guest/nv_child.py": "the child",
        "tinboot/builder/nv_verifier.py": "this",
    }
    for (lock, name), members in contents.items():
        path = build / "packages/wheels" / name
        with zipfile.ZipFile(path, "w") as archive:
            for member in members:
                archive.writestr(member, f"content of {member}")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        package, version = name.split("-")[:2]
        files[f"packages/{lock}.lock"] = f"{package.replace('_', '-')}=={version} --hash=sha256:{digest}\n"
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def make(python: str = "3.13") -> Path:
    return nv_verifier.make(python, lambda _: None, lambda *_: None)


def listing(tree: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(tree)): (path.stat().st_mode, b"" if path.is_dir() else path.read_bytes())
        for path in tree.rglob("*")
    }


def test_the_tree_is_what_the_inventory_lists(checkout: Path) -> None:
    tree = make()
    assert {name for name, (_, data) in listing(tree).items() if data} == {
        "pynvml.py",
        "nv-verifier/child.py",
        "nv-verifier/site/verifier/__init__.py",
        "nv-verifier/site/native.cpython-313.so",
    }
    assert (tree / "nv-verifier/child.py").read_text() == "the child"


def test_it_is_made_once(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = make()
    monkeypatch.setattr(wheels, "fetch", lambda *_: pytest.fail("fetched"))
    assert make() == tree


def test_it_is_equal_whatever_the_umask(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = listing(make())
    monkeypatch.setenv("TINBOOT_BUILD", str(checkout / "other"))
    (checkout / "other/packages").mkdir(parents=True)
    (checkout / "other/packages/wheels").symlink_to(checkout / "build/packages/wheels")
    before = os.umask(0o077)
    try:
        second = make()
    finally:
        os.umask(before)
    assert listing(second) == first
    assert second.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    "source", ["packages/nvml.lock", "tinboot/guest/nv_child.py", "mkosi.images/root/nv-verifier.inventory"]
)
def test_another_source_is_another_tree(source: str, checkout: Path) -> None:
    tree = make()
    with (checkout / source).open("a") as file:
        file.write("# more\n")
    assert make() != tree
    assert tree.exists()


def test_a_wheel_that_lacks_what_is_listed(checkout: Path) -> None:
    with (checkout / "mkosi.images/root/nv-verifier.inventory").open("a") as file:
        file.write("nv-verifier/site/gone.py\n")
    with pytest.raises(Refused, match=r"no path is nv-verifier/site/gone\.py"):
        make()
    assert not list((checkout / "build").glob("nv-verifier-*"))


def test_a_python_is_a_version() -> None:
    with pytest.raises(ValueError, match="not '3'"):
        make("3")


def test_progress_names_the_lock(checkout: Path) -> None:
    told: list[tuple[str, int, int]] = []
    nv_verifier.make("3.13", lambda _: None, lambda *given: told.append(given))
    assert told == [("nvml", 0, 1), ("nvml", 1, 1), ("nv-verifier", 0, 1), ("nv-verifier", 1, 1)]


def test_the_inventory_of_this_checkout_names_no_tests_and_no_samples() -> None:
    text = (places.REPOSITORY / "mkosi.images/root/nv-verifier.inventory").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(lines) == len(set(lines))
    assert not [line for line in lines if "samples" in line or "/test" in line.removesuffix("test_handle.py")]
