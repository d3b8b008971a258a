"""The root holds the reviewed list and nothing else, lets nobody in, and each byte of it has a source."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest
from artefacts import Packaged, compiled

from tinboot.builder import hashtree, image, inventory, payload, places, prepare, recipe, tools
from tinboot.builder.image import Image
from tinboot.formats import erofs, verity

Packages = dict[str, Packaged]

RECIPE = places.REPOSITORY / "mkosi.images/root"
OURS = "usr/lib/python3/dist-packages/tinboot/"
#: Made in the build; each with a test of its own below.
GENERATED = {"etc/group", "etc/ld.so.cache", "etc/nsswitch.conf", "etc/passwd", "usr/lib/tinboot/profile"}
GENERATED |= {"usr/lib/tinboot/gpu/modules"}
#: Where what is mounted at run time gives the link a meaning.
DANGLING = {"etc/resolv.conf"}

#: Programs that give a shell or a session, whatever package they come from.
LOGINS = re.compile(
    r"(.*/)?(a?getty|login|su|sudo|sulogin|sshd?|dropbear|telnetd|nologin|runuser|setpriv|systemd-sulogin-shell"
    r"|(ba|da|z|fi|k|c|tc)?sh|busybox|debug-shell\.service|.*getty.*|emergency.*|rescue.*)"
)


def names(root: Path) -> dict[str, os.stat_result]:
    """Every path of the tree, links not followed."""
    return {path.relative_to(root).as_posix(): path.lstat() for path in root.rglob("*")}


def files(root: Path) -> dict[str, bytes]:
    return {n: (root / n).read_bytes() for n, state in names(root).items() if stat.S_ISREG(state.st_mode)}


def ours(path: str) -> Path | None:
    """The file of the checkout that a path of the root comes from."""
    if path.startswith(OURS):
        return places.REPOSITORY / "tinboot" / path.removeprefix(OURS)
    extra = RECIPE / "mkosi.extra" / path
    return extra if extra.is_file() else None


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the root has of wheels, by its paths there: made again, or kept, by the locks' hashes."""
    tree = tmp_path_factory.mktemp("payload") / "tree"
    payload.stage(tree, prepare.python_packages("debian", lambda _: None, lambda *_: None), None)
    return tree


def lines(wanted: recipe.Recipe) -> list[inventory.Line]:
    values = {"python": recipe.PYTHON[wanted.distribution], "triplet": "x86_64-linux-gnu"}
    return inventory.read(wanted.inventories("root"), values)


def test_exactly_the_inventory(root: Path, wanted: recipe.Recipe) -> None:
    listed = lines(wanted)
    found = names(root)
    others = {name for name, state in found.items() if not stat.S_ISDIR(state.st_mode)}
    empty = {f"{name}/" for name in found.keys() - others if not any((root / name).iterdir())}
    assert [name for name in others if not any(line.pattern.fullmatch(name) for line in listed)] == []
    assert empty == {line.text for line in listed if line.text.endswith("/")}
    named = others | empty
    assert [li.text for li in listed if not any(li.pattern.fullmatch(n) for n in named)] == []


def test_modes_and_owners(root: Path) -> None:
    found = names(root)
    odd = {}
    for name, state in found.items():
        permissions = stat.S_IMODE(state.st_mode)
        good = {stat.S_IFDIR: {0o755}, stat.S_IFREG: {0o644, 0o755}, stat.S_IFLNK: {0o777}}
        owner = (state.st_uid, state.st_gid) == (0, 0) or os.geteuid() != 0  # only root extracts owners
        if permissions not in good.get(stat.S_IFMT(state.st_mode), set()) or not owner:
            odd[name] = oct(state.st_mode)
    assert odd == {}
    attributes = {name: os.listxattr(root / name, follow_symlinks=False) for name in found}
    assert {name: value for name, value in attributes.items() if value} == {}


def test_links_lead_to_something(root: Path) -> None:
    links = {path for path in root.rglob("*") if path.is_symlink()}
    absolute = {path for path in links if path.readlink().is_absolute()}
    assert absolute == set()
    broken = {path.relative_to(root).as_posix() for path in links if not path.exists()}
    assert broken == DANGLING


def test_nobody_logs_in(root: Path) -> None:
    assert [name for name in names(root) if LOGINS.fullmatch(name)] == []
    accounts = [line.split(":") for line in (root / "etc/passwd").read_text().splitlines()]
    assert accounts[0][0] == "root"
    assert [account for account in accounts if account[1] not in {"*", "x", "!"}] == []
    assert not (root / "etc/shadow").exists()
    programs = {
        name for name, state in names(root).items() if stat.S_ISREG(state.st_mode) and state.st_mode & 1
    }
    allowed = {
        "usr/bin/nvidia-persistenced",
        "usr/bin/python3.13",
        "usr/sbin/haproxy",
        *("usr/bin/conmon", "usr/bin/crun", "usr/bin/podman", "usr/libexec/podman/quadlet"),
        *("usr/lib/podman/netavark", "usr/sbin/nft", "usr/bin/systemctl"),
        *(f"usr/lib/systemd/systemd{word}" for word in ("", "-executor", "-shutdown")),
    }
    assert {name for name in programs if not re.search(r"\.so(\.\d+)*$", name)} == allowed


