"""The two programs that volumes and hash trees are compared with, called as a person would call them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tinboot.builder.tools import tool

#: (data file, salt, UUID) -> root hash; appends superblock and tree.
Format = Callable[[Path, str, str], str]
#: (tree, volume to make, salt, UUID) -> root hash.
Plain = Callable[[Path, Path, str, str], str]


def _format(path: Path, salt: str, uuid: str) -> str:
    """Appends superblock and tree to the data in `path`; returns the root hash."""
    offset = f"--hash-offset={path.stat().st_size}"
    command = [*tool("veritysetup"), "format", f"--salt={salt or '-'}", f"--uuid={uuid}", offset]
    said = subprocess.run([*command, str(path), str(path)], check=True, capture_output=True, text=True).stdout
    root: str = said.split("Root hash:")[1].split()[0]
    return root


def _plain(tree: Path, out: Path, salt: str, uuid: str) -> str:
    """mkfs.erofs on a plain copy of `tree` with normal modes, then veritysetup; returns the root hash."""
    copy = out.with_name(out.name + ".copy")
    shutil.copytree(tree, copy)
    for folder, _, files in os.walk(copy):
        Path(folder).chmod(0o755)
        for name in files:
            path = Path(folder, name)
            path.chmod(0o755 if path.stat().st_mode & 0o111 else 0o644)
    command = [*tool("mkfs.erofs"), "--quiet", "--all-root", "-T0", f"-U{uuid}"]
    subprocess.run([*command, str(out), str(copy)], check=True, capture_output=True)
    shutil.rmtree(copy)
    return _format(out, salt, uuid)


@pytest.fixture(scope="session")
def veritysetup_format() -> Format:
    return _format


@pytest.fixture(scope="session")
def plain_volume() -> Plain:
    return _plain
