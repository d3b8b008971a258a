"""The initrd's kernel modules: reviewed, in order, complete."""

from __future__ import annotations

import lzma
import subprocess
import sys
from pathlib import Path

import pytest

from tinboot.builder import modules, places
from tinboot.formats.errors import Malformed, Refused

A, B, C = "kernel/a/a.ko", "kernel/b/b-b.ko", "kernel/c.ko"


@pytest.mark.parametrize("line", ["a.ko", "kernel/a.ko.xz", "/kernel/a.ko", "kernel/../a.ko", A])
def test_refused_lines_name_file_and_line(line: str) -> None:
    with pytest.raises(Malformed, match="modules:3: "):
        modules.parse("modules", f"# why\n{A}  # first\n{line}\n")


@pytest.mark.parametrize("name", ["debian", "ubuntu"])
def test_lists_of_the_recipes(name: str) -> None:
    path = places.REPOSITORY / "mkosi.images/initrd" / f"modules.{name}"
    listed = modules.parse(path.name, path.read_text())
    found = [Path(module).stem for module in listed]
    early, late = ["virtio_blk", "dm-mod", "dm-verity", "erofs"], ["button", "evdev", "configfs", "sev-guest"]
    services = ["net_failover", "virtio_net", "overlay", "bridge", "veth", "nf_tables"]
    wanted = [*early, "--", *late, "-- services", *services]
    assert [module for module in found if module in wanted] == wanted


def test_a_list_says_what_loads_after_the_hooks() -> None:
    for text in (f"{A}\n", f"{A}\n--\n{B}\n", f"{A}\n-- services\n--\n"):
        with pytest.raises(Malformed, match="expected the lines -- and -- services, in this order"):
            modules.parse("modules", text)


def test_dependencies() -> None:
    text = f"{A}.zst:\n{B}.xz: {A}.xz {C}\n"
    assert modules.dependencies(text) == {A: [], B: [A, C]}


def test_built_in_ones_are_passed_over() -> None:
    assert modules.to_load([A, B, "--", C], {A}, {B: [], C: [B]}) == [B, "--", C]


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        ({A: [], C: []}, f"{B} is neither built in nor there"),
        ({A: [C], B: [], C: []}, f"{A} needs {C}, which no line before it names"),
    ],
)
def test_what_would_fail_a_boot_fails_the_build(needs: dict[str, list[str]], message: str) -> None:
    with pytest.raises(Refused, match=message):
        modules.to_load([A, B, C], set(), needs)


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """usr/lib/modules/6.1-x with a module in each form."""
    folder = tmp_path / "6.1-x"
    for name in (A, B, C):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / A).with_suffix(".ko.xz").write_bytes(lzma.compress(b"module a"))
    (folder / C).write_bytes(b"module c")
    zstd = subprocess.run(["zstd", "-qc"], input=b"module b", stdout=subprocess.PIPE, check=True).stdout
    (folder / B).with_suffix(".ko.zst").write_bytes(zstd)
    (folder / "modules.builtin").write_text("kernel/built/in.ko\n")
    (folder / "modules.dep").write_text(f"{A}.xz:\n{B}.zst: {A}.xz\n{C}:\n")
    return folder


def test_the_program_of_the_finalize_script(tmp_path: Path, kernel: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "usr/lib/tinboot").mkdir(parents=True)
    (tmp_path / "list").write_text(f"kernel/built/in.ko\n{A}\n--\n{B}\n-- services\n{C}\n")
    command = [sys.executable, "-m", "tinboot.builder.modules", *map(str, (tmp_path / "list", kernel, tree))]
    subprocess.run(command, cwd=places.REPOSITORY, check=True, umask=0o077)
    order = (tree / modules.ORDER).read_text().splitlines()
    a, b, c = (f"/usr/lib/modules/6.1-x/{name}" for name in (A, B, C))
    assert order == [a, "", b, "", c]
    order = [a, b, c]
    found = [tree / path.removeprefix("/") for path in order]
    assert [path.read_bytes() for path in found] == [b"module a", b"module b", b"module c"]
    assert {path.stat().st_mode & 0o777 for path in (*found, tree / modules.ORDER)} == {0o644}
    assert {p.stat().st_mode & 0o777 for p in (tree / "usr/lib/modules").rglob("*") if p.is_dir()} == {0o755}


def test_the_program_says_one_error(tmp_path: Path, kernel: Path) -> None:
    (tmp_path / "list").write_text("kernel/gone.ko\n--\n-- services\n")
    command = [
        sys.executable,
        "-m",
        "tinboot.builder.modules",
        *map(str, (tmp_path / "list", kernel, tmp_path)),
    ]
    done = subprocess.run(command, cwd=places.REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the kernel is not what the list of modules is for")
