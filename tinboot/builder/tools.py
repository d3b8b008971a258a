"""The programs that builds call: from the tools tree, else from the host's PATH.

The tools tree is a Debian directory made from locked packages (mkosi.tools/). Its programs run through
its own dynamic loader, so that neither root nor chroot is needed and the host's libraries play no part:
the version of mkfs.erofs decides the bytes of a volume.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tinboot.builder import places
from tinboot.formats.errors import Unavailable

#: Overrides where the tools tree is.
TOOLS_VARIABLE = "TINBOOT_TOOLS"

#: Where system administration programs are on hosts whose users do not have it in their PATH.
_SBIN = "/usr/sbin:/sbin"

#: program -> Debian package, for the remedy.
_PACKAGES = {"mkfs.erofs": "erofs-utils", "fsck.erofs": "erofs-utils", "veritysetup": "cryptsetup-bin"}


@dataclass(frozen=True, slots=True)
class Tool:
    """`argv` is the prefix of a command; `origin` is "tools tree" or "host"."""

    name: str
    argv: tuple[str, ...]
    origin: str


def tools_tree() -> Path | None:
    """The tools tree: $TINBOOT_TOOLS, else `tools` in the build folder where that exists.

    Raises Unavailable if the variable names something that is no directory.
    """
    named = os.environ.get(TOOLS_VARIABLE)
    if named:
        tree = Path(named).absolute()
        if not tree.is_dir():
            raise Unavailable(
                f"{TOOLS_VARIABLE}={named} is not a directory", "unset it, or run `tinboot setup`"
            )
        return tree
    tree = places.build_folder() / "tools"
    return tree if tree.is_dir() else None


def find_tool(name: str) -> Tool:
    """Raises Unavailable, with the remedy, if neither the tools tree nor (without one) the host has it."""
    tree = tools_tree()
    if tree is not None:
        return _from_tree(tree, name)
    path = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":" + _SBIN)
    if path is None:
        package = f", or `apt install {_PACKAGES[name]}`" if name in _PACKAGES else ""
        raise Unavailable(f"{name} is not installed", f"run `tinboot setup`{package}")
    return Tool(name, (path,), "host")


def tool(name: str) -> list[str]:
    """The argument list's beginning that starts the program `name`."""
    return list(find_tool(name).argv)


def _from_tree(tree: Path, name: str) -> Tool:
    loader = tree / "usr/lib64/ld-linux-x86-64.so.2"
    libraries = tree / "usr/lib/x86_64-linux-gnu"
    for folder in ("usr/bin", "usr/sbin"):
        program = tree / folder / name
        if program.is_file():
            # systemd's programs find libsystemd-shared by an absolute RUNPATH, which would be the host's
            search = f"{libraries}:{libraries / 'systemd'}"
            return Tool(name, (str(loader), "--library-path", search, str(program)), "tools tree")
    raise Unavailable(f"the tools tree {tree} has no {name}", "run `tinboot setup` to make it again")


def version(found: Tool) -> str:
    """The version a tool states of itself, such as "1.8.6"; raises Unavailable if it does not run.

    `-V` answers on every erofs-utils: 1.5 does not know it and prints its version before its usage.
    """
    option = "-V" if found.name.endswith(".erofs") else "--version"
    try:
        done = subprocess.run(
            [*found.argv, option],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env={"LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{found.name} ({found.origin}) does not run: {error}") from None
    match = re.search(r"\d+\.\d+(?:\.\d+)*", done.stdout + done.stderr)
    if match is None:
        said = (done.stderr or done.stdout).strip()[:200]
        raise Unavailable(f"{' '.join(found.argv)} {option} tells no version: {said!r}")
    return match[0]
