"""Which package archives this machine uses, read from its own apt sources.

No address of an archive stands in the repository. What is fetched is checked against a SHA-256 that does,
so an entry that turns out to be the wrong mirror costs an attempt and never a wrong byte. Formats:
sources.list(5) of apt 2.6 (one-line and deb822 style), apt-transport-mirror(1) for lists of mirrors.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from tinboot.formats.errors import Unavailable

Kind = Literal["debian", "debian-security", "ubuntu", "ubuntu-security"]
Distribution = Literal["debian", "ubuntu"]

ETC_APT = Path("/etc/apt")

# apt reads only these names below sources.list.d: sources.list(5), "Sources.list.d"
_READ_NAME = re.compile(r"[A-Za-z0-9_.-]+\.(list|sources)")
_OPTIONS = re.compile(r"\s*\[([^\]]*)\]")
# cdrom:[Name with spaces]/ is one word
_WORD = re.compile(r"\s*((?:[^\s\[]|\[[^\]]*\])+)")

_DEBIAN_SUITES = frozenset(
    {"oldoldstable", "oldstable", "stable", "testing", "unstable", "experimental", "rc-buggy"}
    | {"bullseye", "bookworm", "trixie", "forky", "duke", "sid"}
)
_UBUNTU_SUITES = frozenset({"devel", "focal", "jammy", "noble", "oracular", "plucky", "questing", "resolute"})
_POCKET = re.compile(r"(-(updates|security|backports(-sloppy)?|proposed|proposed-updates)|/updates)$")


@dataclass(frozen=True, slots=True)
class Source:
    """One binary (`deb`) entry: an archive, what it serves, and the keyring that apt trusts for it."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    architectures: tuple[str, ...] = ()
    signed_by: str = ""


@dataclass(frozen=True, slots=True)
class Mirror:
    """An archive of a distribution; `uri` has no slash at its end."""

    kind: Kind
    uri: str


def parse_one_line(text: str) -> Iterator[Source]:
    """Yields the `deb` lines of a `.list` file. What apt itself would refuse is skipped."""
    for line in text.splitlines():
        words = line.split("#", 1)[0].strip()
        if not re.match(r"deb[\s\[]", words):
            continue
        rest = words[3:]
        options: dict[str, str] = {}
        if bracketed := _OPTIONS.match(rest):
            pairs = (pair.partition("=") for pair in bracketed[1].split())
            options = {name.lower(): value for name, _, value in pairs}
            rest = rest[bracketed.end() :]
        uri, *others = [match[1] for match in _WORD.finditer(rest)] or [""]
        if others:
            yield Source(
                uri=uri,
                suites=(others[0],),
                components=tuple(others[1:]),
                architectures=tuple(filter(None, options.get("arch", "").split(","))),
                signed_by=options.get("signed-by", ""),
            )


def parse_deb822(text: str) -> Iterator[Source]:
    """Yields the enabled `deb` stanzas of a `.sources` file, one a URI."""
    for stanza in re.split(r"\n[ \t]*(?:\n[ \t]*)+", text.strip("\n")):
        fields = _fields(stanza)
        enabled = fields.get("enabled", "yes").lower() not in {
            "no",
            "false",
            "without",
            "off",
            "disable",
            "0",
        }
        if not enabled or "deb" not in fields.get("types", "").split():
            continue
        for uri in fields.get("uris", "").split():
            yield Source(
                uri=uri,
                suites=tuple(fields.get("suites", "").split()),
                components=tuple(fields.get("components", "").split()),
                architectures=tuple(fields.get("architectures", "").split()),
                signed_by=fields.get("signed-by", ""),
            )


