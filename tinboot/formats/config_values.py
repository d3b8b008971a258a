"""The kinds of string that the config knows, each a check that gives a value or raises ValueError.

The ValueError says what was expected: "got 'x', expected <that>".
"""

from __future__ import annotations

from tinboot.formats import verity
from tinboot.formats.config_readers import DIGITS, LOWER, UPPER, WORD, is_count, spelled

#: A name that is safe as one component of a path, as a unit's name and on a command line.
safe_name = spelled(
    "1 to 64 of a-z, 0-9, '.', '_' and '-', the first a letter or a digit",
    LOWER + DIGITS,
    LOWER + DIGITS + "._-",
    64,
)
#: Linux takes at most 15 characters as the name of a bridge (IFNAMSIZ).
network_name = spelled(
    "1 to 15 of a-z, 0-9 and '-', the first a letter or a digit", LOWER + DIGITS, LOWER + DIGITS + "-", 15
)
key_id = spelled("1 to 63 of a-z, 0-9 and '-', the first a letter", LOWER, LOWER + DIGITS + "-", 63)
variable = spelled(
    "a name of A-Z, a-z, 0-9 and '_'; a value goes behind a colon, as in NAME: \"value\"",
    UPPER + LOWER + "_",
    WORD + "_",
    256,
)
_account = spelled("a user, or user:group, each a name or a number", WORD + "_", WORD + "_-", 32)
signal = spelled("a signal like SIGTERM", "S", UPPER + DIGITS + "+-", 16)

