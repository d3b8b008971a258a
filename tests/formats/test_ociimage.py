from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.formats import ociimage
from tinboot.formats.errors import Malformed, Refused, TinbootError

OCI, DOCKER = "application/vnd.oci.image.", "application/vnd.docker."
DIGEST = "sha256:" + "ab" * 32


def descriptor(media_type: str, **more: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": DIGEST, "size": 7, **more}


def manifest(**members: object) -> bytes:
    value = {
        "schemaVersion": 2,
        "config": descriptor(OCI + "config.v1+json"),
        "layers": [descriptor(OCI + "layer.v1.tar")],
        "annotations": {"whatever": "is passed over"},
    }
    return json.dumps(value | members).encode()


def test_a_manifest() -> None:
    found = ociimage.parse_manifest("m", manifest())
    assert found.config == (OCI + "config.v1+json", DIGEST, 7, "", "")
    assert found.layers == ((OCI + "layer.v1.tar", DIGEST, 7, "", ""),)


@pytest.mark.parametrize("media_type", ociimage.LAYERS)
def test_layers_of_every_known_type(media_type: str) -> None:
    assert (
        ociimage.parse_manifest("m", manifest(layers=[descriptor(media_type)])).layers[0].media_type
        == media_type
    )


@pytest.mark.parametrize(
    ("members", "error", "said"),
    [
        ({"schemaVersion": 1}, Malformed, "m.schemaVersion is 1"),
        ({"mediaType": OCI + "index.v1+json"}, Malformed, "m.mediaType is"),
        ({"manifests": []}, Malformed, "'manifests': it could be read as something else"),
        ({"config": descriptor(OCI + "empty.v1+json")}, Refused, "no container image"),
        ({"config": descriptor(OCI + "config.v1+json", digest="sha512:00")}, Malformed, "m.config.digest"),
        ({"config": descriptor(OCI + "config.v1+json", size=-1)}, Malformed, "m.config.size is -1"),
        ({"layers": []}, Refused, "0 layers"),
        ({"layers": [descriptor(OCI + "layer.v1.tar")] * 481}, Refused, "481 layers, expected 1 to 480"),
        (
            {"layers": [descriptor(OCI + "layer.v1.tar+bzip2")]},
            Refused,
            "layer.v1.tar\\+bzip2', expected one of",
        ),
        (
            {"layers": [descriptor(OCI + "layer.v1.tar", urls=["x"])]},
            Refused,
            "m.layers\\[0\\] is a foreign layer",
        ),
        (
            {"layers": [descriptor(OCI + "layer.nondistributable.v1.tar+gzip")]},
            Refused,
            "m.layers\\[0\\] is a foreign layer",
        ),
        (
            {"layers": [descriptor(DOCKER + "image.rootfs.foreign.diff.tar.gzip")]},
            Refused,
            "m.layers\\[0\\] is a foreign layer",
        ),
    ],
)
def test_manifests_that_are_refused(members: dict[str, object], error: type[TinbootError], said: str) -> None:
    with pytest.raises(error, match=said):
        ociimage.parse_manifest("m", manifest(**members))


def test_a_member_twice() -> None:
    data = manifest().replace(b'"schemaVersion": 2', b'"schemaVersion": 2, "schemaVersion": 2')
    with pytest.raises(Malformed, match="stands twice"):
        ociimage.parse_manifest("m", data)


def test_an_index() -> None:
    value = {
        "schemaVersion": 2,
        "manifests": [
            descriptor(ociimage.MANIFESTS[0], platform={"os": "linux", "architecture": "amd64"}),
            descriptor(ociimage.INDEXES[0], annotations={"org.opencontainers.image.ref.name": "v1"}),
        ],
    }
    found = ociimage.parse_index("i", json.dumps(value).encode())
    assert [(d.platform, d.name) for d in found] == [("linux/amd64", ""), ("", "v1")]
    assert ociimage.is_index("i", json.dumps(value).encode())
    assert not ociimage.is_index("m", manifest())
    for name in ("config", "layers"):
        with pytest.raises(Malformed, match="could be read as something else"):
            ociimage.parse_index("i", json.dumps(value | {name: []}).encode())


def configuration(**members: object) -> bytes:
    value: dict[str, object] = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [DIGEST, DIGEST]},
        "config": {"Cmd": ["/serve"]},
    }
    return json.dumps(value | members).encode()


def test_a_configuration() -> None:
    assert ociimage.parse_configuration("c", configuration()) == ("linux/amd64", (DIGEST, DIGEST))


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"os": ""}, "c.os is not one line"),
        ({"rootfs": {"type": "squashfs", "diff_ids": []}}, "c.rootfs.type is 'squashfs'"),
        (
            {"rootfs": {"type": "layers", "diff_ids": ["md5:00"]}},
            "c.rootfs.diff_ids: 'md5:00' is not sha256:",
        ),
        ({"rootfs": []}, "c.rootfs is an array"),
    ],
)
def test_configurations_that_are_refused(members: dict[str, object], said: str) -> None:
    with pytest.raises(Malformed, match=said):
        ociimage.parse_configuration("c", configuration(**members))


@pytest.mark.parametrize(
    "data", [b"", b"{}", b'{"imageLayoutVersion": "1.1.0"}', b'{"imageLayoutVersion": 1}']
)
def test_layouts_that_are_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        ociimage.parse_layout(data)


values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 1 << 62) | st.text(max_size=9) | st.just(DIGEST),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["mediaType", "digest", "size", "urls", "layers", "config", "platform", "annotations"]
            ),
            inner,
        )
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(
        st.sampled_from(["schemaVersion", "config", "layers", "manifests", "rootfs", "os"]), values
    )
)
def test_any_document_is_read_or_refused(value: dict[str, object]) -> None:
    data = json.dumps({"schemaVersion": 2} | value).encode()
    for parse in (ociimage.parse_manifest, ociimage.parse_index, ociimage.parse_configuration):
        with suppress(Malformed, Refused):
            parse("x", data)