def test_units_are_the_reviewed_ones(root: Path, wanted: recipe.Recipe) -> None:
    listed = {line.text for line in lines(wanted) if line.text.startswith("usr/lib/systemd/system/")}
    assert not any("*" in text for text in listed)
    units = {name for name in names(root) if "systemd/system/" in name or "systemd/user/" in name}
    assert units == listed
    words = ("generator", "system-preset", "credstore", "udev", "tmpfiles", "sysusers")
    found = [name for name in names(root) if not name.startswith("usr/lib/python")]
    assert [name for name in found if any(word in name for word in words)] == []


def test_what_units_start_is_there(root: Path) -> None:
    for unit in (root / "usr/lib/systemd/system").glob("*.service"):
        for program in re.findall(r"^Exec\w+=[@:+!-]*(\S+)", unit.read_text(), re.MULTILINE):
            name = program.removeprefix("/")
            assert name == "systemctl" or (root / name).exists(), (unit.name, program)


def test_files_of_packages_are_unchanged(root: Path, root_packages: Packages, python: Path) -> None:
    theirs = {n: data for n, data in files(root).items() if ours(n) is None and not n.endswith(".pyc")}
    theirs = {name: data for name, data in theirs.items() if name not in GENERATED}
    wheels = {name: data for name, data in theirs.items() if (python / name).is_file()}
    assert len(wheels) > 100
    assert [name for name, data in wheels.items() if data != (python / name).read_bytes()] == []
    theirs = {name: data for name, data in theirs.items() if name not in wheels}
    assert len(theirs) > 200
    assert [n for n, data in theirs.items() if n not in root_packages or data != root_packages[n].data] == []


def test_files_of_the_checkout_are_unchanged(root: Path) -> None:
    found = {name: source for name in files(root) if (source := ours(name)) and not name.endswith(".pyc")}
    assert len(found) > 20
    assert [name for name, source in found.items() if (root / name).read_bytes() != source.read_bytes()] == []


def test_generated_files(root: Path, root_packages: Packages) -> None:
    for name, template in (("passwd", "passwd"), ("group", "group")):
        # without passwords: "*" becomes "x" where the package passwd is, and no shadow file is kept
        fields = [line.split(":") for line in (root / "etc" / name).read_text().splitlines()]
        master = root_packages[f"usr/share/base-passwd/{template}.master"].data.decode().splitlines()
        before = [[word for at, word in enumerate(line.split(":")) if at != 1] for line in master]
        added = {entry[0] for entry in fields if [entry[0], *entry[2:]] not in before}
        assert added <= {"systemd-network", "systemd-journal", "nvpd", "haproxy"}, (name, added)
        assert {entry[1] for entry in fields} <= {"x", "*"}
    service = root_packages["usr/share/libc-bin/nsswitch.conf"]
    assert (root / "etc/nsswitch.conf").read_bytes() == service.data
    assert (root / "usr/lib/tinboot/profile").read_text() == "release\n"
    assert (root / "usr/lib/tinboot/gpu/modules").read_bytes() == b""
    cache = (root / "etc/ld.so.cache").read_bytes()
    assert cache.startswith(b"glibc-ld.so.cache1.1")


def test_bytecode_is_that_of_the_sources(root: Path) -> None:
    """Compiled again by the same interpreter; the sources are compared with the packages above."""
    listed = sorted(name for name in files(root) if name.endswith(".pyc"))
    assert len(listed) > 200
    sources = []
    for name in listed:
        folder, _, file = name.rpartition("/__pycache__/")
        source = f"{folder}/{file.split('.')[0]}.py"
        sources.append((root / source, f"/{source}"))
    wrong = [
        name
        for name, expected in zip(listed, compiled(sources), strict=True)
        if (root / name).read_bytes() != expected
    ]
    assert wrong == []


def test_hash_tree(release: Image) -> None:
    """By our own code and by veritysetup, with the parameters that the command line carries."""
    path, opened = release.folder / "root", release.verity
    with path.open("rb") as file:
        superblock = erofs.parse_superblock(file.read(verity.BLOCK))
    assert superblock.blocks == opened.blocks
    hashtree.verify_tree(path, opened, image.ROOT_UUID)
    offset = opened.blocks * verity.BLOCK
    command = [
        *tools.tool("veritysetup"),
        "verify",
        str(path),
        str(path),
        opened.root_hash,
        f"--hash-offset={offset}",
    ]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    command[command.index(opened.root_hash)] = "0" * 64
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0