_HEX = "0123456789abcdef"
_SIZES = {"b": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_MILLISECONDS = {"h": 3_600_000, "m": 60_000, "s": 1000}
_MOUNT_FLAGS = ("rw", "ro", "exec", "noexec", "nosuid", "nodev")


def version(text: str) -> str:
    """`X.Y.Z`, with a `v` before or `@sha256:<64 hex>` behind it, or both."""
    number, at, digest = text.removeprefix("v").partition("@")
    parts = number.split(".")
    if len(parts) != 3 or not all(is_count(part) for part in parts) or (at and not _is_digest(digest)):
        raise ValueError("a version X.Y.Z or X.Y.Z@sha256:<64 lower-case hex digits>")
    return text


def image(text: str) -> str:
    """`registry/path[:tag]@sha256:<64 hex>`. A tag alone may be moved, so it is refused."""
    name, _, digest = text.partition("@")
    if not _is_digest(digest):
        raise ValueError("an image by digest, name@sha256:<64 lower-case hex digits>; a tag can be moved")
    plain = all(
        part and part[0] in WORD and all(c in WORD + "._-:" for c in part) for part in name.split("/")
    )
    if not plain or len(name) > 255:
        raise ValueError("an image name of letters, digits and '._-:/' before @sha256:")
    return text


def stored_image(text: str) -> str:
    """An image on a volume, whose name Podman looks up as it stands: nothing to complete or to rewrite."""
    registry, slash, path = image(text).partition("@")[0].partition("/")
    plain = registry == "localhost" or "." in registry or ":" in registry
    if not (slash and plain) or any(c in UPPER for c in registry + path.partition(":")[0]):
        raise ValueError(
            "an image with its registry, in lower case: registry/path[:tag]@sha256:<64 hex digits>"
        )
    return text


def identity(text: str) -> str:
    """A model's `name@revision` in the characters that hubs allow; its volume's salt was made from it."""
    name, _, revision = text.partition("@")
    parts = [*name.split("/"), *revision.split("/")]
    if len(text) > 256 or any(p in ("", ".", "..") or any(c not in WORD + "._-" for c in p) for p in parts):
        raise ValueError("name@revision, such as organisation/model@0123abcd")
    return text


def url(text: str) -> str:
    scheme, _, rest = text.partition("://")
    if scheme not in ("https", "http") or not rest or len(text) > 2048 or not _is_visible(text):
        raise ValueError("an https:// or http:// address")
    return text


def origin(text: str) -> str:
    """What the browser sends as `Origin`, or `*`."""
    scheme, _, host = text.partition("://")
    if text != "*" and (scheme not in ("https", "http") or not host or "/" in host or not _is_visible(text)):
        raise ValueError("an origin like https://example.com without a path, or '*'")
    return text


def url_path(text: str) -> str:
    """An absolute path; `*` only as its last character."""
    steps = text.split("/")
    if text[:1] != "/" or len(text) > 1024 or not _is_visible(text) or "*" in text[:-1]:
        raise ValueError("a path that begins with '/', with '*' at most at its end")
    if ".." in steps or "." in steps or any(c in text for c in "?#%\\"):
        raise ValueError("a path without '.', '..', '?', '#', '%' and '\\'")
    return text


def directory(text: str) -> str:
    """An absolute path in its shortest form."""
    if text != "/" and (text[:1] != "/" or not _is_relative(text[1:])):
        raise ValueError("an absolute path without '.', '..', '//' and a '/' at its end")
    return text


def relative(text: str) -> str:
    """A path below another, in its shortest form."""
    if not _is_relative(text):
        raise ValueError("a relative path without '.', '..', '//' and a '/' at its end")
    return text


def mount(text: str) -> tuple[str, str]:
    """`volume:/target`."""
    name, _, target = text.partition(":")
    if ":" in target or target == "/":
        raise ValueError("volume:/target; the target is not '/' and has no options behind it")
    return safe_name(name), directory(target)


def tmpfs_options(text: str) -> str:
    """`size=`, `mode=`, `uid=`, `gid=` and flags; never `suid` or `dev`."""
    seen = []
    for option in text.split(","):
        name, equals, value = option.partition("=")
        seen.append(name)
        if not _is_mount_option(name, equals, value):
            raise ValueError(f"size=, mode=, uid=, gid=, {', '.join(_MOUNT_FLAGS)} with ',' between them")
    if len(set(seen)) != len(seen):
        raise ValueError("each option once")
    return text


def user(text: str) -> str:
    """`user` or `user:group`, names or numbers."""
    account, colon, group = text.partition(":")
    _account(account)
    if colon:
        _account(group)
    return text


def size(text: str) -> int:
    """`512m` and the like, in bytes; the unit is required."""
    number, unit = text[:-1], text[-1:].lower()
    if unit not in _SIZES or not is_count(number) or number == "0":
        raise ValueError("a size with its unit: b, k, m, g or t, as in 512m")
    return int(number) << _SIZES[unit]


def duration(text: str) -> int:
    """`1m30s` and the like, in milliseconds, from hours to seconds."""
    total, rest = 0, text
    for unit, milliseconds in _MILLISECONDS.items():
        number, found, behind = rest.partition(unit)
        if found:
            if not is_count(number):
                raise ValueError("a duration like 90s, 5m or 1h30m")
            total, rest = total + int(number) * milliseconds, behind
    if rest or not total:
        raise ValueError("a duration like 90s, 5m or 1h30m")
    return total


def gpu_indices(text: str) -> str:
    """`all`, or indices from 0 with ',' between them, ascending."""
    parts = text.split(",")
    good = all(is_count(part) and len(part) == 1 for part in parts) and parts == sorted(set(parts))
    if text != "all" and not good:
        raise ValueError("a count, 'all', or ascending indices from 0 as in '0,1'")
    return text


def volume_ref(text: str) -> verity.VolumeRef:
    try:
        return verity.parse_volume_ref(text)
    except ValueError as error:
        raise ValueError(f"<roothash>_<hashoffset>_<uuid>: {error}") from error


def ports(text: str) -> tuple[int, int]:
    """`outside:inside`, two TCP ports."""
    outside, _, inside = text.partition(":")
    if not (is_count(outside) and is_count(inside) and 0 < int(outside) < 65536 and 0 < int(inside) < 65536):
        raise ValueError("two ports with ':' between them, as in 8080:80")
    return int(outside), int(inside)


def host_name(text: str) -> str:
    """A DNS name: an address could belong to anybody, and a wildcard is not resolvable."""
    labels = text.split(".")
    letters = LOWER + DIGITS + "-"
    good = all(
        0 < len(p) < 64 and p[0] != "-" and p[-1] != "-" and all(c in letters for c in p) for p in labels
    )
    if not good or len(text) > 253 or all(c in DIGITS for c in labels[-1]):
        raise ValueError("a host name in lower case; not an address, and without wildcards")
    return text


def _is_digest(text: str) -> bool:
    digits = text.removeprefix("sha256:")
    return len(text) == 71 and len(digits) == 64 and all(c in _HEX for c in digits)


def _is_visible(text: str) -> bool:
    return all("!" <= c <= "~" for c in text)


def _is_relative(text: str) -> bool:
    steps = text.split("/")
    return len(text) <= 1024 and all(
        s not in ("", ".", "..") and _is_visible(s) and ":" not in s for s in steps
    )


def _is_mount_option(name: str, equals: str, value: str) -> bool:
    if name == "size":
        return size(value) > 0
    if name == "mode":
        return len(value) in (3, 4) and all(c in "01234567" for c in value)
    return is_count(value) if name in ("uid", "gid") else name in _MOUNT_FLAGS and not equals
