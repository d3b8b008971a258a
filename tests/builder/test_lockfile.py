"""The package lock: one text for one value, and every other text refused by file and line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinboot.builder import lockfile
from tinboot.builder.lockfile import Lock, Package
from tinboot.formats.errors import Malformed

HASH = "0123456789abcdef" * 4
HEADER = "tinboot-packages 1 debian trixie 20261125T040357Z\n"
LINE = f"bash 1:5.2-1+b1 amd64 {HASH} debian pool/main/b/bash/bash_5.2-1%2bb1_amd64.deb\n"

SOURCE = f"edk2 2025.02-8+b1 source {HASH} debian pool/main/e/edk2/edk2_2025.02-8%2bb1.debian.tar.xz\n"

names = st.from_regex(r"[a-z0-9][a-z0-9+.-]{1,12}", fullmatch=True)
packages = st.builds(
    Package,
    name=names,
    version=st.from_regex(r"[0-9A-Za-z.+~:-]{1,12}", fullmatch=True),
    architecture=st.sampled_from(["amd64", "all"]),
    sha256=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    archive=st.sampled_from(["debian", "debian-security"]),
    path=st.from_regex(r"pool/[a-z]{1,5}/[A-Za-z0-9+~%_-]{1,9}\.deb", fullmatch=True),
)


@given(st.lists(packages, min_size=1, max_size=8, unique_by=lambda package: package.name))
def test_round_trip(listed: list[Package]) -> None:
    lock = Lock("debian", "trixie", "20261125T040357Z", tuple(sorted(listed)))
    text = lockfile.dump(lock)
    assert lockfile.parse("x", text) == lock
    assert lockfile.dump(lockfile.parse("x", text)) == text


@given(st.text(max_size=200))
def test_any_other_text_is_malformed(text: str) -> None:
    try:
        lock = lockfile.parse("x", HEADER + text)
    except Malformed:
        return
    assert lockfile.dump(lock) == HEADER + text


def test_the_file_name_is_apts() -> None:
    package = lockfile.parse("x", HEADER + LINE).packages[0]
    assert package.file == "bash_1%3a5.2-1+b1_amd64.deb"


def test_the_file_name_of_a_source_is_the_pools() -> None:
    package = lockfile.parse("x", HEADER + SOURCE).packages[0]
    assert package.file == "edk2_2025.02-8+b1.debian.tar.xz"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "p.lock:1: '' is not the header"),
        ("tinboot-packages 2 debian trixie 20261125T040357Z\n" + LINE, "p.lock:1: "),
        ("tinboot-packages 1 fedora trixie 20261125T040357Z\n" + LINE, "p.lock:1: "),
        (HEADER.replace("2026", "".join(map(chr, range(0x661, 0x665)))) + LINE, "p.lock:1: "),
        (HEADER, "empty"),
        (HEADER + LINE.rstrip("\n"), "last line is cut"),
        (HEADER + LINE + "\n", "p.lock:3: 1 fields"),
        (HEADER + LINE.replace(" amd64", "  amd64"), "p.lock:2: 7 fields"),
        (HEADER + LINE.replace("\n", "\r\n"), "p.lock:2: "),
        (
            HEADER + LINE.replace("amd64 ", "i386 "),
            "architecture 'i386' is none of ['amd64',",
        ),
        (HEADER + LINE.replace("amd64 ", "source "), "does not end in .tar.xz"),
        (HEADER + SOURCE.replace(" source ", " all "), "does not end in .deb"),
        (HEADER + LINE.replace(HASH, HASH.upper()), "does not match"),
        (HEADER + LINE.replace(HASH, HASH[1:]), "does not match"),
        (HEADER + LINE.replace(" debian ", " mirror "), "'mirror' is no kind of archive"),
        (HEADER + LINE.replace(" debian ", " ubuntu "), "ubuntu is no archive of debian"),
        (HEADER + LINE.replace("pool/main", "../main"), "does not match"),
        (HEADER + LINE.replace("pool/main", "pool/../.."), "climbs out of the pool"),
        (HEADER + LINE.replace("pool/main", "/pool/main"), "does not match"),
        (HEADER + LINE.replace("bash 1", "Bash 1"), "does not match"),
        (HEADER + LINE + LINE, "p.lock:3: bash stands after bash"),
        (HEADER + LINE + LINE.replace("bash 1", "apt 1"), "p.lock:3: apt stands after bash"),
    ],
)
def test_refusals_name_file_and_line(text: str, message: str) -> None:
    with pytest.raises(Malformed) as refused:
        lockfile.parse("p.lock", text)
    assert message in refused.value.message
    assert "fields" in message or "cut" in message or "tinboot lock" in refused.value.hint


def test_what_could_not_be_read_back_is_not_written() -> None:
    package = lockfile.parse("x", HEADER + LINE).packages[0]
    twice = Lock("debian", "trixie", "20261125T040357Z", (package, package))
    with pytest.raises(Malformed):
        lockfile.dump(twice)
