"""`wrap --oci` whole: from a layout to a volume, whose bytes nothing but the image decides."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from oci_layouts import LAYER, Layout, compressed, digest_of, folder, member, tar

from tinboot.builder import oci_layout, oci_store, oci_wrap
from tinboot.builder.oci_wrap import Source, check, parse_layout, parse_name, wrap_image
from tinboot.builder.tools import Tool, find_tool
from tinboot.builder.wrap import Volume, sidecar_of, uuid_for
from tinboot.formats import erofs
from tinboot.formats.errors import Malformed, Mismatch, Refused, TinbootError, Unavailable
from tinboot.formats.verity import BLOCK, salt_for

BASE = tar(
    [
        folder("bin"),
        member("bin/app", data=b"#!/bin/sh\n" * 900, mode=0o4755),
        member("bin/alias", tarfile.LNKTYPE, linkname="bin/app", mode=0o4755),
        folder("etc", uid=1000, gid=3_000_000),
        member("etc/passwd", data=b"root", mtime=1_700_000_000),
        member("etc/gone", data=b"old"),
        folder("opaque"),
        member("opaque/old", data=b"old"),
        member("link", tarfile.SYMTYPE, linkname="../" * 40 + "etc"),
        member("d" * 90 + "/" + "f" * 90, data=b"deep"),
        member("user", data=b"", pax_headers={"SCHILY.xattr.user.note": "kept"}),
    ]
)
TOP = tar([member("etc/.wh.gone"), member("opaque/.wh..wh..opq"), member("opaque/new", data=b"new")])


def layout(tmp_path: Path, how: str = "", name: str = "oci") -> Path:
    made = Layout()
    made.entry(made.image([BASE, TOP], how), "v1")
    return made.write(tmp_path / name)


def source(path: Path, name: str = "localhost/app:1", digest: str | None = None) -> Source:
    return Source(path, None, name, digest)


@pytest.fixture
def volume(tmp_path: Path) -> tuple[Path, Volume]:
    out = tmp_path / "app.mpk"
    return out, wrap_image(source(layout(tmp_path)), out)


def members(path: Path, name: str) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    """The archive that mkfs.erofs is fed, as Python reads it."""
    with oci_layout.open_layout(path) as opened, ExitStack() as stack:
        image = oci_layout.find(opened, None, None)
        layers = oci_wrap._unpack(opened, image, path.parent, stack, None)
        data = b"".join(oci_store.archive(name, image, layers))
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for info in archive.getmembers():
            opened_file = archive.extractfile(info) if info.isreg() else None
            found[info.name] = (info, opened_file.read() if opened_file else b"")
    return found


def test_the_volume_is_one(volume: tuple[Path, Volume]) -> None:
    out, made = volume
    assert made.identity.startswith("localhost/app:1@sha256:")
    assert (made.salt, made.ref.uuid) == (salt_for(made.identity), uuid_for(made.identity))
    found = erofs.parse_superblock(out.read_bytes()[:BLOCK])
    assert (found.blocks * BLOCK, found.uuid) == (made.ref.hash_offset, made.ref.uuid)
    assert json.loads(sidecar_of(out).read_text()) == made.fields()
    assert sorted(p.name for p in out.parent.iterdir()) == ["app.mpk", "app.mpk.json", "oci"]


def test_the_store_names_what_podman_looks_up(tmp_path: Path) -> None:
    path = layout(tmp_path, "gzip")
    digest = json.loads((path / "index.json").read_bytes())["manifests"][0]["digest"]
    name = f"localhost/app@{digest}"
    found = members(path, name)
    (image,) = json.loads(found["overlay-images/images.json"][1])
    assert (image["names"], image["digest"]) == ([name], digest)
    first, second = json.loads(found["overlay-layers/layers.json"][1])
    assert (first["diff-digest"], second["diff-digest"]) == (digest_of(BASE), digest_of(TOP))
    assert (first["id"], second["parent"], image["layer"]) == (digest_of(BASE)[7:], first["id"], second["id"])
    chain = f"{digest_of(BASE)} {digest_of(TOP)}".encode()  # config.md, "Layer ChainID"
    assert second["id"] == hashlib.sha256(chain).hexdigest()
    assert (first["compression"], first["uidset"], first["gidset"]) == (2, [0, 1000], [0, 3_000_000])
    for layer in (first, second):
        link = found[f"overlay/{layer['id']}/link"][1].decode()
        assert found[f"overlay/l/{link}"][0].linkname == f"../{layer['id']}/diff"
        assert len(link) == 26
    below = found[f"overlay/{first['id']}/link"][1]
    assert found[f"overlay/{second['id']}/lower"][1] == b"l/" + below
    assert f"overlay/{first['id']}/lower" not in found
    for key, wanted in image["big-data-digests"].items():
        kept = [
            data for entry, (_, data) in found.items() if entry.startswith(f"overlay-images/{image['id']}/")
        ]
        assert wanted in map(digest_of, kept), key


def test_the_layers_are_there_as_they_are(tmp_path: Path) -> None:
    found = members(layout(tmp_path), "localhost/app@x")
    base, top = (layer["id"] for layer in json.loads(found["overlay-layers/layers.json"][1]))

    def at(layer: str, path: str) -> tarfile.TarInfo:
        return found[f"overlay/{layer}/diff/{path}"][0]

    names = [at(base, "bin/alias"), at(base, "bin/app")]
    assert (names[0].mode, names[0].size, names[1].type) == (0o4755, 9000, tarfile.LNKTYPE)
    assert names[1].linkname == f"overlay/{base}/diff/bin/alias"
    assert (at(base, "etc").uid, at(base, "etc").gid) == (1000, 3_000_000)
    assert (at(base, "etc/passwd").mtime, at(base, "etc/gone").type) == (1_700_000_000, tarfile.REGTYPE)
    assert at(base, "link").linkname == "../" * 40 + "etc"
    assert at(base, "user").pax_headers == {"SCHILY.xattr.user.note": "kept"}
    gone = at(top, "etc/gone")
    assert (gone.type, gone.devmajor, gone.devminor) == (tarfile.CHRTYPE, 0, 0)
    assert at(top, "opaque").pax_headers == {"SCHILY.xattr.trusted.overlay.opaque": "y"}
    assert (at(top, "etc").uid, at(top, "opaque/new").size) == (0, 3)


def test_the_file_system_is_the_archives(volume: tuple[Path, Volume], tmp_path: Path) -> None:
    """fsck.erofs takes it apart again. Devices and owners only root could make are left to the boot tests."""
    out, made = volume
    target = tmp_path / "extracted"
    data = tmp_path / "data"
    data.write_bytes(out.read_bytes()[: made.ref.hash_offset])
    command = [*find_tool("fsck.erofs").argv, f"--extract={target}", "--no-preserve-owner", str(data)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = members(tmp_path / "oci", "localhost/app@" + made.identity.partition("@")[2])
    if os.geteuid():
        assert "overlay" in done.stdout + done.stderr or done.returncode == 0
    else:
        assert done.returncode == 0, done.stderr
    for name, (info, content) in found.items():
        path = target / name
        if info.isreg():
            assert path.read_bytes() == content, name
        elif info.issym():
            assert str(path.readlink()) == info.linkname
        elif info.isdir():
            assert path.is_dir()


def at_another_place(path: Path) -> Source:
    return source(Path(shutil.copytree(path, path.parent / "elsewhere" / "deep" / "oci")))


def with_another_umask(path: Path) -> Source:
    os.umask(0o077)
    return source(path)


def in_another_zone(path: Path) -> Source:
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()
    return source(path)


def as_an_archive(path: Path) -> Source:
    listed = [p for p in sorted(path.rglob("*"), reverse=True) if p.is_file()]
    archive = path.parent / "oci.tar"
    archive.write_bytes(tar([member(str(p.relative_to(path)), data=p.read_bytes()) for p in listed]))
    return source(archive)


def by_digest(path: Path) -> Source:
    found = json.loads((path / "index.json").read_bytes())["manifests"][0]["digest"]
    return source(path, digest=found)


@pytest.fixture
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    former = os.umask(0o022)
    monkeypatch.setenv("TZ", "UTC")
    yield
    os.umask(former)
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_restored")
@pytest.mark.parametrize(
    "way", [at_another_place, with_another_umask, in_another_zone, as_an_archive, by_digest]
)
def test_the_same_bytes(volume: tuple[Path, Volume], tmp_path: Path, way: Callable[[Path], Source]) -> None:
    out, made = volume
    again = wrap_image(way(tmp_path / "oci"), tmp_path / "again.mpk")
    assert again == made
    assert (tmp_path / "again.mpk").read_bytes() == out.read_bytes()


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_compressed_layers_are_the_same_files(tmp_path: Path, how: str) -> None:
    path = layout(tmp_path, how)
    wrap_image(source(path), tmp_path / "x.mpk")
    plain, packed = (
        {
            name: (info.get_info(), content)
            for name, (info, content) in members(made, "localhost/app@x").items()
            if name.startswith("overlay/")
        }
        for made in (layout(tmp_path, name="plain"), path)
    )
    assert plain == packed
    assert len(plain) > 20


def test_gzip_in_several_members(tmp_path: Path) -> None:
    made = Layout()
    whole = compressed(BASE[:5000], "gzip") + compressed(BASE[5000:], "gzip")
    _replace_layer(made, whole)
    wrap_image(source(made.write(tmp_path / "oci")), tmp_path / "x.mpk")


def _replace_layer(made: Layout, data: bytes, how: str = "gzip", content: bytes = BASE) -> None:
    """An image whose one layer is `data`, which should unpack to `content`."""
    layer = {"mediaType": f"{LAYER}+{how}", "digest": digest_of(data), "size": len(data)}
    made.blobs[digest_of(data)] = data
    made.entry(made.image([content], manifest={"layers": [layer]}))


GZIP, ZSTD = compressed(BASE, "gzip"), compressed(BASE, "zstd")


@pytest.mark.parametrize(
    ("data", "how", "error", "said"),
    [
        (GZIP[:-9], "gzip", Malformed, "layer 1 .*ends within its gzip"),
        (GZIP[:-9] + bytes(9), "gzip", Malformed, "is not in gzip|ends within its gzip"),
        (GZIP + b"x", "gzip", Malformed, "ends within its gzip"),
        (BASE, "gzip", Malformed, "is not in gzip"),
        (b"", "gzip", Mismatch, "when unpacked"),
        (ZSTD[:-9], "zstd", Malformed, "is not in zstd, or cut off"),
        (BASE, "zstd", Malformed, "is not in zstd"),
        (compressed(TOP, "gzip"), "gzip", Mismatch, "when unpacked, the image's configuration has"),
        (compressed(BASE[:700], "gzip"), "gzip", Mismatch, "when unpacked"),
    ],
)
def test_layers_that_are_refused(
    tmp_path: Path, data: bytes, how: str, error: type[TinbootError], said: str
) -> None:
    made = Layout()
    _replace_layer(made, data, how)
    with pytest.raises(error, match=said):
        wrap_image(source(made.write(tmp_path / "oci")), tmp_path / "x.mpk")
    assert [p.name for p in tmp_path.iterdir()] == ["oci"]


def test_an_altered_layer_is_told_by_its_digest(tmp_path: Path) -> None:
    """Not by what it led to: damaged gzip, another tar."""
    for how in ("", "gzip", "zstd"):
        path = layout(tmp_path, how, f"oci-{how}")
        largest = max((path / "blobs/sha256").iterdir(), key=lambda p: p.stat().st_size)
        data = bytearray(largest.read_bytes())
        data[len(data) // 2] ^= 1
        largest.write_bytes(data)
        with pytest.raises(Mismatch, match=f"the blob sha256:{largest.name} hashes to sha256:"):
            wrap_image(source(path), tmp_path / "x.mpk")


def test_a_layer_that_leads_out(tmp_path: Path) -> None:
    made = Layout()
    made.entry(made.image([tar([member("../../etc/shadow", data=b"x")])]))
    with pytest.raises(Refused, match="leads out of the layer"):
        wrap_image(source(made.write(tmp_path / "oci")), tmp_path / "x.mpk")


def test_an_existing_output_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "x.mpk"
    out.write_text("kept")
    with pytest.raises(Refused, match="exists already"):
        wrap_image(source(layout(tmp_path)), out)
    assert out.read_text() == "kept"
    wrap_image(source(tmp_path / "oci"), out, force=True)


def test_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(tmp_path)
    full = os.statvfs_result((*real[:4], 1, *real[5:10]))
    monkeypatch.setattr(os, "statvfs", lambda _path: full)
    with pytest.raises(Unavailable, match="the volume needs"):
        wrap_image(source(layout(tmp_path)), tmp_path / "x.mpk")


class TestCheck:
    def test_passes(self, volume: tuple[Path, Volume], tmp_path: Path) -> None:
        out, made = volume
        found = check(out, made.identity, expect=made.ref, source=source(tmp_path / "oci"))
        assert replace(found, tools=made.tools) == made

    def test_an_altered_volume(self, volume: tuple[Path, Volume]) -> None:
        out, made = volume
        data = bytearray(out.read_bytes())
        data[made.ref.hash_offset - 1] ^= 1
        out.write_bytes(data)
        with pytest.raises(Mismatch, match="does not hash to its entry in the tree"):
            check(out, made.identity, expect=made.ref)

    def test_another_image(self, volume: tuple[Path, Volume], tmp_path: Path) -> None:
        out, made = volume
        with pytest.raises(Mismatch, match="the layout has localhost/app:1@sha256:"):
            check(out, made.identity, source=source(layout(tmp_path, "gzip", "other")))

    def test_another_identity(self, volume: tuple[Path, Volume]) -> None:
        out, made = volume
        with pytest.raises(Mismatch, match="UUID"):
            check(out, made.identity.replace("app:1", "app:2"), expect=made.ref)

    def test_another_content(self, volume: tuple[Path, Volume], tmp_path: Path) -> None:
        """Made by hand for that identity, consistent in itself, and not what the image gives."""
        out, made = volume
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(oci_store, "_EPOCH", "1970-01-01T00:00:01Z")
            other = wrap_image(source(tmp_path / "oci"), out, force=True)
        assert other.ref != made.ref
        with pytest.raises(Mismatch, match="does not come from this image: its line is"):
            check(out, made.identity, source=source(tmp_path / "oci"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dir", ("dir", None)),
        ("dir:v1", ("dir", "v1")),
        ("here:v1", ("here:v1", None)),
        ("a:b:v1", ("a:b", "v1")),
    ],
)
def test_layout_and_name(text: str, expected: tuple[str, str | None], tmp_path: Path) -> None:
    (tmp_path / "here:v1").mkdir()
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path)
        path, ref = parse_layout(text)
    assert (str(path), ref) == expected


def test_names() -> None:
    digest = "sha256:" + "0" * 64
    assert parse_name("localhost/a/b:1") == ("localhost/a/b:1", None)
    assert parse_name(f"registry.example.com:5000/b@{digest}") == ("registry.example.com:5000/b", digest)
    for wrong in (
        "app",
        "library/app",
        "localhost/App",
        "localhost/app@sha256:00",
        f"@{digest}",
        "localhost/",
    ):
        with pytest.raises(ValueError, match="an image"):
            parse_name(wrong)


@pytest.mark.parametrize(
    ("script", "error", "said"),
    [
        ("echo first; echo out of luck >&2; exit 3", Unavailable, r"failed \(3\): first / out of luck"),
        ("echo 'write: No space left on device'; exit 1", Unavailable, "no space left"),
        (
            'cat > /dev/null; for i; do :; done; head -c 8192 /dev/zero > "$i"',
            Malformed,
            "wrote no file system: EROFS magic",
        ),
    ],
)
def test_a_program_that_does_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, error: type[TinbootError], said: str
) -> None:
    """It goes away with most of its input unread, or makes no file system."""
    program = tmp_path / "mkfs.erofs"
    program.write_text(f'#!/bin/sh\n[ "$1" = -V ] && {{ echo 9.9; exit; }}\n{script}\n')
    program.chmod(0o755)
    monkeypatch.setattr(oci_wrap, "find_tool", lambda name: Tool(name, (str(program),), "host"))
    made = Layout()
    made.entry(made.image([tar([member("large", data=bytes(3 << 20))])]))
    with pytest.raises(error, match=said):
        wrap_image(source(made.write(tmp_path / "oci")), tmp_path / "x.mpk")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mkfs.erofs", "oci"]
