"""Tar archives read strictly: what one reader would pass over and another take is refused by name.

IEEE Std 1003.1-2017, pax, "pax Interchange Format" and "ustar Interchange Format"; GNU tar's long names
(types L and K) and its numbers in base 256 (tar.h, "GNU tar Archive Format"). No sparse files, no
continuations, nothing behind the end. Python's tarfile, unlike this, ends at a damaged header in silence.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

from tinboot.formats.errors import Malformed, Refused

BLOCK = 512

FILE, LINK, SYMLINK, CHARACTER, DEVICE, FOLDER, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_KINDS = (FILE, LINK, SYMLINK, CHARACTER, DEVICE, FOLDER, FIFO)

#: Bytes. Linux takes paths of 4096; an extended header holds a few attributes of at most 64 KiB each.
_MAX_PATH = 4096
_MAX_EXTENDED = 1 << 20
_MAX_ENTRIES = 4 << 20

#: Linux: ids are 32 bits, all ones is none; EROFS keeps 64 bits of seconds, and a minus sign nobody needs.
MAX_ID = 0xFFFFFFFE
_MAX_TIME = (1 << 40) - 1

XATTR = b"SCHILY.xattr."


class Entry(NamedTuple):
    """One member. `at`: where its bytes are in the archive; `target`: of a link; `mtime` in seconds.

    `header`: where its header is, which tells two members of one name apart.
    """

    path: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    at: int
    header: int
    target: bytes
    xattrs: tuple[tuple[bytes, bytes], ...]


def read(fd: int, what: str) -> Iterator[Entry]:
    """The members in their order. `what` names the archive in errors: `Malformed`, `Refused`."""
    end = os.fstat(fd).st_size
    at = 0
    extended: dict[bytes, bytes] = {}
    for _ in range(_MAX_ENTRIES):
        if at == end:
            return
        header = at
        block = _read(fd, at, BLOCK, what)
        at += BLOCK
        if not any(block):
            _require_zeros(fd, at, end, what)
            return
        kind = _checked(block, f"{what}, header at byte {header}")
        where = f"{what}, header at byte {header}"
        size = _number(block[124:136], where)
        if kind in b"xgLK":
            data = _read(fd, at, _bounded(size, _MAX_EXTENDED, where), what)
            at += size + -size % BLOCK
            _extend(extended, kind, data, where)
            continue
        entry = _entry(block, kind, header, at, extended, where)
        extended = {}
        if entry.at + entry.size > end:
            raise Malformed(f"{where}: its {entry.size} bytes go beyond the end of the archive")
        at += entry.size + -entry.size % BLOCK
        yield entry
    raise Refused(f"{what} has more than {_MAX_ENTRIES} members")


def _checked(block: bytes, where: str) -> bytes:
    """The type of a header whose checksum and magic are right."""
    stored = _number(block[148:156], where)
    if stored != sum(block[:148]) + 8 * ord(" ") + sum(block[156:]):
        raise Malformed(f"{where}: its checksum is wrong")
    if block[257:265] not in (b"ustar\x0000", b"ustar  \0"):
        raise Malformed(f"{where}: its magic is {block[257:265]!r}, that of neither ustar nor GNU tar")
    return block[156:157]


def _entry(
    block: bytes, kind: bytes, header: int, at: int, extended: dict[bytes, bytes], where: str
) -> Entry:
    name, prefix = _text(block[:100]), _text(block[345:500])
    if prefix and block[257:263] == b"ustar\0":
        name = prefix + b"/" + name
    path = extended.get(b"path", name)
    if kind == b"\0":
        kind = FOLDER if path.endswith(b"/") else FILE
    if kind not in _KINDS:
        raise Refused(f"{where}: {_shown(path)} is of type {kind!r}: no file, directory or link")
    target = extended.get(b"linkpath", _text(block[157:257])) if kind in (LINK, SYMLINK) else b""
    for text in (path, target):
        if len(text) > _MAX_PATH or b"\0" in text:
            raise Malformed(f"{where}: a path of {len(text)} bytes, expected at most {_MAX_PATH} without NUL")

    def number(key: bytes, field: slice, most: int) -> int:
        if key in extended:
            return _bounded(_decimal(extended[key], where), most, where)
        return _bounded(_number(block[field], where), most, where)

    return Entry(
        path=path,
        kind=kind,
        mode=_number(block[100:108], where) & 0o7777,
        uid=number(b"uid", slice(108, 116), MAX_ID),
        gid=number(b"gid", slice(116, 124), MAX_ID),
        mtime=number(b"mtime", slice(136, 148), _MAX_TIME),
        size=number(b"size", slice(124, 136), 1 << 40) if kind == FILE else 0,
        at=at,
        header=header,
        target=target,
        xattrs=tuple(sorted((k.removeprefix(XATTR), v) for k, v in extended.items() if k.startswith(XATTR))),
    )


def _extend(extended: dict[bytes, bytes], kind: bytes, data: bytes, where: str) -> None:
    if kind in b"LK":
        extended[b"path" if kind == b"L" else b"linkpath"] = data.rstrip(b"\0")
        return
    records = _records(data, where)
    if kind == b"g":
        # git archive leaves its commit in one; anything else would change every member behind it
        if set(records) - {b"comment"}:
            raise Refused(f"{where}: a header for all members with {_shown(min(records))}")
        return
    if any(key.startswith(b"GNU.sparse.") for key in records):
        raise Refused(f"{where}: a sparse file", "make the layer without sparse files")
    extended |= records


def _records(data: bytes, where: str) -> dict[bytes, bytes]:
    """`<length> <key>=<value>\\n`, the length that of the whole record (pax, "pax Extended Header")."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        digits, space, _ = data[at : at + 8].partition(b" ")
        length = int(digits) if digits.isdigit() and space else 0
        record = data[at : at + length]
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if len(record) != length or record[-1:] != b"\n" or not (key and equals) or key in found:
            raise Malformed(f"{where}: its extended header is damaged at byte {at}")
        found[key] = value
        at += length
    return found


def _number(field: bytes, where: str) -> int:
    """Octal digits among spaces and NULs, or, with the first bit set, base 256."""
    if field[0] & 0x80:
        if field[0] != 0x80:
            _bad_number(field, where)
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if any(c not in b"01234567" for c in digits):
        _bad_number(field, where)
    return int(digits or b"0", 8)


def _decimal(text: bytes, where: str) -> int:
    """Decimal, of which only a time has a fraction."""
    whole, point, fraction = text.partition(b".")
    if not whole.isdigit() or len(whole) > 18 or (point and not fraction.isdigit()):
        _bad_number(text, where)
    return int(whole)


def _bad_number(text: bytes, where: str) -> NoReturn:
    raise Malformed(f"{where}: {_shown(text)} is not a number")


def _bounded(value: int, most: int, where: str) -> int:
    if value > most:
        raise Malformed(f"{where}: {value} where at most {most} is expected")
    return value


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _require_zeros(fd: int, at: int, end: int, what: str) -> None:
    while at < end:
        data = _read(fd, at, min(1 << 20, end - at), what)
        if any(data):
            raise Malformed(f"{what}: something lies behind its end, at byte {at}")
        at += len(data)


def _read(fd: int, at: int, size: int, what: str) -> bytes:
    data = os.pread(fd, size, at)
    if len(data) != size:
        raise Malformed(f"{what} ends at byte {at + len(data)}, within {size} bytes that it says are there")
    return data


def _shown(text: bytes) -> str:
    return ascii(os.fsdecode(text[:200]))
