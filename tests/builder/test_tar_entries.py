from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oci_layouts import Member, folder, member, tar

from tinboot.builder import tar_entries
from tinboot.builder.oci_store import Member as Written
from tinboot.builder.oci_store import header
from tinboot.builder.tar_entries import BLOCK, Entry
from tinboot.formats.errors import Malformed, Refused, TinbootError

FORMATS = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)


def entries(data: bytes) -> list[Entry]:
    fd = os.memfd_create("archive")
    try:
        os.write(fd, data)
        return list(tar_entries.read(fd, "layer 1"))
    finally:
        os.close(fd)


def by_tarfile(data: bytes) -> list[tuple[object, ...]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return [
            (
                i.name.rstrip("/"),
                i.type,
                i.mode,
                i.uid,
                i.gid,
                int(i.mtime),
                i.size,
                i.linkname,
                i.offset_data,
            )
            for i in archive.getmembers()
        ]


def ours(data: bytes) -> list[tuple[object, ...]]:
    return [
        (
            os.fsdecode(e.path).rstrip("/"),
            e.kind,
            e.mode,
            e.uid,
            e.gid,
            e.mtime,
            e.size,
            os.fsdecode(e.target),
            e.at,
        )
        for e in entries(data)
    ]


names = st.text("ab./é ", min_size=1, max_size=30).map(lambda n: "x" + n)
members = st.one_of(
    st.builds(
        lambda name, data, mode, uid, mtime: member(
            name, data=data, mode=mode, uid=uid, gid=uid, mtime=mtime
        ),
        names.filter(lambda n: not n.endswith("/")),
        st.binary(max_size=1200),
        st.integers(0, 0o7777),
        st.integers(0, 0o7777777),
        st.integers(0, 8**11 - 1),
    ),
    st.builds(folder, names),
    st.builds(
        lambda name, target, kind: member(name, kind, linkname=target),
        names,
        names,
        st.sampled_from([tarfile.SYMTYPE, tarfile.LNKTYPE]),
    ),
)


@given(st.lists(members, max_size=6), st.sampled_from(FORMATS))
def test_reads_what_pythons_tarfile_reads(listed: list[Member], form: int) -> None:
    data = tar(listed, form)
    assert ours(data) == by_tarfile(data)


@pytest.mark.parametrize("form", FORMATS[:2], ids=["pax", "gnu"])
def test_long_names_and_large_numbers(form: int) -> None:
    listed = [
        member("n" * 300, data=b"x", uid=3_000_000, gid=0xFFFFFFFE, mtime=8**11),
        member("s", tarfile.SYMTYPE, linkname="t" * 300),
    ]
    data = tar(listed, form)
    assert ours(data) == by_tarfile(data)


def test_extended_attributes() -> None:
    xattrs = {"SCHILY.xattr.user.b": "2", "SCHILY.xattr.user.a": "1", "LIBARCHIVE.xattr.user.a": "MQ"}
    (found,) = entries(tar([member("x", pax_headers=xattrs)]))
    assert found.xattrs == ((b"user.a", b"1"), (b"user.b", b"2"))


def test_a_time_with_a_fraction() -> None:
    assert entries(tar([member("x", mtime=1.5)]))[0].mtime == 1


attributes = st.dictionaries(
    st.sampled_from([b"user.a", b"user.b", b"security.capability"]), st.binary(max_size=200)
)
written = st.builds(
    Written,
    path=st.text("ab.é", min_size=1, max_size=300).map(str.encode),
    kind=st.just(tar_entries.FILE),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, tar_entries.MAX_ID),
    gid=st.integers(0, tar_entries.MAX_ID),
    mtime=st.integers(0, 1 << 35),
    target=st.just(b""),
    xattrs=attributes.map(lambda found: tuple(sorted(found.items()))),
    data=st.just(b""),
    fd=st.just(-1),
    at=st.just(0),
    size=st.just(0),
)


@given(written)
def test_what_the_store_writes_is_read_back(made: Written) -> None:
    (found,) = entries(header(made))
    assert (found.path, found.mode, found.uid, found.gid, found.mtime, found.xattrs) == (
        made.path,
        made.mode,
        made.uid,
        made.gid,
        made.mtime,
        made.xattrs,
    )


