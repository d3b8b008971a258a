"""The test initrd: the production initrd, untouched, and behind it a second archive of test files.

The kernel unpacks one after the other into one tree (buffer-format.rst): what the second holds is added, or
replaces a file of the same path. The result has a launch digest of its own; the command line is the
production one.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinboot.formats import cpio

HOOKS = "usr/lib/tinboot/hooks"
PRODUCTION_INIT = "usr/lib/tinboot-test/init"


def append(initrd: bytes, entries: Sequence[cpio.Entry]) -> bytes:
    """`initrd` (compressed or not), NULs to the next multiple of 4, and the archive of `entries`.

    Missing parent directories are added with mode 0755; the kernel keeps directories that are there.
    """
    return initrd + bytes(-len(initrd) % cpio.ALIGNMENT) + cpio.write(cpio.with_parents(entries))


def hook(name: str, source: str) -> cpio.Entry:
    """A hook that is not the production's, or one in its place: `35-fault` runs between 30 and 40."""
    return cpio.file(f"{HOOKS}/{name}", source.encode())


def init(before: str, production: bytes) -> list[cpio.Entry]:
    """An /init that runs `before` (Python statements) as PID 1 and then executes the production's.

    `production`: the bytes of `initrd-hooks/init`; it is carried along, since /init is what we replace.
    """
    shebang, _, _ = production.partition(b"\n")
    if not shebang.startswith(b"#!/"):
        raise ValueError(f"the production init begins with {shebang[:80]!r}, expected #! and an interpreter")
    path = f"/{PRODUCTION_INIT}"
    source = f"{shebang.decode()}\n{before}\nimport os\nos.execv({path!r}, ['/init'])\n"
    return [cpio.file("init", source.encode(), 0o755), cpio.file(PRODUCTION_INIT, production, 0o755)]
