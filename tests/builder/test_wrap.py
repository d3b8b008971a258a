from __future__ import annotations

import errno
import json
import os
import random
import shutil
import socket
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinboot.builder.tools import find_tool, version
from tinboot.builder.weights_source import scan
from tinboot.builder.wrap import Volume, check_identity, default_name, uuid_for, wrap
from tinboot.formats import erofs
from tinboot.formats.errors import Malformed, Refused, TinbootError, Unavailable
from tinboot.formats.verity import BLOCK, salt_for

#: (tree, volume to make, salt, UUID) -> root hash.
Plain = Callable[[Path, Path, str, str], str]

REPO = "org/model@0123abcd"

#: Sizes on both sides of what mkfs.erofs stores behind the inode.
SIZES = (0, 1, 31, 2000, 4031, 4032, 4064, 4095, 4096, 4097, 8192, 12000, 300_000)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Weights as a download leaves them: nested, hidden, odd names, an empty folder, a program."""
    tree = tmp_path / "tree"
    (tree / "1_Pooling" / "deep").mkdir(parents=True)
    (tree / "empty folder").mkdir()
    for size in SIZES:
        (tree / f"weights-{size:05}.bin").write_bytes(random.Random(size).randbytes(size))
    (tree / ".gitattributes").write_text("*.bin filter=lfs\n")
    (tree / "1_Pooling" / "config.json").write_text("{}\n")
    (tree / "1_Pooling" / "deep" / "Gewürz 模型.json").write_text("[]\n")
    (tree / "convert.sh").write_text("#!/bin/sh\n")
    (tree / "convert.sh").chmod(0o755)
    return tree


def wrapped(source: Path, out: Path, repo: str = REPO) -> Volume:
    return wrap(scan(source), repo, out)


def test_same_bytes_as_the_two_tools(tree: Path, tmp_path: Path, plain_volume: Plain) -> None:
    out = tmp_path / "out.mpk"
    volume = wrapped(tree, out)
    root = plain_volume(tree, tmp_path / "plain", salt_for(REPO), uuid_for(REPO))
    assert out.read_bytes() == (tmp_path / "plain").read_bytes()
    assert volume.ref.root_hash == root
    found = erofs.parse_superblock(out.read_bytes()[:BLOCK])
    assert (found.blocks * BLOCK, found.uuid) == (volume.ref.hash_offset, volume.ref.uuid)


names = st.text("abcdefgh-._ é", min_size=1, max_size=12).filter(lambda n: n.strip(". ") and n != ".git")
contents = st.builds(
    lambda n, seed: random.Random(seed).randbytes(n), st.integers(0, 9000), st.integers(0, 9)
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.dictionaries(st.tuples(st.sampled_from(["", "a/", "a/b/", "c/"]), names), contents, min_size=1),
    programs=st.sets(st.integers(0, 9)),
)
def test_same_bytes_for_any_tree(
    tmp_path: Path, files: dict[tuple[str, str], bytes], programs: set[int], plain_volume: Plain
) -> None:
    tree = tmp_path / "any"
    for number, ((folder, name), content) in enumerate(files.items()):
        path = tree / "folders" / folder / ("f" + name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o700 if number in programs else 0o600)
    out, plain = tmp_path / "any.mpk", tmp_path / "any.plain"
    wrap(scan(tree), REPO, out, force=True)
    plain_volume(tree, plain, salt_for(REPO), uuid_for(REPO))
    assert out.read_bytes() == plain.read_bytes()
    shutil.rmtree(tree)
    plain.unlink()


def _modes(tree: Path) -> None:
    for number, path in enumerate(sorted(tree.rglob("*"))):
        if path.is_dir():
            path.chmod((0o700, 0o2775)[number % 2])
        else:
            path.chmod(
                (0o744, 0o6711)[number % 2] if path.stat().st_mode & 0o111 else (0o400, 0o666)[number % 2]
            )
    tree.chmod(0o777)


def _times(tree: Path) -> None:
    for path in [tree, *tree.rglob("*")]:
        os.utime(path, (86400, 1 << 31))


def _owners(tree: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give files away")
    for path in [tree, *tree.rglob("*")]:
        os.chown(path, 70000, 12)


def _attributes(tree: Path) -> None:
    try:
        os.setxattr(tree / "convert.sh", "user.origin", b"somewhere")
    except OSError as error:
        pytest.skip(f"no user attributes here: {error}")


def _order(tree: Path) -> None:
    for path in sorted(tree.rglob("*.*"), reverse=True):
        path.write_bytes((path.rename(path.with_name("moved"))).read_bytes())
        path.chmod(path.with_name("moved").stat().st_mode)
        path.with_name("moved").unlink()


def _links(tree: Path) -> None:
    """What two equal files become in a cache that stores each content once."""
    (tree / "twin.json").unlink()
    (tree / "twin.json").hardlink_to(tree / "1_Pooling" / "config.json")


def _symlinks(tree: Path) -> None:
    (tree / "twin.json").unlink()
    (tree / "twin.json").symlink_to("1_Pooling/config.json")


@pytest.mark.parametrize(
    "disturb", [_modes, _times, _owners, _attributes, _order, _links, _symlinks], ids=lambda f: f.__name__
)
def test_only_names_contents_and_execute_bits_matter(
    tree: Path, tmp_path: Path, disturb: Callable[[Path], None]
) -> None:
    shutil.copy(tree / "1_Pooling" / "config.json", tree / "twin.json")
    wrapped(tree, tmp_path / "before")
    disturb(tree)
    umask = os.umask(0o077)
    try:
        wrapped(tree, tmp_path / "after")
    finally:
        os.umask(umask)
    assert (tmp_path / "after").read_bytes() == (tmp_path / "before").read_bytes()


def test_the_source_is_left_as_it_was(tree: Path, tmp_path: Path) -> None:
    def state() -> list[tuple[str, int, int, int, str]]:
        found = []
        for path in sorted(tree.rglob("*")):
            s = path.stat()
            content = sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            found.append((str(path), s.st_mode, s.st_mtime_ns, s.st_nlink, content))
        return found

    before = state()
    wrapped(tree, tmp_path / "out")
    assert state() == before


def test_a_cache_of_links_is_the_same_as_plain_files(tree: Path, tmp_path: Path) -> None:
    cache = tmp_path / "models--org--model"
    snapshot = cache / "snapshots" / "0123abcd"
    (cache / "blobs").mkdir(parents=True)
    for path in tree.rglob("*"):
        place = snapshot / path.relative_to(tree)
        if path.is_dir():
            place.mkdir(parents=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        blob = cache / "blobs" / sha256(path.read_bytes()).hexdigest()
        shutil.copy(path, blob)
        place.symlink_to(os.path.relpath(blob, place.parent))
    wrapped(tree, tmp_path / "plain")
    wrapped(snapshot, tmp_path / "linked")
    assert (tmp_path / "linked").read_bytes() == (tmp_path / "plain").read_bytes()


@pytest.mark.parametrize("error", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_files_that_cannot_be_linked(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    wrapped(tree, tmp_path / "linked")
    real = Path.hardlink_to

    def refuse(self: Path, target: Path) -> None:
        if tree in target.parents:
            raise OSError(error, os.strerror(error))
        real(self, target)

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    wrapped(tree, tmp_path / "copied")
    assert (tmp_path / "copied").read_bytes() == (tmp_path / "linked").read_bytes()


def test_one_file(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(random.Random(1).randbytes(70_000))
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(tmp_path / "model.gguf", folder)
    assert wrapped(tmp_path / "model.gguf", tmp_path / "a").files == 1
    wrapped(folder, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_bookkeeping_is_left_out_and_named(tree: Path, tmp_path: Path) -> None:
    wrapped(tree, tmp_path / "before")
    for name in (".cache/huggingface/download/x.metadata", ".git/objects/aa/bb"):
        (tree / name).parent.mkdir(parents=True)
        (tree / name).write_text("x")
    content = scan(tree)
    assert content.excluded == (".cache/huggingface", ".git")
    assert ".cache" not in content.directories
    wrap(content, REPO, tmp_path / "after")
    assert (tmp_path / "after").read_bytes() == (tmp_path / "before").read_bytes()


def test_other_hidden_files_are_weights(tree: Path) -> None:
    for name in (".cache/other/x", "sub/.git/x", ".cache/huggingface/x"):
        (tree / name).parent.mkdir(parents=True)
        (tree / name).write_text("x")
    content = scan(tree)
    assert content.excluded == (".cache/huggingface",)
    assert {".cache/other/x", "sub/.git/x"} <= {file.name for file in content.files}
    assert ".cache" in content.directories


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


def _device(path: Path) -> None:
    try:
        os.mknod(path, 0o20644, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root can make devices")


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda p: p.symlink_to("nowhere"), "link to nothing"),
        (lambda p: p.symlink_to("odd"), "link to itself"),
        (lambda p: p.symlink_to("1_Pooling"), "link to a directory"),
        (lambda p: p.symlink_to("/etc/hostname"), "link out of the source, to /etc/hostname"),
        (lambda p: p.symlink_to("../outside"), "link out of the source"),
        (os.mkfifo, "neither a file nor a directory"),
        (_socket, "neither a file nor a directory"),
        (_device, "neither a file nor a directory"),
        (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\n"), "git-lfs"),
    ],
)
def test_what_no_volume_may_hold(
    tree: Path, tmp_path: Path, make: Callable[[Path], object], named: str
) -> None:
    (tmp_path / "outside").write_text("secret")
    make(tree / "odd")
    with pytest.raises(Refused, match=named) as caught:
        scan(tree)
    assert str(tree / "odd") in caught.value.message


def test_nothing_to_wrap(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(Refused, match="holds no file"):
        scan(tmp_path / "a")
    with pytest.raises(Unavailable, match="missing"):
        scan(tmp_path / "missing")


def test_unreadable_file(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, _mode: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)  # root, who may run the tests, reads everything
    with pytest.raises(Unavailable, match=r"/tree/.*: Permission denied"):
        scan(tree)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("present", ["out.mpk", "out.mpk.json"])
def test_an_existing_output_is_not_touched(tree: Path, tmp_path: Path, present: str) -> None:
    (tmp_path / present).write_text("mine")
    with pytest.raises(Refused, match=present):
        wrapped(tree, tmp_path / "out.mpk")
    assert (tmp_path / present).read_text() == "mine"
    assert listing(tmp_path) == sorted([present, "tree"])
    wrap(scan(tree), REPO, tmp_path / "out.mpk", force=True)
    assert json.loads((tmp_path / "out.mpk.json").read_text())["repo"] == REPO
    assert listing(tmp_path) == ["out.mpk", "out.mpk.json", "tree"]


def test_sidecar_tells_what_the_volume_is(tree: Path, tmp_path: Path) -> None:
    volume = wrapped(tree, tmp_path / "out.mpk")
    assert json.loads((tmp_path / "out.mpk.json").read_text()) == {
        "repo": REPO,
        "mpk": str(volume.ref),
        "root_hash": volume.ref.root_hash,
        "hash_offset": volume.ref.hash_offset,
        "uuid": uuid_for(REPO),
        "salt": sha256(REPO.encode()).hexdigest(),
        "size": (tmp_path / "out.mpk").stat().st_size,
        "files": len(SIZES) + 4,
        "tools": {"mkfs.erofs": version(find_tool("mkfs.erofs"))},
    }


def test_full_disk_is_said_before_the_work(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(tmp_path)
    fields = list(real)
    fields[4] = 100  # f_bavail, in blocks of f_frsize
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result(fields))
    with pytest.raises(Unavailable, match=f"has {100 * real.f_frsize} left"):
        wrapped(tree, tmp_path / "out.mpk")
    assert listing(tmp_path) == ["tree"]


def test_full_disk_during_the_work(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tinboot.builder.hashtree.os.pwrite", full)
    with pytest.raises(Unavailable, match="no space left"):
        wrapped(tree, tmp_path / "out.mpk")
    assert listing(tmp_path) == ["tree"]


@pytest.fixture
def fake_mkfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a script in the place of mkfs.erofs; its $1 is the last but one argument, the image."""

    def install(body: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        script = '#!/bin/sh\n[ "$1" = -V ] && { echo 9.9; exit; }\nwhile [ $# -gt 2 ]; do shift; done\n'
        (folder / "mkfs.erofs").write_text(script + body)
        (folder / "mkfs.erofs").chmod(0o755)
        monkeypatch.delenv("TINBOOT_TOOLS", raising=False)
        monkeypatch.setenv("TINBOOT_BUILD", str(tmp_path / "nothing"))
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    return install


@pytest.mark.parametrize(
    ("body", "error", "named"),
    [
        ("echo '<E> write: No space left on device' >&2; exit 1", Unavailable, "no space left"),
        ("kill -9 $$", Unavailable, r"mkfs\.erofs failed \(-9\)"),
        ("true > $1", Malformed, "it ends within"),
        ("head -c 8192 /dev/zero > $1", Malformed, "EROFS magic"),
    ],
)
def test_mkfs_that_fails(
    tree: Path,
    tmp_path: Path,
    fake_mkfs: Callable[[str], None],
    body: str,
    error: type[TinbootError],
    named: str,
) -> None:
    fake_mkfs(body)
    with pytest.raises(error, match=named):
        wrapped(tree, tmp_path / "out.mpk")
    assert listing(tmp_path) == ["bin", "tree"]


def test_mkfs_of_other_files_or_another_uuid(
    tree: Path, tmp_path: Path, fake_mkfs: Callable[[str], None]
) -> None:
    wrapped(tree, tmp_path / "whole", "other/name@1")
    (tree / "convert.sh").unlink()
    wrapped(tree, tmp_path / "less")
    fake_mkfs(f"cp {tmp_path}/$(cat {tmp_path}/which) $1")
    (tmp_path / "which").write_text("whole")
    with pytest.raises(Malformed, match="other files than it was given"):
        wrapped(tree, tmp_path / "out.mpk")
    (tree / "convert.sh").write_text("#!/bin/sh\n")
    with pytest.raises(Malformed, match=uuid_for(REPO)):
        wrapped(tree, tmp_path / "out.mpk")


def test_no_mkfs_at_all(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tools").mkdir()
    monkeypatch.setenv("TINBOOT_TOOLS", str(tmp_path / "tools"))
    with pytest.raises(Unavailable, match=r"has no mkfs\.erofs"):
        wrapped(tree, tmp_path / "out.mpk")
    monkeypatch.setenv("TINBOOT_TOOLS", str(tmp_path / "gone"))
    with pytest.raises(Unavailable, match="is not a directory"):
        wrapped(tree, tmp_path / "out.mpk")
    monkeypatch.delenv("TINBOOT_TOOLS")
    monkeypatch.setenv("TINBOOT_BUILD", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda _name, path: None)
    (tmp_path / "tools").rmdir()
    with pytest.raises(Unavailable, match="not installed") as caught:
        wrapped(tree, tmp_path / "out.mpk")
    assert "erofs-utils" in caught.value.hint


def test_identity() -> None:
    for good in ("a@b", "org/name@0123", "sentence-transformers/all-MiniLM-L6-v2@refs/pr/1", "A.b_c@v1.0"):
        check_identity(good)
    for bad in ("", "a", "a@", "@b", "a@b@c", "a b@c", "a/@c", "/a@c", "a@../c", "a@c\n", "ä@c"):
        with pytest.raises(ValueError, match="NAME@REVISION"):
            check_identity(bad)
    assert default_name("org/name@refs/pr/1") == "org--name@refs--pr--1.mpk"
    # an RFC 9562 version 5 UUID of "<identity>-inner" in the name space of URLs
    assert uuid_for("org/name@1") == "e355d1f3-b637-5459-a3f9-99d9e07c700b"