def _fields(stanza: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line.startswith("#"):  # a comment may stand inside a field of several lines
            continue
        if line[:1] in {" ", "\t"}:
            if name:
                fields[name] += "\n" + line.strip()
        else:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
    return fields


def read_sources(etc_apt: Path = ETC_APT) -> list[Source]:
    """Every enabled binary entry below `etc_apt`, in apt's order; lists of mirrors are expanded."""
    parts = etc_apt / "sources.list.d"
    names = (
        sorted(path for path in parts.glob("*") if _READ_NAME.fullmatch(path.name)) if parts.is_dir() else []
    )
    found: list[Source] = []
    for path in [etc_apt / "sources.list", *names]:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:  # absent, or not for this user: apt passes over it too
            continue
        found += parse_deb822(text) if path.suffix == ".sources" else parse_one_line(text)
    return [expanded for source in found for expanded in _expand(source)]


def _expand(source: Source) -> Iterator[Source]:
    """Replaces `mirror+file:/path` by the mirrors listed there; drops what no single file can be had from."""
    method, _, path = source.uri.partition(":")
    if method == "mirror+file":
        try:
            lines = Path("/" + path.lstrip("/")).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return
        for line in lines:
            if words := line.split("#", 1)[0].split():
                yield Source(
                    words[0], source.suites, source.components, source.architectures, source.signed_by
                )
    elif method != "cdrom" and not method.startswith("mirror"):
        yield source


def classify(source: Source) -> Kind | None:
    """The distribution that `source` is an archive of, or None for third parties' archives."""
    if source.architectures and "amd64" not in source.architectures:
        return None
    if "main" not in source.components:
        return None
    bases = {_POCKET.sub("", suite) for suite in source.suites}
    distribution: Distribution
    if bases and bases <= _DEBIAN_SUITES:
        distribution = "debian"
    elif bases and bases <= _UBUNTU_SUITES:
        distribution = "ubuntu"
    else:
        return None
    if source.signed_by and f"{distribution}-archive" not in source.signed_by:
        return None  # a third party that names its suites after the distribution's
    security = all(suite.endswith(("-security", "/updates")) for suite in source.suites)
    if distribution == "debian":
        return "debian-security" if security else "debian"
    return "ubuntu-security" if security else "ubuntu"


def mirrors(sources: Iterable[Source]) -> list[Mirror]:
    """The distributions' archives among `sources`, best first, each once.

    Best: apt trusts it through the distribution's own keyring; then, its path is the customary one.
    """

    def doubt(found: tuple[Mirror, Source]) -> tuple[bool, bool]:
        mirror, source = found
        return not source.signed_by, urlsplit(mirror.uri).path != f"/{mirror.kind.removesuffix('-security')}"

    classified = [
        (Mirror(kind, source.uri.rstrip("/")), source) for source in sources if (kind := classify(source))
    ]
    return list(dict.fromkeys(mirror for mirror, _ in sorted(classified, key=doubt)))


def variable(kind: Kind) -> str:
    """The environment variable that overrides what apt's sources say: TINBOOT_DEBIAN_SECURITY_MIRROR, ..."""
    return f"TINBOOT_{kind.upper().replace('-', '_')}_MIRROR"


def machine_mirrors(
    kind: Kind, sources: Iterable[Source] | None = None, environment: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """The URIs of the machine's archives of `kind`, best first, to be tried in order; or Unavailable.

    `$TINBOOT_<KIND>_MIRROR`, where set, is the only answer: a machine that is not Debian needs one to reach
    Debian's archive. Where a machine's security updates come from its main archive (Ubuntu allows it), that
    one answers for `ubuntu-security`.
    """
    if override := (os.environ if environment is None else environment).get(variable(kind)):
        return (override.rstrip("/"),)
    known = mirrors(read_sources() if sources is None else sources)
    found = tuple(mirror.uri for mirror in known if mirror.kind == kind)
    if not found and kind == "ubuntu-security":
        found = tuple(mirror.uri for mirror in known if mirror.kind == "ubuntu")
    if found:
        return found
    raise Unavailable(
        f"apt's sources on this machine name no {kind} archive",
        f"set {variable(kind)} to the URI of a mirror (what stands before /pool and /dists), "
        f"or add one to {ETC_APT}/sources.list.d",
    )


def distribution_of_machine(sources: Iterable[Source] | None = None) -> Distribution:
    """The distribution whose archive this machine reaches: what an image can be built from without a flag.

    Raises Unavailable if it reaches neither. Where it reaches both, the first in apt's order counts.
    """
    for source in read_sources() if sources is None else sources:
        kind = classify(source)
        if kind in {"debian", "debian-security"}:
            return "debian"
        if kind in {"ubuntu", "ubuntu-security"}:
            return "ubuntu"
    raise Unavailable(
        f"apt's sources on this machine name neither a debian nor an ubuntu archive (read {ETC_APT})",
        "say --distribution debian or --distribution ubuntu, and add that archive to apt's sources",
    )


def redacted(uri: str) -> str:
    """`uri` without user name and password, for messages."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
