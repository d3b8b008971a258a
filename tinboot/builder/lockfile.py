"""The package lock: exactly which packages an image, or a tree of programs, is made from.

A text file a distribution, `packages/<name>.lock`, one package a line, sorted:

    tinboot-packages 1 debian trixie 20261125T033000Z
    base-files 13.8+deb13u1 amd64 <sha256> debian pool/main/b/base-files/base-files_13.8+deb13u1_amd64.deb

The header's stamp is when the lock was made, for snapshot archives. `debian` or `debian-security` says
which of the machine's own mirrors holds the path; no host is ever named. Only the SHA-256 is trusted.
`ovmf/sources.lock` has the same form: its architecture is `source`, its files are tarballs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeGuard, get_args
from urllib.parse import unquote

from tinboot.formats.errors import Malformed

#: Which of a machine's mirrors holds a package.
Kind = Literal["debian", "debian-security", "ubuntu", "ubuntu-security"]

_HEADER = re.compile(r"tinboot-packages 1 (debian|ubuntu) ([a-z]+) ([0-9]{8}T[0-9]{6}Z)")
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")  # Debian Policy 5.6.1
_VERSION = re.compile(r"[0-9A-Za-z.+~:-]+")  # Debian Policy 5.6.12
_PATH = re.compile(r"pool/[A-Za-z0-9+._~%/-]+\.(deb|tar\.xz)")
_SUFFIXES = {"amd64": ".deb", "all": ".deb", "source": ".tar.xz"}
_SHA256 = re.compile(r"[0-9a-f]{64}")
_RENEW = "renew it with `tinboot lock`; it is not written by hand"


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One binary package. `archive` names a mirror's kind, `path` is relative to that mirror."""

    name: str
    version: str
    architecture: str
    sha256: str
    archive: Kind
    path: str

    @property
    def file(self) -> str:
        """The file name apt gives it: the epoch's colon is %3a. A source's is that in the pool."""
        if self.architecture == "source":
            return unquote(self.path.rpartition("/")[2])
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.architecture}.deb"

    def __str__(self) -> str:
        return f"{self.name} {self.version} {self.architecture} {self.sha256} {self.archive} {self.path}"


@dataclass(frozen=True, slots=True)
class Lock:
    """`stamp`: UTC, `YYYYMMDDTHHMMSSZ`. `packages`: sorted, one version of each name."""

    distribution: str
    release: str
    stamp: str
    packages: tuple[Package, ...]


def dump(lock: Lock) -> str:
    """The file's text; raises `Malformed` where `parse` would not give the same lock back."""
    head = f"tinboot-packages 1 {lock.distribution} {lock.release} {lock.stamp}"
    text = "\n".join((head, *(str(package) for package in sorted(lock.packages)))) + "\n"
    if parse("the lock to be written", text) != lock:
        raise Malformed("the lock does not survive writing and reading")
    return text


def parse(file: str, text: str) -> Lock:
    """Raises `Malformed` with file and line for anything `dump` would not have written."""
    head, *rest = text.split("\n")
    match = _HEADER.fullmatch(head)
    if match is None:
        raise Malformed(f"{file}:1: {head[:80]!r} is not the header of a package lock", _RENEW)
    packages: list[Package] = []
    for number, line in enumerate(rest[:-1], 2):
        where = f"{file}:{number}:"
        words = line.split(" ")
        if len(words) != 6:
            raise Malformed(f"{where} {len(words)} fields, not name version architecture sha256 archive path")
        name, version, architecture, sha256, archive, path = words
        if not _is_kind(archive):
            raise Malformed(f"{where} {archive[:80]!r} is no kind of archive: {get_args(Kind)}", _RENEW)
        package = Package(name, version, architecture, sha256, archive, path)
        for value, pattern in zip(
            (package.name, package.version, package.sha256, package.path),
            (_NAME, _VERSION, _SHA256, _PATH),
            strict=True,
        ):
            if pattern.fullmatch(value) is None:
                raise Malformed(f"{where} {value[:80]!r} does not match {pattern.pattern}", _RENEW)
        if not package.archive.startswith(match[1]):
            raise Malformed(f"{where} {package.archive} is no archive of {match[1]}", _RENEW)
        suffix = _SUFFIXES.get(package.architecture)
        if suffix is None:
            raise Malformed(
                f"{where} architecture {package.architecture!r} is none of {[*_SUFFIXES]}", _RENEW
            )
        if not package.path.endswith(suffix):
            raise Malformed(f"{where} {package.path!r} does not end in {suffix}", _RENEW)
        if ".." in package.path.split("/"):
            raise Malformed(f"{where} {package.path!r} climbs out of the pool", _RENEW)
        if packages and packages[-1].name >= package.name:
            raise Malformed(f"{where} {package.name} stands after {packages[-1].name}", _RENEW)
        packages.append(package)
    lock = Lock(match[1], match[2], match[3], tuple(packages))
    if not packages or rest[-1] != "":
        raise Malformed(f"{file}: the lock is empty or its last line is cut", _RENEW)
    return lock


def _is_kind(text: str) -> TypeGuard[Kind]:
    return text in get_args(Kind)
