"""The last look at the initrd, and the two nodes in front of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tinboot.builder import initrd, inventory, modules, tools
from tinboot.formats import cpio
from tinboot.formats.errors import Refused

LIST = "init\nusr/bin/python3\nusr/lib/*.so\n"
MODULE = "usr/lib/modules/6.1/kernel/a.ko"


def entries(*more: cpio.Entry) -> list[cpio.Entry]:
    found = [
        cpio.file("init", b"#!", 0o755),
        cpio.file("usr/bin/python3", b"ELF", 0o755),
        cpio.symlink("usr/lib/a.so", "b.so"),
        cpio.file(MODULE, b"ko"),
        cpio.file(modules.ORDER, f"/{MODULE}\n".encode()),
    ]
    names = {entry.path for entry in more}
    return cpio.with_parents([*(entry for entry in found if entry.path not in names), *more])


def check(*more: cpio.Entry) -> None:
    initrd.check(entries(*more), inventory.parse("list", LIST, {}))


def test_what_is_listed_passes() -> None:
    check()


@pytest.mark.parametrize(
    "entry",
    [
        cpio.file("etc/passwd", b""),
        cpio.file("usr/lib/modules/6.1/kernel/b.ko", b""),
        cpio.symlink("usr/lib/a", "b"),
        cpio.file("usr/bin/python3", b"", 0o4755),
        cpio.file("usr/bin/python3", b"", 0o777),
        cpio.file("usr/bin/python3", b"", 0o600),
        cpio.directory("usr/lib/x", 0o1777),
        cpio.character_device("usr/bin/python3", 1, 1, mode=0o644),
        cpio.block_device("usr/lib/a.so", 1, 1, mode=0o644),
    ],
)
def test_what_is_not_is_refused_by_name(entry: cpio.Entry) -> None:
    with pytest.raises(Refused) as refused:
        check(entry)
    assert f"'{entry.path}'" in refused.value.message


def test_without_a_list_of_modules() -> None:
    without = [entry for entry in entries() if entry.path != modules.ORDER]
    with pytest.raises(Refused, match="has no usr/lib/tinboot/modules"):
        initrd.check(without, [])


def test_nodes_in_front(tmp_path: Path) -> None:
    archive = cpio.write(entries())
    packed = subprocess.run([*tools.tool("zstd"), "-qc"], input=archive, stdout=subprocess.PIPE, check=True)
    (tmp_path / "archive").write_bytes(packed.stdout)
    (tmp_path / "list").write_text(LIST)
    made = initrd.finish(tmp_path / "archive", [tmp_path / "list"], {})
    assert made.endswith(packed.stdout)
    front = made.removesuffix(packed.stdout)
    assert len(front) % 512 == 0
    nodes = {entry.path: (entry.rdev, entry.mode & 0o777) for entry in cpio.read(front)}
    assert nodes == {"dev": ((0, 0), 0o755), "dev/console": ((5, 1), 0o600), "dev/urandom": ((1, 9), 0o444)}
