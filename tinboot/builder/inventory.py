"""The inventory: the reviewed list of every path an image may hold.

One path or glob a line, relative to the root of the tree, `#` begins a comment:

    usr/bin/{python}                    exact: keeps an execute bit, which a wildcard does not
    usr/lib/systemd/system/*.target     `*` stays within one component
    usr/lib/{python}/json/**            `**` at the end takes everything below
    proc/                               an empty directory; parents of what is kept need no line

`keep` works by allow-list: what no line names is dropped, a line that names nothing is an error, so the
list can neither grow stale nor let a package update bring something in. Ownership, modes and extended
attributes are made uniform, which also ends setuid bits: 0:0, 0755 for directories and for executables that
an exact line names, else 0644.

mkosi's finalize scripts run `python3 -m tinboot.builder.inventory TREE LIST... [NAME=VALUE...]`.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tinboot.builder import elf
from tinboot.formats.errors import Malformed, Refused


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an inventory: where it stands, what it says, and the paths it takes."""

    file: str
    number: int
    text: str
    pattern: re.Pattern[str]

    @property
    def exact(self) -> bool:
        """True where the line names one path: no wildcard."""
        return "*" not in self.text


def parse(file: str, text: str, values: dict[str, str]) -> list[Line]:
    """The lines of one list, `{name}` replaced from `values`; raises `Malformed` with file and line."""
    lines = []
    for number, raw in enumerate(text.splitlines(), 1):
        entry = raw.split("#", 1)[0].strip()
        if not entry:
            continue
        for name, value in values.items():
            entry = entry.replace("{" + name + "}", value)
        bad = [part for part in entry.rstrip("/").split("/") if part in ("", ".", "..")]
        if bad or "{" in entry or any(c.isspace() for c in entry):
            raise Malformed(
                f"{file}:{number}: {raw.strip()!r} is not a path relative to the root of the tree"
            )
        if "**" in entry.removesuffix("/**") or ("*" in entry and entry.endswith("/")):
            raise Malformed(
                f"{file}:{number}: {raw.strip()!r}: `**` stands only as the last component, "
                "and an empty directory has no wildcard"
            )
        lines.append(Line(file, number, entry, _pattern(entry)))
    return lines


def read(lists: Sequence[Path], values: dict[str, str]) -> list[Line]:
    """The lines of several lists, as one."""
    return [line for path in lists for line in parse(str(path), path.read_text("utf-8"), values)]


def _pattern(entry: str) -> re.Pattern[str]:
    deep = entry.endswith("/**")
    parts = [re.escape(part).replace(r"\*", "[^/]*") for part in entry.removesuffix("/**").split("/")]
    return re.compile("/".join(parts) + ("/.*" if deep else ""))


def keep(tree: Path, lines: list[Line]) -> None:
    """Reduces `tree` to what `lines` name; raises `Refused` where a line and the tree disagree."""
    used: set[Line] = set()
    problems = _reduce(tree, tree, lines, used)
    problems += [f"{li.file}:{li.number}: no path is {li.text}" for li in lines if li not in used]
    if problems:
        raise Refused(
            "the tree is not what its inventory allows:\n  " + "\n  ".join(problems),
            "a package changed: read the difference, then change the list",
        )


def _reduce(tree: Path, folder: Path, lines: list[Line], used: set[Line]) -> list[str]:
    problems: list[str] = []
    for path in sorted(folder.iterdir()):
        name = path.relative_to(tree).as_posix()
        if path.is_dir() and not path.is_symlink():
            own = [line for line in lines if line.text == name + "/"]
            used.update(own)
            problems += _reduce(tree, path, lines, used)
            if not own and not any(path.iterdir()):
                path.rmdir()
            else:
                _normalise(path, 0o755)
            continue
        matching = [line for line in lines if line.pattern.fullmatch(name)]
        if not matching:
            _remove(path)
            continue
        used.update(matching)
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode):
            program = mode & 0o111 and any(line.exact for line in matching)
            _normalise(path, 0o755 if program else 0o644)
        elif stat.S_ISLNK(mode):
            _own(path)
        else:
            problems.append(f"{name} is neither file, directory nor symlink")
    return problems


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _normalise(path: Path, mode: int) -> None:
    _own(path)
    path.chmod(mode)
    for attribute in os.listxattr(path, follow_symlinks=False):
        os.removexattr(path, attribute, follow_symlinks=False)


def _own(path: Path) -> None:
    # In an unprivileged mkosi every file is the caller's until it is packed, and becomes root's then.
    if os.geteuid() == 0:
        os.chown(path, 0, 0, follow_symlinks=False)


def main(arguments: list[str]) -> None:
    """`TREE LIST... [NAME=VALUE...]`: reduces TREE in place; what is left must find its libraries there."""
    tree, *rest = arguments
    values = dict(word.split("=", 1) for word in rest if "=" in word)
    try:
        keep(Path(tree), read([Path(word) for word in rest if "=" not in word], values))
        elf.check(Path(tree))
    except (Malformed, Refused) as error:
        sys.exit(f"error: {error.message}\nhint: {error.hint}")


if __name__ == "__main__":
    main(sys.argv[1:])