def changed(at: int, new: bytes, *, sealed: bool = True) -> Callable[[bytes], bytes]:
    """`new` at `at` of the first header, its checksum right again."""

    def change(data: bytes) -> bytes:
        block = bytearray(data[:BLOCK])
        block[at : at + len(new)] = new
        if sealed:
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
        return bytes(block) + data[BLOCK:]

    return change


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (changed(0, b"z", sealed=False), Malformed, "its checksum is wrong"),
        (changed(257, b"v7\0\0\0\0\0\0"), Malformed, "neither ustar nor GNU tar"),
        (changed(124, b"0000001000x\0"), Malformed, "is not a number"),
        (changed(124, b"\xff" * 12), Malformed, "is not a number"),
        (changed(124, b"\x80" + b"\x7f" * 11), Malformed, "where at most"),
        (changed(124, b"00000777777\0"), Malformed, "go beyond the end"),
        (changed(108, b"\x80\0\0\0\xff\xff\xff\xff"), Malformed, "where at most 4294967294"),
        (changed(156, b"S"), Refused, "is of type b'S'"),
        (changed(156, b"7"), Refused, "is of type b'7'"),
        (changed(156, b"D"), Refused, "is of type b'D'"),
        (lambda data: data[:300], Malformed, "ends at byte 300"),
        (lambda data: data[: BLOCK + 3], Malformed, "go beyond the end"),
        (lambda data: data[:700], Malformed, "ends at byte"),
        (lambda data: data + bytes(BLOCK) + b"x", Malformed, "something lies behind its end"),
    ],
)
def test_refusals(change: Callable[[bytes], bytes], error: type[TinbootError], said: str) -> None:
    data = tar([member("x", data=b"0123456789")])
    with pytest.raises(error, match=said):
        entries(change(data))


def extended(records: bytes, kind: bytes = b"x") -> bytes:
    made = header(Written(b"pax", kind, size=len(records))) + records + bytes(-len(records) % BLOCK)
    return made + tar([member("x")])


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        (extended(b"9 path=y\n"), None, ""),
        (extended(b"18 comment=012345\n", b"g"), None, ""),
        (extended(b"8 path=y\n"), Malformed, "is damaged at byte 0"),
        (extended(b"11 path=y\n"), Malformed, "is damaged at byte 0"),
        (extended(b"path=y\n"), Malformed, "is damaged"),
        (extended(b"6 pat\n"), Malformed, "is damaged"),
        (extended(b"9 path=y\n9 path=z\n"), Malformed, "is damaged at byte 9"),
        (extended(b"10 uid=-1\n"), Malformed, "is not a number"),
        (extended(b"11 mtime=x\n"), Malformed, "is not a number"),
        (extended(b"22 GNU.sparse.major=1\n"), Refused, "a sparse file"),
        (extended(b"9 path=y\n", b"g"), Refused, "a header for all members with 'path'"),
        (extended(b"4103 path=" + b"y" * 4092 + b"\n"), None, ""),
        (extended(b"4112 path=" + b"y" * 4101 + b"\n"), Malformed, "a path of 4101 bytes"),
        (extended(b"12 path=a\0b\n"), Malformed, "without NUL"),
        (header(Written(b"pax", b"x", size=2 << 20)), Malformed, "where at most 1048576"),
    ],
)
def test_extended_headers(data: bytes, error: type[TinbootError] | None, said: str) -> None:
    if error is None:
        assert len(entries(data)) == 1
        return
    with pytest.raises(error, match=said):
        entries(data)


def test_too_many_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_entries, "_MAX_ENTRIES", 3)
    with pytest.raises(Refused, match="more than 3 members"):
        entries(tar([member(f"x{n}") for n in range(4)]))


@settings(max_examples=200)
@given(st.data())
def test_whatever_is_changed_is_read_or_refused(data: st.DataObject) -> None:
    archive = bytearray(
        tar([member("a" * 120, data=b"0" * 600), folder("d"), member("l", b"2", linkname="a")])
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(archive) - 1))
        archive[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(archive)))
    with suppress(Malformed, Refused):
        entries(bytes(archive[:cut]))


@given(st.binary(max_size=2000))
def test_any_bytes(data: bytes) -> None:
    with suppress(Malformed, Refused):
        entries(data)


def test_tarfile_ends_in_silence_where_this_refuses(tmp_path: Path) -> None:
    """Why there is a reader of our own: a damaged second header."""
    data = bytearray(tar([member("a"), member("b")]))
    data[BLOCK] ^= 1
    assert [name for name, *_ in by_tarfile(bytes(data))] == ["a"]
    with pytest.raises(Malformed, match="header at byte 512: its checksum is wrong"):
        entries(bytes(data))
