"""Whether this machine lets mkosi make the namespaces that it builds in."""

from __future__ import annotations

import os
import subprocess

from tinboot.formats.errors import Unavailable

_FOR_ROOT = "give the container CAP_SYS_ADMIN and no seccomp filter for unshare and mount, or use a machine"
_FOR_USER = (
    "run as root; where AppArmor forbids it (Ubuntu 24.04): "
    "sysctl kernel.apparmor_restrict_unprivileged_userns=0"
)


def check() -> str:
    """Returns "as root" or "as a user"; raises `Unavailable`, with the remedy, if it is neither."""
    root = os.geteuid() == 0
    options = [] if root else ["--user", "--map-root-user"]
    done = subprocess.run(
        ["unshare", *options, "--mount", "--net", "true"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise Unavailable(
            f"the kernel or this container forbids namespaces: {done.stderr.strip() or 'unshare failed'}",
            _FOR_ROOT if root else _FOR_USER,
        )
    return "as root" if root else "as a user"
