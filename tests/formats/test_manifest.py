"""The manifest's reader and writer: they agree, and the reader takes nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats import cmdline, manifest, verity
from tinboot.formats.errors import Malformed

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
LINE = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=60)
FILE = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,20}", fullmatch=True)


@st.composite
def manifests(draw: st.DrawFn) -> manifest.Manifest:
    blocks = draw(st.integers(1, 1 << 30))
    root = manifest.Root(draw(HEX), draw(HEX), blocks, blocks * verity.BLOCK)
    names = draw(
        st.lists(FILE, min_size=3, max_size=3, unique=True).filter(
            lambda names: not {manifest.CONFIG_DISK, manifest.FILE} & set(names)
        )
    )
    sizes = (draw(st.integers(1, 1 << 40)), draw(st.integers(1, 1 << 40)))
    whole = verity.file_blocks(blocks) * verity.BLOCK
    config = manifest.Artefact(draw(FILE), draw(HEX), draw(st.integers(1, 1 << 20)))
    line = cmdline.CommandLine(config.sha256, root.root_hash, root.salt, root.blocks)
    refs = st.builds(
        verity.VolumeRef, HEX, st.integers(1, 1 << 30).map(lambda n: n * 4096), st.uuids().map(str)
    )
    return manifest.Manifest(
        name=draw(LINE),
        distribution=draw(LINE),
        profile=draw(LINE),
        kernel=manifest.Artefact(names[0], draw(HEX), sizes[0]),
        initrd=manifest.Artefact(names[1], draw(HEX), sizes[1]),
        root=manifest.Artefact(names[2], draw(HEX), whole),
        verity=root,
        config=config,
        command_line=cmdline.render(line),
        cpus=draw(st.integers(1, 255)),
        memory=draw(st.integers(1, 1 << 24)),
        gpus=draw(st.integers(0, 8)),
        volumes=tuple(
            draw(
                st.lists(st.builds(manifest.Volume, LINE, LINE, refs), max_size=3, unique_by=lambda v: v.name)
            )
        ),
        packages=tuple(
            sorted(
                draw(
                    st.lists(
                        st.builds(manifest.Package, LINE, LINE, LINE, LINE, HEX), max_size=4, unique=True
                    )
                )
            )
        ),
        tools=tuple(sorted(draw(st.dictionaries(LINE, LINE, max_size=3)).items())),
        source_date_epoch=draw(st.integers(0, 1 << 33)),
        gpu_reference_values=tuple(
            manifest.Artefact(name, draw(HEX), draw(st.integers(1, 1 << 20)))
            for name in sorted(draw(st.sets(FILE, max_size=3)) | {manifest.REFERENCE_VALUES})
            if draw(st.shared(st.booleans(), key="reference values"))
        ),
    )


def example() -> manifest.Manifest:
    """A small manifest without volumes; tests change single members of its JSON."""
    root = manifest.Root("a" * 64, "b" * 64, 300, 300 * 4096)
    config = manifest.Artefact("tinboot.yml", "c" * 64, 700)
    return manifest.Manifest(
        name="tinboot",
        distribution="debian",
        profile="release",
        kernel=manifest.Artefact("vmlinuz", "1" * 64, 12_000_000),
        initrd=manifest.Artefact("initrd", "2" * 64, 4_000_000),
        root=manifest.Artefact("root.raw", "3" * 64, verity.file_blocks(300) * 4096),
        verity=root,
        config=config,
        command_line=cmdline.render(cmdline.CommandLine("c" * 64, "a" * 64, "b" * 64, 300)),
        cpus=2,
        memory=1024,
        gpus=0,
        volumes=(
            manifest.Volume(
                "m", "org/m@1", verity.VolumeRef("d" * 64, 4096, "0" * 8 + "-0000" * 3 + "-" + "0" * 12)
            ),
        ),
        packages=(
            manifest.Package("initrd", "libc6", "2.41-12", "amd64", "4" * 64),
            manifest.Package("root", "libc6", "2.41-12", "amd64", "4" * 64),
        ),
        tools=(("mkosi", "27.1"),),
        source_date_epoch=1_700_000_000,
        gpu_reference_values=(
            manifest.Artefact("NV_GPU_DRIVER_GH100_580.1.xml", "5" * 64, 40_000),
            manifest.Artefact("reference-values.json", "6" * 64, 4_000),
        ),
    )


@given(manifests())
def test_written_then_read_is_the_same(value: manifest.Manifest) -> None:
    data = value.dump()
    assert manifest.Manifest.load(data) == value
    assert manifest.Manifest.load(data).dump() == data


def test_canonical_bytes() -> None:
    data = example().dump()
    tree = json.loads(data)
    assert data == json.dumps(tree, indent=2, sort_keys=True).encode() + b"\n"
    assert set(tree["artefacts"]) == {"kernel", "initrd", "root"}
    assert tree["volumes"][0]["ref"].startswith("d" * 64 + "_4096_")


CHANGES: list[tuple[str, Callable[[dict[str, object]], object], str]] = [
    ("unknown member", lambda d: d.update(extra=1), "manifest has the unknown member 'extra'"),
    (
        "unknown artefact",
        lambda d: sub(d, "artefacts").update(disk={}),
        "artefacts has the unknown member 'disk'",
    ),
    ("unknown inner", lambda d: sub(d, "config").update(x=1), "manifest.config has the unknown member 'x'"),
    ("missing", lambda d: d.pop("gpus"), "manifest.gpus is missing"),
    ("older schema", lambda d: d.update(schema=1), "manifest.schema is 1, expected 2"),
    ("newer schema", lambda d: d.update(schema=3), "manifest.schema is 3, expected 2"),
    ("true is no number", lambda d: d.update(cpus=True), "manifest.cpus is true, expected a whole number"),
    ("text is no number", lambda d: d.update(cpus="2"), "manifest.cpus is a string"),
    ("null", lambda d: d.update(name=None), "manifest.name is null, expected a string"),
    ("empty", lambda d: d.update(name=""), "manifest.name is not one line"),
    ("two lines", lambda d: d.update(name="a\nb"), "manifest.name is not one line"),
    ("array is no object", lambda d: d.update(root=[]), "manifest.root is an array, expected an object"),
    (
        "object is no array",
        lambda d: d.update(packages={}),
        "manifest.packages is an object, expected an array",
    ),
    ("path", lambda d: sub(d, "artefacts", "kernel").update(file="../vmlinuz"), "expected a plain file name"),
    ("option", lambda d: sub(d, "artefacts", "kernel").update(file="-s"), "expected a plain file name"),
    (
        "short hash",
        lambda d: sub(d, "artefacts", "kernel").update(sha256="1" * 63),
        "expected 64 lower-case hex",
    ),
    ("upper case", lambda d: sub(d, "root").update(salt="B" * 64), "expected 64 lower-case hex"),
    (
        "large config",
        lambda d: sub(d, "config").update(size=(1 << 20) + 1),
        "manifest.config.size is 1048577",
    ),
    (
        "other root hash",
        lambda d: sub(d, "root").update(root_hash="e" * 64),
        "command_line has root_hash aaaa",
    ),
    ("other config", lambda d: sub(d, "config").update(sha256="e" * 64), "command_line has config_hash cccc"),
    ("other blocks", lambda d: sub(d, "root").update(blocks=299), "command_line has root_blocks 300"),
    ("hash offset", lambda d: sub(d, "root").update(hash_offset=299 * 4096), "expected 300 blocks"),
    ("root size", lambda d: sub(d, "artefacts", "root").update(size=4096), "with its hash tree"),
    ("suffix", lambda d: d.update(command_line=f"{d['command_line']} initrd=initrd"), "firmware's suffix"),
    (
        "word",
        lambda d: d.update(command_line=f"{d['command_line']} init=/bin/sh"),
        "manifest.command_line: word",
    ),
    ("same file", lambda d: sub(d, "artefacts", "kernel").update(file="initrd"), "one name stands for two"),
    (
        "config disk",
        lambda d: sub(d, "artefacts", "kernel").update(file="config.disk"),
        "one name stands for two",
    ),
    (
        "volume twice",
        lambda d: d.update(volumes=[first(d, "volumes")] * 2),
        "manifest.volumes: two have one name",
    ),
    ("package twice", lambda d: d.update(packages=[first(d, "packages")] * 2), "not sorted"),
    ("unsorted", lambda d: listed(d, "packages").reverse(), "manifest.packages is not sorted"),
    (
        "RIMs alone",
        lambda d: pinned(d).pop(),
        "manifest.gpu_reference_values is not reference-values.json and RIMs",
    ),
    (
        "RIM twice",
        lambda d: pinned(d).insert(0, pinned(d)[0]),
        "each once",
    ),
    ("RIMs unsorted", lambda d: pinned(d).reverse(), "sorted by file"),
    (
        "RIM elsewhere",
        lambda d: pinned(d)[0].update(file="rims/x"),
        "expected a plain file name",
    ),
    (
        "no such list",
        lambda d: d.pop("gpu_reference_values"),
        "manifest.gpu_reference_values is missing",
    ),
    ("reference", lambda d: first(d, "volumes").update(ref="x"), "manifest.volumes[0].ref: expected"),
]


def sub(tree: dict[str, object], *names: str) -> dict[str, object]:
    for name in names:
        tree = tree[name]  # type: ignore[assignment] # the example's shape is known
    return tree


def listed(tree: dict[str, object], name: str) -> list[dict[str, object]]:
    return tree[name]  # type: ignore[return-value] # the example's shape is known


def pinned(tree: dict[str, object]) -> list[dict[str, object]]:
    return listed(tree, "gpu_reference_values")


def first(tree: dict[str, object], name: str) -> dict[str, object]:
    return listed(tree, name)[0]


@pytest.mark.parametrize(("change", "message"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_refuses(change: Callable[[dict[str, object]], object], message: str) -> None:
    tree = json.loads(example().dump())
    change(tree)
    with pytest.raises(Malformed) as caught:
        manifest.Manifest.load(json.dumps(tree).encode())
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not strict JSON"),
        (b"[]", "manifest is an array"),
        (b"\xff", "not strict JSON"),
        (b'{"cpus": 1, "cpus": 2}', "'cpus' stands twice"),
        (b'{"schema": 1.0}', "not a whole number"),
        (b'{"schema": NaN}', "not a whole number"),
        (b'{"schema": ' + b"9" * 5000 + b"}", "not strict JSON"),
        (b'{"schema": 1} x', "not strict JSON"),
        (b'{"schema":' + b"[" * 100_000, "not strict JSON"),
        (b" " * (manifest.LIMIT + 1), "expected at most"),
    ],
    ids=["empty", "array", "utf8", "twice", "float", "nan", "digits", "trailing", "deep", "large"],
)
def test_refuses_bytes(data: bytes, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        manifest.Manifest.load(data)


def test_does_not_write_what_it_would_not_read() -> None:
    with pytest.raises(Malformed, match=r"manifest\.cpus is 0"):
        example()._replace(cpus=0).dump()
    with pytest.raises(Malformed, match="survive"):
        example()._replace(tools=(("z", "1"), ("a", "1"))).dump()
