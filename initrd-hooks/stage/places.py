"""Where things lie in the guest before hand-over. Every path derives from `root`."""

from __future__ import annotations

from typing import NamedTuple

from tinboot.formats import bootlog


class Places(NamedTuple):
    """`root` is "" in the guest: `Places().proc` is /proc. Unit tests put a folder in front."""

    root: str = ""

    @property
    def proc(self) -> str:
        return self.root + "/proc"

    @property
    def sys(self) -> str:
        return self.root + "/sys"

    @property
    def dev(self) -> str:
        return self.root + "/dev"

    @property
    def run(self) -> str:
        return self.root + "/run"

    @property
    def sealed(self) -> str:
        """A tmpfs of its own, read-only from hand-over on."""
        return self.root + bootlog.SEALED

    @property
    def sysroot(self) -> str:
        """Where the verified root is mounted until it becomes /."""
        return self.root + "/sysroot"

    @property
    def hooks(self) -> str:
        return self.root + "/usr/lib/tinboot/hooks"

    @property
    def modules(self) -> str:
        """Kernel modules to load, an absolute path a line, in order; behind an empty line those for later."""
        return self.root + "/usr/lib/tinboot/modules"
