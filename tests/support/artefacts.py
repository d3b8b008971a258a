"""What the built artefacts hold, and what the locked packages do: both as path -> bytes."""

from __future__ import annotations

import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tinboot.builder import places, recipe, tools
from tinboot.builder.image import Image
from tinboot.formats import cpio

#: Folders that are links in a merged /usr; older packages still ship files through them.
_MERGED = ("bin/", "lib/", "lib64/", "sbin/")

#: Compiles "source<TAB>path in the image" lines to the files 0, 1, ... of a folder. It imports little: a
#: string that the interpreter knows already is marshalled in another form.
_COMPILE = """
import py_compile, sys
for number, line in enumerate(sys.stdin):
    source, path = line.rstrip("\\n").split("\\t")
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(source, f"{sys.argv[1]}/{number}", dfile=path, doraise=True, invalidation_mode=mode)
"""


@dataclass(frozen=True, slots=True)
class Packaged:
    """A file of a package: which, its bytes, and permissions there."""

    package: str
    data: bytes
    mode: int


def initrd_entries(path: Path) -> dict[str, cpio.Entry]:
    """All members: the nodes in front, then those of the compressed archive. None stands twice."""
    front, magic, rest = path.read_bytes().partition(b"\x28\xb5\x2f\xfd")
    done = subprocess.run(
        [*tools.tool("zstd"), "-dc"], input=magic + rest, stdout=subprocess.PIPE, check=True
    )
    archives = cpio.read_all(front + done.stdout)
    entries = [entry for archive in archives for entry in archive.entries]
    found = {entry.path: entry for entry in entries}
    assert len(archives) == 2
    assert len(found) == len(entries)
    return found


def packaged(image: Image, name: str, distribution: str) -> dict[str, Packaged]:
    """Every regular file of the packages in the image `name`, by its path in a merged /usr."""
    lock = recipe.read_lock(places.REPOSITORY, distribution)
    files = {(p.name, p.version): p.file for p in lock.packages}
    found: dict[str, Packaged] = {}
    for package in image.packages:
        if package.image == name:
            deb = places.build_folder() / "packages" / distribution / files[package.name, package.version]
            for path, file in _files(deb):
                found[path] = Packaged(package.name, *file)
    return found


def _files(deb: Path) -> Iterator[tuple[str, tuple[bytes, int]]]:
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as archive,
    ):
        for member in archive:
            content = archive.extractfile(member) if member.isreg() else None
            if content is not None:
                yield _merged(member.name.removeprefix("./")), (content.read(), member.mode)


def _merged(path: str) -> str:
    return f"usr/{path}" if path.startswith(_MERGED) else path


def compiled(sources: list[tuple[Path, str]]) -> list[bytes]:
    """What the image's interpreter, which is also in the tools tree, makes of each source."""
    request = "".join(f"{source}\t{path}\n" for source, path in sources)
    with tempfile.TemporaryDirectory() as folder:
        command = [*tools.tool("python3"), "-ISEB", "-c", _COMPILE, folder]
        subprocess.run(command, input=request, text=True, check=True)
        return [Path(folder, str(number)).read_bytes() for number in range(len(sources))]
