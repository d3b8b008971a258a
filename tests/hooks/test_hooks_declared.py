"""What a hook says of itself is true: its refusals, its length, its imports; and the docs say the same."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from stage import supervisor

from tinboot.formats import halt

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "initrd-hooks"
HOOKS = sorted(path for path in FOLDER.iterdir() if path.name[0].isdigit())
SOURCES = [*HOOKS, FOLDER / "init", *sorted((FOLDER / "stage").glob("*.py"))]

#: The first word of a reason that a module in stage/ completes: f"{kind}-missing".
KINDS = ("config", "root", "volume")

#: What the initrd's Python may import. Each module costs files in the measured set, and time in every boot.
ALLOWED = {
    *("__future__", "collections.abc", "typing", "struct", "re", "json", "hashlib"),
    *("ctypes", "errno", "fcntl", "gc", "os", "select", "signal", "sys", "time"),
}


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports(module: ast.Module) -> Iterator[str]:
    """Modules imported at run time: not those that only name types."""
    for at in ast.walk(module):
        if isinstance(at, ast.If) and ast.unparse(at.test) == "TYPE_CHECKING":
            at.body = []
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            yield node.module
            if node.module.startswith(("stage", "tinboot")):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def reachable(path: Path) -> set[Path]:
    """The file, and every file of ours that it imports, directly or not; but not the runner's own."""
    found, waiting = set(), [path]
    while waiting:
        at = waiting.pop()
        if at in found:
            continue
        found.add(at)
        for name in imports(tree(at)):
            base = FOLDER if name.startswith("stage") else ROOT
            file = base.joinpath(*name.split(".")).with_suffix(".py")
            if file.exists():
                waiting.append(file)
    return found


def constants(path: Path) -> set[object]:
    return {node.value for node in ast.walk(tree(path)) if isinstance(node, ast.Constant)}


def completed(path: Path) -> Iterator[str]:
    """What stands behind `kind` in the f-strings of the file: -missing, -size."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.JoinedStr) and len(node.values) == 2:
            start, end = node.values
            if isinstance(start, ast.FormattedValue) and isinstance(end, ast.Constant):
                suffix = str(end.value)
                if ast.unparse(start.value) == "kind" and suffix.startswith("-"):
                    yield suffix


def raised(path: Path) -> set[object]:
    """Every reason that the hook at `path` can raise: literals, and suffixes under the kinds it names."""
    kinds = [kind for kind in KINDS if kind in constants(path)]
    reasons: set[object] = set()
    for file in reachable(path):
        if file.name != "halt.py":  # which lists all
            reasons |= constants(file) & set(halt.REASONS)
            reasons |= {kind + suffix for kind in kinds for suffix in completed(file)}
    return reasons


@pytest.mark.parametrize("path", HOOKS, ids=lambda path: path.name)
def test_declares_exactly_the_reasons_it_can_raise(path: Path) -> None:
    docstring = ast.get_docstring(tree(path)) or ""
    declared = re.findall(r"[a-z0-9]+(?:-[a-z0-9]+)+", docstring.partition("Refuses")[2])
    assert len(declared) == len(set(declared))
    assert set(declared) == raised(path)
    assert set(declared) <= set(halt.REASONS)


def test_every_reason_has_a_place_that_raises_it() -> None:
    named: set[object] = set()
    guest = FOLDER.parent / "tinboot/guest"
    for file in (*(FOLDER / "stage").glob("*.py"), *guest.glob("*.py")):
        named |= constants(file) & set(halt.REASONS)
    assert named.union(*map(raised, HOOKS)) == set(halt.REASONS)


@pytest.mark.parametrize("path", HOOKS, ids=lambda path: path.name)
def test_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 120


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_imports_little(path: Path) -> None:
    ours = ("stage", "tinboot.formats")
    others = {name for name in imports(tree(path)) if not name.startswith(ours)}
    assert others <= ALLOWED


def test_docs_list_every_reason_with_its_meaning() -> None:
    page = (ROOT / "docs/boot.md").read_text().partition("\n## Refusals\n")[2]
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (.*) \|$", page, re.MULTILINE)
    assert dict(rows) == halt.REASONS
    assert len(rows) == len(halt.REASONS)


def test_docs_state_the_deadlines() -> None:
    page = " ".join((ROOT / "docs/boot.md").read_text().split())
    volumes, modules = supervisor.DEADLINES["30-volumes"], supervisor.DEADLINES["runner"]
    gpus = supervisor.DEADLINES["40-gpu"]
    assert (
        f"{supervisor.DEFAULT_DEADLINE} seconds a hook, {volumes} for `30-volumes`, {gpus} for `40-gpu`"
        in page
    )
    assert f"{modules} for loading the modules" in page
    assert len(supervisor.DEADLINES) == 3


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_reads_no_wall_clock(path: Path) -> None:
    used = {
        node.attr
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time"
    }
    assert used <= {"monotonic"}
