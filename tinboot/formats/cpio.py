"""The newc cpio archive: what an initrd is, written in one canonical form and read strictly.

Source: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst and init/initramfs.c.
An archive is a run of members, each a 110-byte header of thirteen 8-digit hexadecimal fields, the
NUL-terminated name and the data, the last two padded with NUL to 4 bytes; `TRAILER!!!` ends it.
Archives may follow each other in one file with NULs between them; the later member of a name wins.

`write` gives the same bytes for the same entries: sorted by path, inode numbers from 1, no owner, no
time. `write(read(archive)) == archive` therefore says that an archive is canonical.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from typing import NamedTuple

from tinboot.formats.errors import Malformed

MAGIC = b"070701"
TRAILER = b"TRAILER!!!"
ALIGNMENT = 4

_FIELDS = (
    *("ino", "mode", "uid", "gid", "nlink", "mtime", "filesize"),
    *("devmajor", "devminor", "rdevmajor", "rdevminor", "namesize", "check"),
)
_HEADER = len(MAGIC) + 8 * len(_FIELDS)
_HEX = frozenset(b"0123456789abcdefABCDEF")
_PATH_MAX = 4096  # init/initramfs.c N_ALIGN(PATH_MAX): the kernel skips a longer name without a word
_LIMIT = 1 << 32  # a field holds 32 bits
_KINDS = (stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK)


class Entry(NamedTuple):
    """One member. `path` is relative (`usr/bin`), bytes that are not UTF-8 as surrogates.

    `mode` is type and permissions as in st_mode; `data` a file's content or a symlink's target;
    `rdev` major and minor number of a device node, else (0, 0).
    """

    path: str
    mode: int
    data: bytes = b""
    rdev: tuple[int, int] = (0, 0)


class Archive(NamedTuple):
    """One archive of several in a file: `start` and `end` in bytes, `end` behind the trailer."""

    start: int
    end: int
    entries: tuple[Entry, ...]


def directory(path: str, mode: int = 0o755) -> Entry:
    """`mode`: permissions only, here and below."""
    return Entry(path, stat.S_IFDIR | mode)


def file(path: str, data: bytes, mode: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(path, stat.S_IFREG | mode, data)


def symlink(path: str, target: str) -> Entry:
    """A symbolic link; the kernel gives every link mode 0777."""
    return Entry(path, stat.S_IFLNK | 0o777, target.encode(errors="surrogateescape"))


def character_device(path: str, major: int, minor: int, mode: int = 0o600) -> Entry:
    """A character device node."""
    return Entry(path, stat.S_IFCHR | mode, b"", (major, minor))


def block_device(path: str, major: int, minor: int, mode: int = 0o600) -> Entry:
    """A block device node."""
    return Entry(path, stat.S_IFBLK | mode, b"", (major, minor))


def with_parents(entries: Iterable[Entry]) -> list[Entry]:
    """`entries` and, with mode 0755, each directory above them that is not among them."""
    given = list(entries)
    known = {entry.path for entry in given}
    missing: set[str] = set()
    for path in known:
        missing.update(_parents(path))
    return given + [directory(path) for path in sorted(missing - known)]


def write(entries: Iterable[Entry]) -> bytes:
    """The canonical archive. Raises Malformed for a path that stands twice, has no directory above it
    (the kernel would drop the member silently), is absolute or leaves the root."""
    ordered = sorted(entries, key=lambda entry: entry.path.encode(errors="surrogateescape"))
    directories: set[str] = set()
    previous = None
    out = bytearray()
    for ino, entry in enumerate(ordered, start=1):
        problem = _problem(entry)
        if not problem and entry.path == previous:
            problem = "stands twice"
        absent = [parent for parent in _parents(entry.path) if parent not in directories]
        if not problem and absent:
            problem = f"needs the directory {absent[0]!a}"
        if problem:
            raise Malformed(f"cpio entry {entry.path!a}: {problem}")
        previous = entry.path
        if stat.S_ISDIR(entry.mode):
            directories.add(entry.path)
        _put(out, ino, entry)
    _put(out, 0, Entry(TRAILER.decode(), 0))
    return bytes(out)


def read(archive: bytes) -> tuple[Entry, ...]:
    """The entries, in order, of exactly one archive; only NULs may follow its trailer.

    Raises Malformed with the byte offset. Owners, times and inode numbers are checked for form, not kept.
    """
    found = read_all(archive)
    if len(found) != 1:
        at = found[1].start if found else 0
        raise Malformed(f"cpio byte {at}: {len(found)} archives, expected one")
    return found[0].entries


def read_all(image: bytes) -> tuple[Archive, ...]:
    """Every archive of an uncompressed initrd, in order, with NULs skipped as the kernel does."""
    archives: list[Archive] = []
    at = 0
    while (at := _skip_nul(image, at)) < len(image):
        if at % ALIGNMENT:
            raise Malformed(f"cpio byte {at}: an archive begins at a multiple of {ALIGNMENT}")
        archive = _read_archive(image, at)
        archives.append(archive)
        at = archive.end
    return tuple(archives)


def _skip_nul(image: bytes, at: int) -> int:
    while at < len(image):
        chunk = image[at : at + 65536]
        rest = chunk.lstrip(b"\0")
        at += len(chunk) - len(rest)
        if rest:
            break
    return at


def _read_archive(image: bytes, start: int) -> Archive:
    entries: list[Entry] = []
    at = start
    while True:
        entry, at = _read_member(image, at)
        if entry is None:
            return Archive(start, at, tuple(entries))
        entries.append(entry)


def _read_member(image: bytes, at: int) -> tuple[Entry | None, int]:
    """The member at `at` (None for the trailer) and the offset behind it and its padding."""
    magic = image[at : at + len(MAGIC)]
    if magic != MAGIC:
        what = "the end of the input" if not magic else repr(magic)
        hint = (
            "decompress the initrd first" if magic[:4] in (b"\x28\xb5\x2f\xfd", b"\x1f\x8b\x08\x00") else ""
        )
        raise Malformed(f"cpio byte {at}: {what}, expected the magic {MAGIC.decode()}", hint)
    header = image[at + len(MAGIC) : at + _HEADER]
    if len(header) != _HEADER - len(MAGIC):
        raise Malformed(
            f"cpio byte {at}: the header ends after {len(MAGIC) + len(header)} bytes of {_HEADER}"
        )
    field = {}
    for index, name in enumerate(_FIELDS):
        digits = header[8 * index : 8 * index + 8]
        if not _HEX.issuperset(digits):
            where = at + len(MAGIC) + 8 * index
            raise Malformed(f"cpio byte {where}: {name} is {digits!r}, not 8 hex digits")
        field[name] = int(digits, 16)

    name_at = at + _HEADER
    if not 2 <= field["namesize"] <= _PATH_MAX:
        raise Malformed(f"cpio byte {at}: a name of {field['namesize']} bytes, expected 2 to {_PATH_MAX}")
    raw = _take(image, name_at, field["namesize"], "the name")
    if raw.find(b"\0") != len(raw) - 1:
        raise Malformed(f"cpio byte {name_at}: the name {raw[:80]!r} does not end at its first NUL")
    data_at = _padding(image, name_at + len(raw))
    data = _take(image, data_at, field["filesize"], f"the data of {raw[:80]!r}")
    end = _padding(image, data_at + len(data))
    if field["check"]:
        raise Malformed(f"cpio byte {at}: a checksum of {field['check']}, expected none in {MAGIC.decode()}")
    if raw[:-1] == TRAILER:
        if data:
            raise Malformed(f"cpio byte {at}: the trailer has {len(data)} bytes of data")
        return None, end
    path = raw[:-1].decode(errors="surrogateescape")
    entry = Entry(path, field["mode"], data, (field["rdevmajor"], field["rdevminor"]))
    problem = _problem(entry)
    if not problem and stat.S_ISREG(entry.mode) and field["nlink"] != 1:
        problem = f"a hard link (nlink {field['nlink']}), whose data may stand at another member"
    if problem:
        raise Malformed(f"cpio byte {at}: {path[:200]!a}: {problem}")
    return entry, end


def _take(image: bytes, at: int, size: int, what: str) -> bytes:
    found = image[at : at + size]
    if len(found) != size:
        raise Malformed(f"cpio byte {at}: {what} takes {size} bytes, {len(found)} are left")
    return found


def _padding(image: bytes, at: int) -> int:
    """The offset behind the padding at `at`. Offsets count from the file's start; archives are aligned."""
    padding = _take(image, at, -at % ALIGNMENT, "the padding")
    if padding.strip(b"\0"):
        raise Malformed(f"cpio byte {at}: the padding is {padding!r}, not NUL")
    return at + len(padding)


