"""Makes a lock: lets mkosi resolve and download from the machine's mirrors, then writes down what it took.

apt checks the archive's signatures on the way, with the distribution's keyring: this is the one moment
where they matter. Afterwards the SHA-256 of every file is in the repository.
"""

from __future__ import annotations

import datetime
import hashlib
import subprocess
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

from tinboot.builder.lockfile import Kind, Lock, Package
from tinboot.formats.errors import Unavailable

#: The archive's signing keys, per distribution.
KEYRINGS = {
    "debian": "/usr/share/keyrings/debian-archive-keyring.gpg",
    "ubuntu": "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
}

_KEYRING_PACKAGES = {"debian": "debian-archive-keyring", "ubuntu": "ubuntu-keyring"}

#: archive kind -> suites of a release, per distribution.
SUITES: dict[str, dict[Kind, tuple[str, ...]]] = {
    "debian": {"debian": ("{}", "{}-updates"), "debian-security": ("{}-security",)},
    "ubuntu": {"ubuntu": ("{}", "{}-updates"), "ubuntu-security": ("{}-security",)},
}

#: Beside main: where NVIDIA's libraries and programs are. mkosi.conf.d names the same.
COMPONENTS = {"debian": "main contrib non-free", "ubuntu": "main restricted universe"}


def sources(distribution: str, release: str, mirrors: Mapping[Kind, str]) -> str:
    """The deb822 sources of one release on `mirrors`, archive kind to URI."""
    return "\n".join(
        "Types: deb\n"
        f"URIs: {mirrors[archive]}\n"
        f"Suites: {' '.join(suite.format(release) for suite in suites)}\n"
        f"Components: {COMPONENTS[distribution]}\n"
        f"Signed-By: {KEYRINGS[distribution]}\n"
        for archive, suites in SUITES[distribution].items()
    )


def lock_of(
    distribution: str, release: str, mirrors: Mapping[Kind, str], debs: list[Path], apt_folder: Path
) -> Lock:
    """The lock for the files that mkosi took. `apt_folder`: scratch space for a private apt.

    apt says where each stands on the mirror and what its signed index says of its hash; a file whose
    bytes differ from that is an error.
    """
    keyring = Path(KEYRINGS[distribution])
    if not keyring.exists():
        raise Unavailable(
            f"{keyring} is not there: the archive's signatures cannot be checked",
            f"apt-get install {_KEYRING_PACKAGES[distribution]}",
        )
    names = sorted({_name_and_version(deb) for deb in debs})
    apt = _private_apt(apt_folder, sources(distribution, release, mirrors))
    _run([*apt, "apt-get", "-qq", "update"])
    wanted = [f"{name}={version}" for name, version in names]
    printed = _run([*apt, "apt-get", "-qq", "download", "--print-uris", *wanted])
    taken = {deb.name: deb for deb in debs}
    packages = []
    for line in printed.splitlines():
        quoted, file, _size, digest = line.split(" ")
        uri = quoted.strip("'")
        if file not in taken or not _has(taken[file], digest):
            raise Unavailable(f"the mirror's index and the file of {file} disagree", "try again later")
        archive = next(
            kind for kind in SUITES[distribution] if uri.startswith(mirrors[kind].rstrip("/") + "/")
        )
        path = uri.removeprefix(mirrors[archive].rstrip("/") + "/")
        name, version, rest = file.split("_")
        packages.append(
            Package(
                name,
                urllib.parse.unquote(version),
                rest.removesuffix(".deb"),
                _digest(taken[file], "sha256"),
                archive,
                path,
            )
        )
    if len(packages) != len(names):
        raise Unavailable(f"apt knows {len(packages)} of the {len(names)} packages that mkosi installed")
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    return Lock(distribution, release, stamp, tuple(sorted(packages)))


def _name_and_version(deb: Path) -> tuple[str, str]:
    name, version, _ = deb.name.split("_")
    return name, urllib.parse.unquote(version)


def _has(deb: Path, digest: str) -> bool:
    """`digest` as apt prints the strongest that the index has: Debian's SHA256:hex, Ubuntu's SHA512:hex."""
    algorithm, _, value = digest.partition(":")
    return algorithm in ("SHA256", "SHA512") and _digest(deb, algorithm.lower()) == value


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _private_apt(folder: Path, text: str) -> list[str]:
    """An apt of its own: only these sources, nothing of the host's lists or installed packages."""
    for name in ("lists/partial", "cache/archives/partial", "etc/sources.list.d", "etc/preferences.d"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    (folder / "etc/sources.list.d/lock.sources").write_text(text, "utf-8")
    config = folder / "apt.conf"
    config.write_text(
        f'Dir::Etc::sourcelist "/dev/null";\nDir::Etc::sourceparts "{folder}/etc/sources.list.d";\n'
        f'Dir::Etc::preferencesparts "{folder}/etc/preferences.d";\nDir::Etc::preferences "/dev/null";\n'
        f'Dir::State::lists "{folder}/lists";\nDir::State::status "{folder}/status";\n'
        f'Dir::Cache "{folder}/cache";\nAPT::Sandbox::User "root";\n'
        # a lock may be made against a frozen mirror; signatures are checked all the same
        'Acquire::Check-Valid-Until "false";\n',
        "utf-8",
    )
    return ["env", f"APT_CONFIG={config}", "LC_ALL=C"]


def _run(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if result.returncode:
        last = (result.stderr.strip() or "no message").splitlines()[-1]
        raise Unavailable(f"{command[3]} {command[5]} failed: {last}", "is the mirror reachable?")
    return result.stdout
