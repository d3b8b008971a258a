"""The machine's archives: both styles of apt sources, and whose archive an entry is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinboot.builder import archive
from tinboot.builder.archive import Mirror, Source
from tinboot.formats.errors import Unavailable

DEBIAN_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
UBUNTU_KEYS = "/usr/share/keyrings/ubuntu-archive-keyring.gpg"

ONE_LINE = f"""\
# deb http://commented.example/debian trixie main
deb [ arch=amd64,arm64 signed-by={DEBIAN_KEYS} ] http://one.example/debian trixie main contrib # why
deb[arch=arm64] http://arm.example/debian trixie main
deb-src http://source.example/debian trixie main
deb cdrom:[Debian GNU/Linux 13 _Trixie_]/ trixie main
\tdeb   http://one.example/debian-security\ttrixie-security main
deb http://cut.example/debian
debian http://typo.example/debian trixie main
"""

DEB822 = f"""\
# the archive
Types: deb deb-src
URIs: http://one.example/debian/
 http://two.example/debian
# one.example alone has been slow
Suites: trixie trixie-updates
Components: main
 non-free-firmware
Signed-By: {DEBIAN_KEYS}

enabled: No
types: deb
uris: http://off.example/debian
suites: trixie
components: main

Types: deb-src
URIs: http://source.example/debian
Suites: trixie
Components: main


Types: deb
URIs: http://one.example/debian-security
Suites: trixie-security
Components: main
"""


def test_one_line_style() -> None:
    assert [(s.uri, s.suites, s.components) for s in archive.parse_one_line(ONE_LINE)] == [
        ("http://one.example/debian", ("trixie",), ("main", "contrib")),
        ("http://arm.example/debian", ("trixie",), ("main",)),
        ("cdrom:[Debian GNU/Linux 13 _Trixie_]/", ("trixie",), ("main",)),
        ("http://one.example/debian-security", ("trixie-security",), ("main",)),
    ]
    first, arm, *_ = archive.parse_one_line(ONE_LINE)
    assert first.architectures == ("amd64", "arm64")
    assert first.signed_by == DEBIAN_KEYS
    assert arm.architectures == ("arm64",)


def test_deb822_style() -> None:
    found = list(archive.parse_deb822(DEB822))
    assert [s.uri for s in found] == [
        "http://one.example/debian/",
        "http://two.example/debian",
        "http://one.example/debian-security",
    ]
    assert found[1] == Source(
        "http://two.example/debian",
        ("trixie", "trixie-updates"),
        ("main", "non-free-firmware"),
        signed_by=DEBIAN_KEYS,
    )


def test_a_whole_directory(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    listed = tmp_path / "mirrors.txt"
    listed.write_text(
        "# ours\nhttp://near.example/debian\tpriority:1\nhttp://far.example/debian priority:2\n"
    )
    (tmp_path / "sources.list").write_text(f"deb mirror+file:{listed} trixie main\n")
    (parts / "b.sources").write_text(DEB822)
    (parts / "a.list").write_text("deb mirror+https://list.example/debian trixie main\n")
    (parts / "c.list.save").write_text("deb http://saved.example/debian trixie main\n")
    assert archive.mirrors(archive.read_sources(tmp_path)) == [
        Mirror("debian", "http://one.example/debian"),
        Mirror("debian", "http://two.example/debian"),
        Mirror("debian", "http://near.example/debian"),
        Mirror("debian", "http://far.example/debian"),
        Mirror("debian-security", "http://one.example/debian-security"),
    ]


def test_no_sources_at_all(tmp_path: Path) -> None:
    assert archive.read_sources(tmp_path) == []
    (tmp_path / "sources.list").write_text("deb mirror+file:/nowhere/at/all trixie main\n")
    assert archive.read_sources(tmp_path) == []


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("deb http://a.example/debian bookworm main", "debian"),
        ("deb http://a.example/debian bookworm-backports main", "debian"),
        ("deb http://proxy.example/x/remote-7/ sid main", "debian"),
        ("deb http://a.example/debian-security bullseye/updates main", "debian-security"),
        ("deb http://a.example/ubuntu noble main universe", "ubuntu"),
        ("deb http://a.example/ubuntu noble-security main", "ubuntu-security"),
        (f"deb [signed-by={UBUNTU_KEYS}] http://a.example/ubuntu noble-updates main", "ubuntu"),
        ("deb [signed-by=/etc/apt/keyrings/ppa.asc] http://a.example/ubuntu noble main", None),
        ("deb http://a.example/debian bookworm stable", None),
        ("deb http://a.example/apt cloud-sdk-bookworm main", None),
        ("deb http://a.example/debian bookworm-pgdg main", None),
        ("deb [arch=arm64] http://a.example/debian bookworm main", None),
        ("deb http://a.example/flat ./", None),
    ],
)
def test_whose_archive(line: str, kind: str | None) -> None:
    (source,) = archive.parse_one_line(line)
    assert archive.classify(source) == kind


def test_the_distributions_own_keyring_goes_before_a_customary_path() -> None:
    lines = f"""
deb http://odd.example/ppa/ubuntu noble main
deb http://plain.example/ubuntu noble main
deb [signed-by={UBUNTU_KEYS}] http://signed.example/mirror noble main
"""
    assert [mirror.uri for mirror in archive.mirrors(archive.parse_one_line(lines))] == [
        "http://signed.example/mirror",
        "http://plain.example/ubuntu",
        "http://odd.example/ppa/ubuntu",
    ]


def test_machine_mirrors() -> None:
    debian = list(archive.parse_deb822(DEB822))
    assert archive.machine_mirrors("debian", debian, {}) == (
        "http://one.example/debian",
        "http://two.example/debian",
    )
    assert archive.machine_mirrors("debian-security", debian, {}) == ("http://one.example/debian-security",)
    override = {archive.variable("debian"): "http://mine.example/debian/"}
    assert archive.machine_mirrors("debian", debian, override) == ("http://mine.example/debian",)
    assert archive.machine_mirrors("debian-security", debian, override) == (
        "http://one.example/debian-security",
    )
    ubuntu = list(archive.parse_one_line("deb http://a.example/ubuntu noble main"))
    assert archive.machine_mirrors("ubuntu-security", ubuntu, {}) == ("http://a.example/ubuntu",)
    with pytest.raises(Unavailable) as refused:
        archive.machine_mirrors("debian", ubuntu, {})
    assert archive.variable("debian") in refused.value.hint


def test_variables() -> None:
    assert archive.variable("debian") == "TINBOOT_DEBIAN_MIRROR"
    assert archive.variable("debian-security") == "TINBOOT_DEBIAN_SECURITY_MIRROR"


def test_distribution_of_machine() -> None:
    ubuntu = Source("http://a.example/ubuntu", ("noble",), ("main",))
    debian = Source("http://a.example/debian", ("trixie",), ("main",))
    other = Source("http://a.example/apt", ("noble-pgdg",), ("main",))
    assert archive.distribution_of_machine([other, debian]) == "debian"
    assert archive.distribution_of_machine([other, ubuntu, debian]) == "ubuntu"
    with pytest.raises(Unavailable):
        archive.distribution_of_machine([other])


def test_messages_hold_no_password() -> None:
    assert archive.redacted("https://user:secret@a.example:8080/debian") == "https://a.example:8080/debian"
    assert archive.redacted("http://a.example/debian") == "http://a.example/debian"
