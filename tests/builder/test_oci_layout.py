from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from oci_layouts import OCI, Layout, Made, document, folder, member, tar

from tinboot.builder import oci_layout
from tinboot.builder.oci_layout import Image
from tinboot.formats.errors import Malformed, Mismatch, Refused, TinbootError, Unavailable

LAYER = tar([folder("etc"), member("etc/passwd", data=b"root")])
OTHER = "sha256:" + "0" * 64


def index_of(*made: Made, **platform: str) -> Made:
    told = {"os": "linux", "architecture": "amd64", **platform}
    listed = [{**item.descriptor, "platform": told} for item in made]
    return document(OCI + "index.v1+json", {"schemaVersion": 2, "manifests": listed})


def find(path: Path, ref: str | None = None, digest: str | None = None) -> Image:
    with oci_layout.open_layout(path) as layout:
        return oci_layout.find(layout, ref, digest)


@pytest.fixture
def layout() -> Layout:
    return Layout()


@pytest.mark.parametrize("archive", [False, True], ids=["directory", "archive"])
def test_the_only_image(layout: Layout, tmp_path: Path, archive: bool) -> None:
    made = layout.image([LAYER])
    layout.entry(made, "v1")
    path = layout.archive(tmp_path / "oci.tar") if archive else layout.write(tmp_path / "oci")
    for ref, digest in ((None, None), ("v1", None), (None, made.digest), ("v1", made.digest)):
        image = find(path, ref, digest)
        assert (image.digest, image.documents) == (made.digest, (made.data,))
        assert len(image.manifest.layers) == len(image.configuration.diff_ids) == 1


def test_one_of_several(layout: Layout, tmp_path: Path) -> None:
    first, second = layout.image([LAYER]), layout.image([LAYER, LAYER])
    layout.entry(first, "a")
    layout.entry(second, "b")
    path = layout.write(tmp_path / "oci")
    assert find(path, "a").digest == first.digest
    assert find(path, "b").digest == second.digest
    assert find(path, None, second.digest).digest == second.digest
    with pytest.raises(Refused, match="has 2 images, expected one") as refused:
        find(path)
    assert "there: a, b. Name one" in refused.value.hint
    with pytest.raises(Refused, match="has 0 images called 'c'"):
        find(path, "c")
    with pytest.raises(Mismatch, match=f"a is {first.digest}, expected {second.digest}"):
        find(path, "a", second.digest)


def test_an_index_of_platforms_and_its_image(layout: Layout, tmp_path: Path) -> None:
    made = layout.image([LAYER])
    index = index_of(made)
    layout.add(index)
    layout.entry(index, "v1")
    path = layout.write(tmp_path / "oci")
    image = find(path)
    assert (image.digest, image.documents) == (index.digest, (index.data, made.data))
    assert find(path, None, made.digest).documents == (made.data,)


def test_an_empty_layout(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        find(layout.write(tmp_path / "oci"))
    assert "there: nothing" in refused.value.hint


Change = Callable[[Layout], None]


def with_image(**members: object) -> Change:
    def change(layout: Layout) -> None:
        layout.entry(layout.image([LAYER], **members))  # type: ignore[arg-type]  # as given

    return change


def of_platforms(count: int, **platform: str) -> Change:
    def change(layout: Layout) -> None:
        index = index_of(*[layout.image([LAYER])] * count, **platform)
        layout.add(index)
        layout.entry(index)

    return change


def altered(blob: str) -> Change:
    """One byte of a blob, its size as before; "manifest", or a part of the configuration."""

    def change(layout: Layout) -> None:
        made = layout.image([LAYER])
        layout.entry(made)
        digest = (
            made.digest
            if blob == "manifest"
            else next(d for d, b in layout.blobs.items() if b'"rootfs"' in b)
        )
        layout.blobs[digest] = layout.blobs[digest].replace(b"sha256", b"sha257", 1)

    return change


def shortened(layout: Layout) -> None:
    made = layout.image([LAYER])
    layout.entry(made)
    layout.blobs[made.digest] = layout.blobs[made.digest][:-1]


def absent(layout: Layout) -> None:
    made = layout.image([LAYER])
    layout.entry(made)
    del layout.blobs[made.digest]


def mislabelled(layout: Layout) -> None:
    layout.entry(layout.image([LAYER]), mediaType=OCI + "index.v1+json")


def mark(layout: Layout) -> None:
    layout.mark = {"imageLayoutVersion": "2.0.0"}


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (altered("manifest"), Mismatch, "hashes to sha256:"),
        (altered("configuration"), Mismatch, "hashes to sha256:"),
        (shortened, Mismatch, "its descriptor says"),
        (absent, Unavailable, "No such file"),
        (mislabelled, Refused, "index.v1\\+json': no image"),
        (mark, Malformed, "imageLayoutVersion is '2.0.0'"),
        (of_platforms(1, architecture="arm64"), Refused, "has 0 images for linux/amd64"),
        (of_platforms(2), Refused, "has 2 images for linux/amd64"),
        (with_image(config={"architecture": "arm64"}), Refused, "is for linux/arm64, expected linux/amd64"),
        (with_image(config={"os": "windows"}), Refused, "is for windows/amd64"),
        (
            with_image(config={"rootfs": {"type": "layers", "diff_ids": []}}),
            Malformed,
            "1 layers, its configuration 0",
        ),
    ],
)
def test_refusals(
    layout: Layout, tmp_path: Path, change: Change, error: type[TinbootError], said: str
) -> None:
    change(layout)
    with pytest.raises(error, match=said):
        find(layout.write(tmp_path / "oci"))


def test_a_digest_that_is_not_there(layout: Layout, tmp_path: Path) -> None:
    layout.entry(layout.image([LAYER]))
    with pytest.raises(Unavailable, match=OTHER[7:]):
        find(layout.write(tmp_path / "oci"), None, OTHER)
    with pytest.raises(Malformed, match=f"has no blobs/sha256/{OTHER[7:]}"):
        find(layout.archive(tmp_path / "oci.tar"), None, OTHER)


def test_a_document_without_end(layout: Layout, tmp_path: Path) -> None:
    made = layout.image([LAYER], config={"padding": "x" * (4 << 20)})
    layout.entry(made)
    with pytest.raises(Malformed, match="no document"):
        find(layout.write(tmp_path / "oci"))


def test_an_archive_with_a_name_twice(layout: Layout, tmp_path: Path) -> None:
    path = tmp_path / "oci.tar"
    path.write_bytes(tar([member("index.json"), member("./index.json")]))
    with pytest.raises(Malformed, match="stands twice"):
        find(path)


def test_neither_directory_nor_archive(tmp_path: Path) -> None:
    path = tmp_path / "oci"
    path.write_bytes(b"x" * 1024)
    with pytest.raises(Malformed):
        find(path)
    with pytest.raises(Unavailable, match="No such file"):
        find(tmp_path / "missing")
