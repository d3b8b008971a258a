"""The inventory: what no line names goes, what names nothing is an error, the rest is made uniform."""

from __future__ import annotations

import fnmatch
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.builder import inventory, places
from tinboot.formats.errors import Malformed, Refused

component = st.text("abc.", min_size=1, max_size=4).filter(lambda text: text not in {".", ".."})
paths = st.lists(component, min_size=1, max_size=4).map("/".join)


def take(line: str, path: str) -> bool:
    (parsed,) = inventory.parse("x", line, {})
    return parsed.pattern.fullmatch(path) is not None


@given(paths, paths)
def test_an_exact_line_takes_itself_alone(line: str, path: str) -> None:
    assert take(line, path) == (line == path)


@given(st.lists(st.text("ab*", min_size=1, max_size=4), min_size=1, max_size=4), paths)
def test_a_star_stays_within_a_component(parts: list[str], path: str) -> None:
    parts = [part.replace("**", "*").replace("**", "*") for part in parts]
    split = path.split("/")
    expected = len(split) == len(parts) and all(map(fnmatch.fnmatchcase, split, parts))
    assert take("/".join(parts), path) == expected


@given(paths, paths)
def test_two_stars_take_everything_below(folder: str, path: str) -> None:
    assert take(f"{folder}/**", path) == path.startswith(folder + "/")


@pytest.mark.parametrize(
    "line",
    ["/etc", "a//b", "a/../b", "./a", "a b", "{python}/x", "a/**/b", "a**", "**", "a/*/", ".."],
)
def test_refused_lines_name_file_and_line(line: str) -> None:
    with pytest.raises(Malformed, match="inventory:2: "):
        inventory.parse("inventory", f"usr\n{line}\n", {})


def test_comments_and_values() -> None:
    (line,) = inventory.parse("x", "# all\n\nusr/{python}/x  # why\n", {"python": "python3.13"})
    assert (line.text, line.number, line.exact) == ("usr/python3.13/x", 3, True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "usr/bin").mkdir(parents=True)
    (top / "usr/share/doc/x").mkdir(parents=True)
    (top / "proc").mkdir()
    (top / "empty").mkdir()
    (top / "usr/bin/tool").write_text("#!/bin/sh\n")
    (top / "usr/bin/other").write_text("")
    (top / "usr/share/a.txt").write_text("a")
    (top / "usr/share/run.sh").write_text("")
    (top / "usr/share/link").symlink_to("nowhere")
    (top / "usr/bin/tool").chmod(0o4711)
    (top / "usr/share/run.sh").chmod(0o775)
    (top / "usr/share").chmod(0o700)
    return top


def keep(tree: Path, text: str) -> None:
    inventory.keep(tree, inventory.parse("list", text, {}))


def listing(tree: Path) -> list[str]:
    return sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*"))


def test_keeps_what_is_named_and_nothing_else(tree: Path) -> None:
    keep(tree, "usr/bin/tool\nusr/share/*\nproc/\n")
    kept = ["proc", "usr", "usr/bin", "usr/bin/tool", "usr/share", "usr/share/a.txt"]
    assert listing(tree) == [*kept, "usr/share/link", "usr/share/run.sh"]


def test_modes_are_uniform(tree: Path) -> None:
    keep(tree, "usr/bin/tool\nusr/share/*\nproc/\n")
    modes = {path: stat.S_IMODE((tree / path).lstat().st_mode) for path in listing(tree)}
    assert modes["usr/bin/tool"] == 0o755  # no setuid bit
    assert modes["usr/share/run.sh"] == 0o644  # named by a wildcard only
    assert modes["usr/share"] == modes["proc"] == 0o755


def test_extended_attributes_go(tree: Path) -> None:
    try:
        os.setxattr(tree / "usr/bin/tool", "user.x", b"1")
    except OSError:
        pytest.skip("the file system of the temporary folder has no extended attributes")
    keep(tree, "usr/bin/tool\n")
    assert os.listxattr(tree / "usr/bin/tool") == []


def test_a_line_that_names_nothing_is_an_error(tree: Path) -> None:
    with pytest.raises(Refused) as refused:
        keep(tree, "usr/bin/tool\nusr/bin/gone\nno/such/**\n")
    assert "list:2: no path is usr/bin/gone" in refused.value.message
    assert "list:3: no path is no/such/**" in refused.value.message
    assert "list:1" not in refused.value.message


def test_a_directory_that_became_a_file_is_an_error(tree: Path) -> None:
    with pytest.raises(Refused, match="no path is usr/bin/tool/"):
        keep(tree, "usr/bin/tool/\n")


def test_neither_pipes_nor_devices(tree: Path) -> None:
    os.mkfifo(tree / "usr/bin/pipe")
    with pytest.raises(Refused, match="usr/bin/pipe is neither file, directory nor symlink"):
        keep(tree, "usr/bin/*\n")


def test_links_to_directories_are_not_entered(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    (tree / "way").symlink_to(outside)
    keep(tree, "usr/bin/tool\n")
    assert (outside / "file").exists()
    assert "way" not in listing(tree)


def run(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tinboot.builder.inventory", str(tree), *words]
    return subprocess.run(command, cwd=places.REPOSITORY, capture_output=True, text=True, check=False)


def test_the_program_of_the_finalize_scripts(tree: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "one", tmp_path / "two"
    first.write_text("usr/bin/{name}\n")
    second.write_text("usr/share/a.txt\n")
    assert run(tree, str(first), str(second), "name=tool").returncode == 0
    assert listing(tree) == ["usr", "usr/bin", "usr/bin/tool", "usr/share", "usr/share/a.txt"]


@pytest.mark.parametrize(("text", "said"), [("usr/bin/gone\n", ":1: no path is"), ("/usr\n", ":1: '/usr'")])
def test_the_program_says_one_error(tree: Path, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "list").write_text(text)
    done = run(tree, str(tmp_path / "list"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_library_is_an_error(tree: Path, tmp_path: Path) -> None:
    """Python itself needs at least a C library, which the tree has not."""
    (tree / "usr/bin/tool").write_bytes(Path(sys.executable).read_bytes())
    (tmp_path / "list").write_text("usr/bin/tool\n")
    done = run(tree, str(tmp_path / "list"))
    assert done.returncode == 1
    assert "usr/bin/tool needs libc.so.6" in done.stderr
