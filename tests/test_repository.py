"""Rules for every file in the repository that no other tool checks."""

from __future__ import annotations

import ast
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

#: Hosts that a file may name: standards, vendors' documentation, and names that resolve nowhere (RFC 2606).
#: Never an archive, a registry or a mirror: those come from the machine.
DOCUMENTATION = frozenset(
    {
        *("www.apache.org", "spdx.org", "cyclonedx.org", "keepachangelog.com", "semver.org"),
        *("docs.kernel.org", "www.kernel.org", "docs.nvidia.com", "www.amd.com", "docs.amd.com"),
        *("www.rfc-editor.org", "datatracker.ietf.org", "uapi-group.org", "systemd.io", "www.qemu.org"),
        *("www.debian.org", "www.gnu.org", "yaml.org", "opencontainers.org", "reproducible-builds.org"),
        *("docs.haproxy.org", "fetch.spec.whatwg.org"),
        # words of formats: of the served evidence, the config schema's defaults, a Git LFS pointer
        *("tinfoil.sh", "api.tinfoil.sh", "atc.tinfoil.sh", "git-lfs.github.com"),
        # namespaces of RIMs; where NVIDIA gives RIMs away, and AMD its certificates; revocation
        *("standards.iso.org", "www.w3.org", "trustedcomputinggroup.org", "rim.attestation.nvidia.com"),
        *("ocsp.ndis.nvidia.com", "crl.ndis.nvidia.com", "kdsintf.amd.com"),
        *("example.com", "localhost", "127.0.0.1"),
    }
)

#: In pieces, so that this file does not name them either.
REGISTRIES = (
    ("deb", "debian", "org"),
    ("ftp", "debian", "org"),
    ("security", "debian", "org"),
    ("snapshot", "debian", "org"),
    ("archive", "ubuntu", "com"),
    ("security", "ubuntu", "com"),
    ("snapshot", "ubuntu", "com"),
    ("pypi", "org"),
    ("pythonhosted", "org"),
    ("npmjs", "org"),
    ("docker", "io"),
    ("pkg", "dev"),
)

#: Paths that only one machine has: home folders, and scratch folders with a name of their own.
MACHINE_PATHS = re.compile(r"(?<![\w.<$}])/(?:work|home/[a-z]|root/|tmp/[A-Za-z0-9]|opt/[a-z]|mnt/[a-z])")

#: Lines. A file near it does two things.
LONGEST = 500
LONGEST_HOOK = 120

_URL = re.compile(r"https?://(?!\{)[^\s\"'<>)\]}`,]+")


