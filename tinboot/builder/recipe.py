"""What an image is made from, as one digest: equal digests mean equal images."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from tinboot.builder import archive, driver, lockfile, places
from tinboot.builder.gpu_reference import Reference
from tinboot.formats.errors import Refused, Unavailable

DISTRIBUTIONS = ("debian", "ubuntu")
PROFILES = ("release", "debug")

#: The interpreter of each distribution's release, which the finalize scripts find by themselves.
PYTHON = {"debian": "python3.13", "ubuntu": "python3.12"}

#: Everything in the repository that reaches an image, relative to it.
_INPUTS = (
    "initrd-hooks",
    "mkosi.conf",
    "mkosi.conf.d",
    "mkosi.images",
    "packages/nv-verifier.lock",
    "packages/nvml.lock",
    "packages/tools.lock",
    "tinboot/__init__.py",
    "tinboot/builder/driver.py",
    "tinboot/builder/elf.py",
    "tinboot/builder/hashtree.py",
    "tinboot/builder/image.py",
    "tinboot/builder/inventory.py",
    "tinboot/builder/initrd.py",
    "tinboot/builder/kernel_options.py",
    "tinboot/builder/modules.py",
    "tinboot/builder/nv_verifier.py",
    "tinboot/builder/payload.py",
    "tinboot/builder/sbom.py",
    "tinboot/builder/wheels.py",
    "tinboot/ehbp",
    "tinboot/formats",
    "tinboot/guest",
    "tinboot/verify",
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Which image to build. `repository`: the checkout whose files go in; `reference`: what its GPU gate
    verifies by, if anything."""

    repository: Path
    distribution: str
    profile: str
    reference: Reference | None = None

    def __post_init__(self) -> None:
        if self.distribution not in DISTRIBUTIONS or self.profile not in PROFILES:
            raise Refused(
                f"no recipe for {self.distribution}, {self.profile}", f"{DISTRIBUTIONS}, {PROFILES}"
            )

    @property
    def name(self) -> str:
        """The image's name in paths and manifests."""
        return f"{self.distribution}-{self.profile}"

    def inventories(self, image: str) -> list[Path]:
        """The reviewed lists of `image`: its own, and those for this distribution and this profile, if any.

        The finalize scripts take the same.
        """
        own = self.repository / "mkosi.images" / image / "inventory"
        words = [self.distribution, self.profile, *(["reference-values"] if self.reference else [])]
        more = [own.with_name(f"inventory.{word}") for word in words]
        return [own, *(path for path in more if path.exists())]

    def driver_modules(self) -> list[str]:
        """Names of the kernel modules of NVIDIA's driver and before it; none where the root has no driver."""
        path = self.repository / f"mkosi.images/root/modules.{self.distribution}"
        return driver.parse(path.name, path.read_text("utf-8")) if path.exists() else []

    def lock(self) -> lockfile.Lock:
        """The packages of this distribution's images."""
        return read_lock(self.repository, self.distribution)

    def digest(self, mkosi: str) -> str:
        """SHA-256 over names, execute bits and bytes of all inputs, and over mkosi's version, in hex."""
        state = hashlib.sha256(f"{self.name}\n{mkosi}\n".encode())
        for top in (*_INPUTS, f"packages/{self.distribution}.lock"):
            for path in _files(self.repository / top):
                content = hashlib.sha256(path.read_bytes() if path.is_file() else b"").hexdigest()
                name = path.relative_to(self.repository).as_posix()
                link = path.readlink().as_posix() if path.is_symlink() else ""
                state.update(f"{name} {bool(path.lstat().st_mode & 0o100)} {link} {content}\n".encode())
        for file, digest, _ in self.reference.digests if self.reference else ():
            state.update(f"reference {file} {digest}\n".encode())
        return state.hexdigest()


def default_distribution(repository: Path = places.REPOSITORY) -> str:
    """The one whose archive this machine uses, if its packages are locked, else the first that is locked.

    Raises `Unavailable` where the machine uses neither's.
    """
    machine = archive.distribution_of_machine()
    locked = [name for name in DISTRIBUTIONS if (repository / "packages" / f"{name}.lock").exists()]
    return machine if machine in locked or not locked else locked[0]


def read_lock(repository: Path, name: str) -> lockfile.Lock:
    """`packages/<name>.lock`; raises `Unavailable` with the command that makes one."""
    path = repository / "packages" / f"{name}.lock"
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise Unavailable(
            f"{path.relative_to(repository)} is not there: no packages are locked for {name}",
            f"make it where {name}'s archive can be reached: tinboot lock --distribution {name}",
        ) from error
    return lockfile.parse(str(path.relative_to(repository)), text)


def _files(top: Path) -> list[Path]:
    if not top.is_dir():
        return [top] if top.exists() else []
    return sorted(p for p in top.rglob("*") if not p.is_dir() and "__pycache__" not in p.parts)


def this_checkout(distribution: str, profile: str, reference: Reference | None = None) -> Recipe:
    """The recipe in the checkout that this code runs from."""
    return Recipe(places.REPOSITORY, distribution, profile, reference)