def _problem(entry: Entry) -> str:
    """What keeps `entry` from being a member, or an empty string."""
    name = entry.path.encode(errors="surrogateescape")
    kind = stat.S_IFMT(entry.mode)
    if kind not in _KINDS or entry.mode >= 1 << 16:
        return f"mode {entry.mode:#o} is no directory, file, symbolic link or device"
    if b"\0" in name or not 2 <= len(name) + 1 <= _PATH_MAX or name == TRAILER:
        return "is not a name that a member can have"
    if entry.path != "." and any(part in ("", ".", "..") for part in entry.path.split("/")):
        return "is not a plain relative path"
    if entry.path == "." and kind != stat.S_IFDIR:
        return "is the root and not a directory"
    if entry.data and kind not in (stat.S_IFREG, stat.S_IFLNK):
        return f"has {len(entry.data)} bytes of data"
    if kind == stat.S_IFLNK and (not entry.data or b"\0" in entry.data or len(entry.data) >= _PATH_MAX):
        return f"links to {entry.data[:80]!r}"
    if len(entry.data) >= _LIMIT or not all(0 <= number < _LIMIT for number in entry.rdev):
        return f"does not fit a field of 32 bits ({len(entry.data)} bytes, device {entry.rdev})"
    if entry.rdev != (0, 0) and kind not in (stat.S_IFCHR, stat.S_IFBLK):
        return f"has the device number {entry.rdev}"
    return ""


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def _put(out: bytearray, ino: int, entry: Entry) -> None:
    name = entry.path.encode(errors="surrogateescape") + b"\0"
    nlink = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (ino, entry.mode, 0, 0, nlink, 0, len(entry.data), 0, 0, *entry.rdev, len(name), 0)
    out += MAGIC + b"".join(b"%08X" % number for number in fields) + name
    out += bytes(-len(out) % ALIGNMENT)
    out += entry.data
    out += bytes(-len(out) % ALIGNMENT)