def committed() -> list[str]:
    """What git tracks, or would; without git (an unpacked archive of the sources) what lies there."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if (REPOSITORY / ".git").exists():
        listed = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
        names = listed.split("\0")[:-1]
    else:
        skipped = {"build", ".venv"}
        found = (path.relative_to(REPOSITORY) for path in REPOSITORY.rglob("*"))
        names = [str(name) for name in found if name.parts[0] not in skipped and "cache" not in str(name)]
    return sorted({name for name in names if _is_file(REPOSITORY / name)})


def _is_file(path: Path) -> bool:
    return not path.is_symlink() and path.is_file()


def texts() -> Iterator[tuple[str, str]]:
    for name in committed():
        content = (REPOSITORY / name).read_bytes()
        if b"\0" not in content:
            yield name, content.decode("utf-8", "replace")


def is_code(name: str) -> bool:
    program = name.startswith("initrd-hooks/") and "." not in Path(name).name
    return program or Path(name).suffix in {".py", ".sh", ".c", ".S"} or Path(name).name.startswith("mkosi.")


def foreign_hosts(text: str) -> list[str]:
    """Hosts in `text` that are neither documentation nor reserved for examples."""
    plain = text.replace(r"\n", "\n").replace(r"\.", ".")  # as strings and patterns of the tests have them
    hosts = [urlsplit(url).hostname or "" for url in _URL.findall(plain)]
    found = [host for host in hosts if host not in DOCUMENTATION and host.rpartition(".")[2] not in RESERVED]
    names = [".".join(pieces) for pieces in REGISTRIES]
    return found + [name for name in names if re.search(rf"(?<![\w-]){re.escape(name)}\b", text)]


#: Top-level names that nobody can own: RFC 2606, section 2.
RESERVED = frozenset({"example", "test", "invalid", "localhost"})


def test_no_archive_or_registry_is_named() -> None:
    assert {name: found for name, text in texts() if (found := foreign_hosts(text))} == {}


def test_no_path_of_one_machine() -> None:
    assert {name: found for name, text in texts() if (found := MACHINE_PATHS.findall(text))} == {}


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("see https://docs.kernel.org/x and http://a.example/debian", []),
        ("URIs: http://mirror.invalid/debian", []),
        ("https:" + "//mirror.university.edu/debian/", ["mirror.university.edu"]),
        ("from " + ".".join(REGISTRIES[0]) + " as ever", [".".join(REGISTRIES[0])]),
        ("index-url = https://" + ".".join(REGISTRIES[7]) + "/simple", 2 * [".".join(REGISTRIES[7])]),
    ],
)
def test_hosts_are_found(text: str, hosts: list[str]) -> None:
    assert foreign_hosts(text) == hosts


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("in /" + "work/main", True),
        ("cd /" + "home/ann", True),
        ("see /" + "tmp/x", True),
        ("on /tmp or in $HOME/work", False),
        ("docs/work/x", False),
        ("/run/tinboot", False),
    ],
)
def test_machine_paths_are_found(text: str, found: bool) -> None:
    assert bool(MACHINE_PATHS.search(text)) == found


def test_no_long_file() -> None:
    lengths = {name: text.count("\n") for name, text in texts() if is_code(name)}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_no_long_hook() -> None:
    hooks = {name: text.count("\n") for name, text in texts() if re.fullmatch(r"initrd-hooks/\d\d-\w+", name)}
    assert len(hooks) >= 5
    assert {name: length for name, length in hooks.items() if length >= LONGEST_HOOK} == {}


def test_no_catch_all_modules() -> None:
    forbidden = {"utils", "util", "helpers", "common", "core", "misc", "manager"}
    assert [name for name in committed() if Path(name).stem in forbidden] == []


def test_the_harness_is_no_package() -> None:
    assert "qemu/__init__.py" not in committed()  # it would shadow the package qemu.qmp


def test_code_that_ships_does_not_know_of_tests() -> None:
    shipped = [(name, text) for name, text in texts() if name.startswith(("tinboot/", "initrd-hooks/"))]
    assert [name for name, text in shipped if re.search(r"pytest|PYTEST|unittest", text)] == []


def test_nothing_catches_everything() -> None:
    """The runner of the hooks alone may: it turns whatever a hook raises into a halt."""
    found = []
    for name, text in texts():
        if name.endswith(".py") and name.startswith("tinboot/"):
            for node in ast.walk(ast.parse(text)):
                kind = node.type if isinstance(node, ast.ExceptHandler) else ast.Name("no handler")
                if kind is None or (isinstance(kind, ast.Name) and kind.id == "Exception"):
                    found.append(name)
    assert found == []


def test_checkouts_have_the_committed_bytes() -> None:
    """Files of the image are inputs of a measurement: git converts no line ending, on no machine."""
    assert "* -text" in (REPOSITORY / ".gitattributes").read_text().splitlines()
    # edk2's files have DOS line ends, and so have the lines of a patch for them
    assert [n for n, text in texts() if "\r\n" in text and not n.startswith("ovmf/patches/")] == []


def test_programs_are_executable() -> None:
    programs = ("setup.sh", ".ci/run", "ovmf/build")
    assert [name for name in programs if not (REPOSITORY / name).stat().st_mode & stat.S_IXUSR] == []


def test_license() -> None:
    text = (REPOSITORY / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_front_matter_links_lead_somewhere() -> None:
    broken = []
    for name, text in texts():
        if name.endswith(".md"):
            for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
                if "://" not in target and not (REPOSITORY / name).parent.joinpath(target).exists():
                    broken.append(f"{name}: {target}")
    assert broken == []
