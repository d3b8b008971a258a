"""A build appears whole or not at all, and says exactly what it is."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from tinboot.builder import assemble, hashtree, output, places, stopping
from tinboot.builder.image import Image
from tinboot.builder.mkosi import Mkosi
from tinboot.builder.recipe import Recipe
from tinboot.formats import cmdline, configdisk, manifest
from tinboot.formats.errors import Malformed, Refused, Unavailable
from tinboot.formats.verity import Verity, salt_for
from tinboot.host import builddir

CONFIG = b"cvm-version: 0.1.0\ncpus: 2\nmemory: 2048\nshim:\n  upstream-port: 8080\n"
RECIPE = Recipe(places.REPOSITORY, "debian", "release")
UUID = "0f98fbd8-f18a-5628-948d-11a952f8b391"
MKOSI = Mkosi(("false",), {}, "27.1", "")
FILES = {"cmdline", "config.disk", "config.yml", "initrd", "kernel", "manifest.json", "root"}
FILES |= {f"{name}.cdx.json" for name in ("initrd", "kernel", "root")}


@pytest.fixture
def image(tmp_path: Path) -> Image:
    folder = tmp_path / "image"
    folder.mkdir()
    for name in ("kernel", "initrd", "kernel.cdx.json", "initrd.cdx.json", "root.cdx.json"):
        (folder / name).write_text(name)
    (folder / "root").write_bytes(bytes(4 * 4096))
    packages = (manifest.Package("root", "bash", "1", "amd64", "ab" * 32),)
    return Image(folder, Verity("12" * 32, "34" * 32, 2), packages)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tinboot.yml"
    path.write_bytes(CONFIG)
    return path


def run(config: Path, image: Image, final: Path) -> manifest.Manifest:
    return assemble.assemble(config, image, RECIPE, MKOSI, final)


def listing(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_everything_a_launch_needs(config: Path, image: Image, tmp_path: Path) -> None:
    made = run(config, image, tmp_path / "x.build")
    final = tmp_path / "x.build"
    assert listing(final) == FILES
    assert final.stat().st_mode & 0o777 == 0o755
    assert manifest.Manifest.load((final / "manifest.json").read_bytes()) == made
    assert (final / "config.yml").read_bytes() == CONFIG
    assert (final / "config.disk").read_bytes() == configdisk.pad(CONFIG)
    line = cmdline.parse((final / "cmdline").read_text())
    assert line.config_hash == hashlib.sha256(CONFIG).hexdigest()
    assert (line.root_hash, line.root_salt, line.root_blocks) == image.verity
    assert (made.cpus, made.memory, made.gpus, made.packages) == (2, 2048, 0, image.packages)
    for artefact in (made.kernel, made.initrd, made.root):
        data = (final / artefact.file).read_bytes()
        assert (artefact.sha256, artefact.size) == (hashlib.sha256(data).hexdigest(), len(data))
    assert (final / "root").samefile(image.folder / "root")


def test_on_another_file_system(
    config: Path, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: Path, _target: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    run(config, image, tmp_path / "x.build")
    assert listing(tmp_path / "x.build") == FILES
    assert not (tmp_path / "x.build/root").samefile(image.folder / "root")
    assert (tmp_path / "x.build/root").read_bytes() == (image.folder / "root").read_bytes()


@pytest.mark.parametrize("exchange", [True, False])
def test_a_former_build_is_replaced(
    config: Path, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(output, "_exchange", lambda _one, _other: False)
    run(config, image, tmp_path / "x.build")
    (tmp_path / "x.build/more").touch()
    config.write_bytes(CONFIG.replace(b"cpus: 2", b"cpus: 4"))
    assert run(config, image, tmp_path / "x.build").cpus == 4
    assert listing(tmp_path / "x.build") == FILES
    assert listing(tmp_path) == {"image", "tinboot.yml", "x.build"}


@pytest.mark.parametrize("there", ["folder", "full", "file", "link"])
def test_anything_else_is_not(config: Path, image: Image, tmp_path: Path, there: str) -> None:
    final = tmp_path / "precious"
    match there:
        case "folder":
            final.mkdir()
        case "full":
            final.mkdir()
            (final / "thesis").touch()
        case "file":
            final.touch()
        case "link":
            final.symlink_to("nowhere")
    with pytest.raises(Refused, match="precious is there and is no build") as refused:
        run(config, image, final)
    assert "--output" in refused.value.hint
    assert listing(tmp_path) == {"image", "tinboot.yml", "precious"}


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), stopping.Stopped(15)])
@pytest.mark.parametrize("moment", ["_link", "replace_folder", "_exchange"])
def test_what_goes_wrong_leaves_the_former_build(
    config: Path,
    image: Image,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    error: BaseException,
) -> None:
    before = run(config, image, tmp_path / "x.build")
    config.write_bytes(CONFIG.replace(b"cpus: 2", b"cpus: 4"))

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(assemble if moment == "_link" else output, moment, fail)
    with pytest.raises((Unavailable, stopping.Stopped)) as caught:
        run(config, image, tmp_path / "x.build")
    if isinstance(caught.value, Unavailable):
        assert "no space left" in caught.value.message
    assert manifest.Manifest.load((tmp_path / "x.build/manifest.json").read_bytes()) == before
    assert listing(tmp_path) == {"image", "tinboot.yml", "x.build"}


def test_without_exchange_the_former_one_comes_back(
    config: Path, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(config, image, tmp_path / "x.build")
    monkeypatch.setattr(output, "_exchange", lambda _one, _other: False)
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name == "build":
            raise stopping.Stopped(2)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(stopping.Stopped):
        run(config, image, tmp_path / "x.build")
    assert listing(tmp_path / "x.build") == FILES


def test_a_place_that_is_not_there(config: Path, image: Image, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no/such"):
        run(config, image, tmp_path / "no/such/x.build")


def test_check_output_leaves_nothing(tmp_path: Path) -> None:
    assemble.check_output(tmp_path / "x.build")
    assert listing(tmp_path) == set()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "config-empty"),
        (b"cpus: 2\nshim: [\n", "line "),
        (b"cpus: two\n", "cpus"),
        (CONFIG + b"colour: blue\n", "colour"),
        (CONFIG + b"cpus: 3\n", "line 6"),
        (b"\xff\xfe", "config-"),
        (CONFIG + b"#" * (1 << 20), "config-"),
    ],
)
def test_bad_configs_name_file_place_and_page(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "tinboot.yml"
    path.write_bytes(data)
    with pytest.raises(Malformed) as refused:
        assemble.read_config(path)
    assert refused.value.message.startswith(f"{path}: ")
    assert said in refused.value.message + refused.value.hint
    assert "docs/config.md" in refused.value.hint


def test_no_config(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"none\.yml: No such file"):
        assemble.read_config(tmp_path / "none.yml")
    with pytest.raises(Unavailable, match="Is a directory"):
        assemble.read_config(tmp_path)


def test_the_epoch_is_the_recipes() -> None:
    for name in ("mkosi.conf", "mkosi.tools/mkosi.conf"):
        text = (places.REPOSITORY / name).read_text()
        assert f"SourceDateEpoch={assemble.SOURCE_DATE_EPOCH}\n" in text


def test_images_are_volumes_that_a_launch_finds(config: Path, image: Image, tmp_path: Path) -> None:
    """By their content, and by the salt that their name gives, as models."""
    wrapped: dict[str, tuple[Path, str]] = {}
    for name in ("localhost/app:1@sha256:" + "ab" * 32, "org/model@1"):
        path = tmp_path / f"volume-{len(wrapped)}"
        path.write_bytes(bytes(3 * 4096))
        made = hashtree.append_tree(path, salt_for(name), UUID)
        wrapped[name] = (path, f"{made.root_hash}_{3 * 4096}_{UUID}")
    app, model = wrapped
    lines = [f"models: [{{name: m, repo: {model}, mpk: {wrapped[model][1]}}}]"]
    lines += [
        f"images: [{{image: '{app}', mpk: {wrapped[app][1]}}}]",
        f"containers: [{{name: a, image: '{app}'}}]",
    ]
    config.write_bytes(CONFIG.partition(b"shim")[0] + "\n".join(lines).encode())
    built = run(config, image, tmp_path / "x.build")
    assert [(volume.name, volume.repo) for volume in built.volumes] == [("m", model), (app, app)]
    assert manifest.Manifest.load(built.dump()) == built
    given = [str(path) for path, _ in wrapped.values()]
    assert builddir.match_volumes(built, given) == {app: wrapped[app][0], "m": wrapped[model][0]}
    with pytest.raises(Refused, match="no file is given for localhost/app:1@sha256:"):
        builddir.match_volumes(built, given[1:])
