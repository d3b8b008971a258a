"""The initrds that bench/mounted.py measures ours against, with the kernel modules of the production image.

    systemd    mkosi's own initrd as it comes (mkosi/)
    python     the same with Python, cryptography and YAML (its profile)
    busybox    a shell script that loads what EROFS on a virtio disk takes, and mounts it without verity

Their packages are the newest of the machine's archives, not locked ones. Fetched and made once.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tinboot.builder import archive, output, places, relock, tools
from tinboot.builder.image import Image
from tinboot.builder.lockfile import Lock
from tinboot.builder.mkosi import Report
from tinboot.builder.prepare import Toolchain
from tinboot.formats import cpio

RECIPE = Path(__file__).with_name("mkosi")

#: What both say on the console right after the mount.
MOUNTED = "bench-mounted"

#: What EROFS on a virtio disk takes, in load order; one that the kernel has built in is not in our initrd.
_MODULES = ("virtio_blk.ko", "libcrc32c.ko", "erofs.ko")

#: The whole program: nothing is mounted that the mount does not need. `{first}`: a command before all.
_SCRIPT = """#!/bin/busybox sh
{first}/bin/busybox mount -t devtmpfs dev /dev
{modules}/bin/busybox mount -t erofs -o ro /dev/vda /sysroot
/bin/busybox echo {mounted}
/bin/busybox sleep 1000
"""
_PRIORITY = "/bin/busybox renice -n -20 -p 1 > /dev/null\n"

_ZSTD = bytes.fromhex("28b52ffd")  # magic number, RFC 8878, 3.1.1


@dataclass(frozen=True, slots=True)
class Peers:
    """Initrds, and the busybox of the same archives."""

    systemd: Path
    python: Path
    busybox: Path


def make(built: Image, chain: Toolchain, lock: Lock, report: Report) -> Peers:
    """From the cache, or from the machine's archives."""
    final = places.build_folder() / "bench" / f"peers-{_digest(built, chain.mkosi.version)[:16]}"
    final.parent.mkdir(parents=True, exist_ok=True)
    if not final.exists():
        with output.scratch(final) as scratch:
            (made := scratch / "made").mkdir()
            modules = _module_tree(built, chain.packages, scratch / "kernel")
            for name in ("systemd", "python"):
                (work := scratch / name).mkdir()
                report(f"{name}: a build from the machine's archives")
                _build(name, chain, lock, modules, work, final.with_suffix(".log"))
                (work / "output/initrd.cpio.zst").replace(made / name)
            package = next((scratch / "python/cache").rglob("busybox-static_*.deb"))
            (made / "busybox").write_bytes(_from_package(package))
            made.replace(final)
    return Peers(final / "systemd", final / "python", final / "busybox")


def busybox_initrd(program: bytes, ours: Iterable[cpio.Entry], *, hurried: bool) -> bytes:
    """One program, a script, and of `ours` the modules that the script loads, compressed as ours.

    `hurried`: with the CPU priority that our init gives itself.
    """
    found = {entry.path.rpartition("/")[2]: entry for entry in ours}
    modules = [name for name in _MODULES if name in found]
    insmod = "".join(f"/bin/busybox insmod /{name}\n" for name in modules)
    script = _SCRIPT.format(first=_PRIORITY if hurried else "", modules=insmod, mounted=MOUNTED)
    listed = [
        cpio.directory("dev"),
        cpio.character_device("dev/console", 5, 1),
        cpio.directory("sysroot"),
        cpio.file("bin/busybox", program, 0o755),
        cpio.file("init", script.encode(), 0o755),
        *(cpio.file(name, found[name].data) for name in modules),
    ]
    packed = cpio.write(cpio.with_parents(listed))
    command = [*tools.tool("zstd"), "-19", "-c"]
    return subprocess.run(command, input=packed, stdout=subprocess.PIPE, check=True).stdout


def entries(initrd: bytes) -> list[cpio.Entry]:
    """Everything in an initrd: archives with NULs between them, the last of them compressed with zstd."""
    at = initrd.index(_ZSTD)
    unpacked = subprocess.run(
        [*tools.tool("zstd"), "-dc"], input=initrd[at:], stdout=subprocess.PIPE, check=True
    ).stdout
    return [e for part in (initrd[:at], unpacked) for found in cpio.read_all(part) for e in found.entries]


def files(initrd: bytes) -> int:
    """How many regular files an initrd holds, as GNU cpio lists them (mkosi's has hard links)."""
    at = initrd.index(_ZSTD)
    unpack = [*tools.tool("zstd"), "-dc"]
    unpacked = subprocess.run(unpack, input=initrd[at:], stdout=subprocess.PIPE, check=True).stdout
    listing = ["cpio", "--list", "--verbose", "--quiet"]
    listed = subprocess.run(listing, input=unpacked, stdout=subprocess.PIPE, check=True).stdout
    return sum(line.startswith(b"-") for line in listed.splitlines())


def _build(name: str, chain: Toolchain, lock: Lock, modules: Path, work: Path, log: Path) -> None:
    """`work`/output/initrd.cpio.zst; what was downloaded stays in `work`/cache."""
    mirrors = {kind: archive.machine_mirrors(kind)[0] for kind in relock.SUITES[lock.distribution]}
    (work / "cache").mkdir()
    options = [
        f"--directory={RECIPE}",
        f"--distribution={lock.distribution}",
        f"--release={lock.release}",
        *(["--profile=python"] if name == "python" else []),
        f"--tools-tree={chain.tools}",
        f"--extra-tree={modules}:/usr/lib/modules",
        f"--package-cache-directory={work / 'cache'}",
        f"--output-directory={work / 'output'}",
    ]
    sources = relock.sources(lock.distribution, lock.release, mirrors)
    chain.mkosi.build(
        options, sources=sources, scratch=work, log=log, network=True, report=lambda _step: None
    )


def _module_tree(built: Image, packages: Path, folder: Path) -> Path:
    """The folder with all modules of the production kernel, as its packages have them."""
    for package in built.packages:
        if package.image == "kernel" and package.name.startswith(("linux-image-", "linux-modules-")):
            (file,) = packages.glob(f"{package.name}_*.deb")
            subprocess.run(["dpkg-deb", "-x", str(file), str(folder)], check=True)
    if not (folder / "lib").exists():
        (folder / "lib").symlink_to("usr/lib")
    (version,) = (folder / "lib/modules").iterdir()
    # the packages leave their index to be made where they are installed, and modinfo reads it
    subprocess.run([*tools.tool("depmod"), "-b", str(folder), version.name], check=True)
    return version.parent.resolve()


def _from_package(package: Path) -> bytes:
    """The busybox in a Debian package."""
    tree = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE, check=True)
    with tarfile.open(fileobj=io.BytesIO(tree.stdout)) as files_of_package:
        for member in files_of_package:
            if member.isreg() and member.name.endswith("/bin/busybox"):
                content = files_of_package.extractfile(member)
                assert content is not None  # for a regular file it is there
                return content.read()
    raise FileNotFoundError(f"{package.name} has no bin/busybox")


def _digest(built: Image, mkosi: str) -> str:
    """Of what decides the systemd initrds but for the archives' state: recipe, mkosi, kernel."""
    kernel = [package for package in built.packages if package.image == "kernel"]
    state = hashlib.sha256(f"{mkosi}\n{kernel}\n".encode())
    for path in sorted(path for path in RECIPE.rglob("*") if path.is_file()):
        state.update(f"{path.relative_to(RECIPE)}\0{path.read_text()}\0".encode())
    return state.hexdigest()
