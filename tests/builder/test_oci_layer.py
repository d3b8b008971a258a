from __future__ import annotations

import os
import tarfile
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oci_layouts import Member, folder, member, tar

from tinboot.builder import tar_entries
from tinboot.builder.oci_layer import OPAQUE, Tree, unpack
from tinboot.builder.tar_entries import CHARACTER, FILE, FOLDER, Entry
from tinboot.formats.errors import Refused


def layer(members: Sequence[Member], below: Entry | None = None) -> Tree:
    fd = os.memfd_create("layer")
    try:
        os.write(fd, tar(members))
        return unpack(tar_entries.read(fd, "layer"), below, "layer 2")
    finally:
        os.close(fd)


def kinds(tree: Tree) -> dict[str, bytes]:
    return {path.decode(): entry.kind for path, entry in tree.items()}


LINK, SYMLINK = tarfile.LNKTYPE, tarfile.SYMTYPE


def test_paths_are_those_of_the_layer() -> None:
    tree = layer([folder("./"), folder("./a/"), member("/a/b"), member("c//./d")])
    assert kinds(tree) == {"": FOLDER, "a": FOLDER, "a/b": FILE, "c": FOLDER, "c/d": FILE}


#: The root of a layer below.
BELOW = layer([folder("./", mode=0o700, uid=7)])[b""]


def test_directories_that_nobody_describes() -> None:
    """As a pull by Podman makes them (podman 5.4)."""
    tree = layer([member("a/b/c")])
    assert [(tree[path].mode, tree[path].uid) for path in (b"", b"a", b"a/b")] == [
        (0o555, 0),
        (0o755, 0),
        (0o755, 0),
    ]
    tree = layer([member("a/b/c")], BELOW)
    assert [(tree[path].mode, tree[path].uid) for path in (b"", b"a")] == [(0o700, 7), (0o755, 0)]


def test_whiteouts_are_devices() -> None:
    tree = layer([member("a/.wh.gone"), member(".wh.top")], BELOW)
    assert kinds(tree) == {"": FOLDER, "a": FOLDER, "a/gone": CHARACTER, "top": CHARACTER}
    assert (tree[b"top"].mode, tree[b"top"].xattrs) == (0, ())


def test_the_lowest_layer_has_nothing_to_hide() -> None:
    tree = layer([member("a/.wh.gone"), member("b/.wh..wh..opq"), member("b/c")])
    assert kinds(tree) == {"": FOLDER, "a": FOLDER, "b": FOLDER, "b/c": FILE}
    assert tree[b"b"].xattrs == ()


def test_opaque_directories() -> None:
    tree = layer(
        [member("a/.wh..wh..opq"), member("a/new"), folder("b", mode=0o700), member("b/.wh..wh..opq")], BELOW
    )
    assert (tree[b"a"].xattrs, tree[b"b"].xattrs, tree[b"b"].mode) == ((OPAQUE,), (OPAQUE,), 0o700)


@pytest.mark.parametrize("order", [1, -1])
def test_what_replaces_something_hides_it(order: int) -> None:
    replaced = layer([member(".wh.a"), folder("a"), member("a/x")][::order], BELOW)
    assert (replaced[b"a"].kind, replaced[b"a"].xattrs) == (FOLDER, (OPAQUE,))
    assert layer([member(".wh.a"), member("a")][::order], BELOW)[b"a"].kind == FILE


def test_hard_links_are_what_they_link_to() -> None:
    tree = layer(
        [
            member("a", data=b"x", mode=0o4755),
            member("b", LINK, linkname="./a"),
            member("c", LINK, linkname="b", mode=0o600),
        ]
    )
    assert tree[b"a"] == tree[b"b"] == tree[b"c"]
    assert (tree[b"a"].size, tree[b"a"].mode) == (1, 0o600)


def test_the_last_of_one_name_counts() -> None:
    assert layer([member("a", data=b"1"), member("a", data=b"22")])[b"a"].size == 2


def test_setuid_capabilities_and_attributes_of_users_are_kept() -> None:
    xattrs = {"SCHILY.xattr.security.capability": "c", "SCHILY.xattr.user.note": "n"}
    found = layer([member("a", mode=0o6755, pax_headers=xattrs)])[b"a"]
    assert (found.mode, found.xattrs) == (0o6755, ((b"security.capability", b"c"), (b"user.note", b"n")))


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([member("../a")], "'../a' leads out of the layer"),
        ([member("a/../../b")], "leads out of the layer"),
        ([member("a", LINK, linkname="../etc/shadow")], "leads out of the layer"),
        ([member("n" * 256)], "has a component of more than 255 bytes"),
        (
            [member("a", SYMLINK, linkname="/etc"), member("a/b")],
            "'a/b' lies behind 'a', which is no directory",
        ),
        (
            [member("a/b"), member("a", SYMLINK, linkname="/etc")],
            "'a/b' lies behind 'a', which is no directory",
        ),
        ([member("a"), member("a/.wh.b")], "lies behind 'a', which is no directory"),
        ([member("a"), member("a/.wh..wh..opq")], "'a' is opaque, and no directory"),
        ([member("a"), folder("a")], "'a' stands twice, once as a directory"),
        ([folder("a"), member("a")], "'a' stands twice, once as a directory"),
        (
            [member("a", LINK, linkname="b"), member("b")],
            "'a' is a hard link to 'b', which is no file before it",
        ),
        ([folder("b"), member("a", LINK, linkname="b")], "which is no file before it"),
        ([member("a", tarfile.CHRTYPE)], "'a' is a device"),
        ([member("a", tarfile.BLKTYPE)], "'a' is a device"),
        ([member("./")], "its root is not a directory"),
        ([member(".wh..wh..opq")], "its root hides everything below"),
        ([member(".wh..wh.plnk")], "is a mark that layer.md does not know"),
        ([member(".wh.a/b")], "lies in something whose name is a mark"),
        ([member("a/.wh.")], "is a mark that layer.md does not know"),
        ([member("a/.wh...")], "is a mark that layer.md does not know"),
        *(
            ([member("a", pax_headers={f"SCHILY.xattr.{name}": "y"})], f"extended attribute '{name}'")
            for name in (
                "trusted.overlay.opaque",
                "trusted.overlay.redirect",
                "user.overlay.opaque",
                "security.selinux",
                "system.posix_acl_access",
            )
        ),
    ],
)
def test_refusals(members: list[Member], said: str) -> None:
    with pytest.raises(Refused) as refused:
        layer(members, BELOW)
    assert refused.value.message.startswith("layer 2: ")
    assert said in refused.value.message


parts = st.sampled_from(["a", "b", ".", "..", ".wh.a", ".wh..wh..opq", ".wh.", ""])
paths = st.lists(parts, min_size=1, max_size=4).map("/".join)


@given(
    st.lists(
        st.builds(
            lambda path, kind, target: member(path, kind, linkname=target),
            paths,
            st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, SYMLINK, LINK]),
            paths,
        ),
        max_size=8,
    ),
    st.booleans(),
)
def test_a_tree_is_closed_and_clean_or_refused(members: list[Member], lowest: bool) -> None:
    try:
        tree = layer(members, None if lowest else BELOW)
    except Refused:
        return
    assert tree[b""].kind == FOLDER
    for path, entry in tree.items():
        assert all(part not in (b"", b".", b"..") for part in path.split(b"/")) or not path
        assert not any(part.startswith(b".wh.") for part in path.split(b"/"))
        assert entry.kind != tar_entries.LINK
        assert not path or tree[path.rpartition(b"/")[0]].kind == FOLDER
