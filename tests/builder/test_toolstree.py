"""The tools tree: made once for each lock, whole or not at all, behind one link."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakemkosi import fake

from tinboot.builder import toolstree
from tinboot.formats.errors import Unavailable

MAKE = """
tree = Path(option["output-directory"]) / "tools"
(tree / "usr/bin").mkdir(parents=True)
(tree / "usr/bin/tool").write_text(Path(option["package-directory"]).name)
with open(Path(sys.argv[0]).with_name("calls"), "a") as calls:
    calls.write(json.dumps(sorted(option)) + "\\n")
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    top = tmp_path / "checkout"
    (top / "mkosi.tools").mkdir(parents=True)
    (top / "packages").mkdir()
    (top / "mkosi.tools/mkosi.conf").write_text("[Output]\n")
    (top / "packages/tools.lock").write_text("one\n")
    return top


def make(tmp_path: Path, repository: Path, body: str = MAKE, name: str = "tools") -> Path:
    tool = fake(tmp_path / "mkosi", body)
    return toolstree.make(tool, repository, name, tmp_path / "debs", tmp_path / "build", lambda _: None)


def calls(tmp_path: Path) -> int:
    return len((tmp_path / "calls").read_text().splitlines())


def test_made_once(tmp_path: Path, repository: Path) -> None:
    link = make(tmp_path, repository)
    assert link == tmp_path / "build/tools"
    assert link.is_symlink()
    assert (link / "usr/bin/tool").read_text() == "debs"
    assert make(tmp_path, repository) == link
    assert calls(tmp_path) == 1
    left = {path.name for path in (tmp_path / "build").iterdir()}
    assert left == {"tools", link.readlink().name, "tools.log", ".tools.lock"}


@pytest.mark.parametrize("name", ["packages/tools.lock", "mkosi.tools/mkosi.conf"])
def test_another_lock_or_recipe_makes_another(tmp_path: Path, repository: Path, name: str) -> None:
    before = make(tmp_path, repository).readlink()
    (repository / name).write_text("two\n")
    after = make(tmp_path, repository).readlink()
    assert before != after
    assert calls(tmp_path) == 2
    (repository / name).write_text("three\n")
    make(tmp_path, repository)
    assert len(list((tmp_path / "build").glob("tools-*"))) == 2  # the newest two


@pytest.mark.parametrize("body", ["sys.exit(1)", "say('x')"])
def test_a_failure_leaves_nothing(tmp_path: Path, repository: Path, body: str) -> None:
    half = 'Path(option["output-directory"], "half").write_text("x")\n'
    with pytest.raises(Unavailable):
        make(tmp_path, repository, half + body)
    assert {path.name for path in (tmp_path / "build").iterdir()} == {"tools.log", ".tools.lock"}


def test_a_build_folder_that_cannot_be_made(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "build").touch()
    with pytest.raises(Unavailable, match="build"):
        make(tmp_path, repository)
