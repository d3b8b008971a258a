"""The QEMU of this machine: which it is, and whether a launch can be handed to it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from tinboot.formats.errors import Unavailable
from tinboot.formats.launchspec import LaunchSpec
from tinboot.host.launch import Form

#: `sev-snp-guest` came with QEMU 9.1; the harness form is tested from 7.2 (Debian 12) on.
MINIMUM = {Form.PRODUCTION: (9, 1), Form.HARNESS: (7, 2)}

_VERSION = re.compile(r"QEMU emulator version (\d{1,4})\.(\d{1,4})")


def version_text(program: str) -> str | None:
    """The first line of `program --version`; None where there is no such program or it does not answer."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.partition("\n")[0] if done.returncode == 0 else None


def parse_version(text: str) -> tuple[int, int] | None:
    """Major and minor version from that line; None where it is not QEMU's."""
    match = _VERSION.match(text)
    return None if match is None else (int(match[1]), int(match[2]))


def find(program: str, form: Form) -> str:
    """The path of a QEMU that is new enough for `form`; raises `Unavailable` with the remedy."""
    path = shutil.which(program)
    least = ".".join(map(str, MINIMUM[form]))
    if path is None:
        raise Unavailable(
            f"{program} is not installed, the {form.value} form needs QEMU {least} or newer",
            "apt install qemu-system-x86, or name one by --qemu",
        )
    text = version_text(path) or ""
    version = parse_version(text)
    if version is None:
        raise Unavailable(f"{path} --version answers {text[:80]!r}, expected a version of QEMU")
    if version < MINIMUM[form]:
        raise Unavailable(
            f"{path} is {'.'.join(map(str, version))}, the {form.value} form needs QEMU {least} or newer",
            "name a newer one by --qemu (Debian 13 and Ubuntu 25.04 have one)"
            if form is Form.PRODUCTION
            else "name a newer one by --qemu",
        )
    return path


def require_devices(spec: LaunchSpec, form: Form, devices: Path = Path("/dev")) -> None:
    """Raises `Unavailable` for the first device node that the launch would fail to open."""
    if form is Form.HARNESS:
        return
    needed = {"kvm": "load kvm_amd, and run as root or as a member of the group kvm"}
    if spec.gpus:
        needed["iommu"] = "load iommufd; the kernel needs CONFIG_IOMMUFD and CONFIG_VFIO_DEVICE_CDEV"
    for name, remedy in needed.items():
        node = devices / name
        if not node.exists():
            raise Unavailable(f"{node} does not exist", f"{remedy}; `tinboot host check` shows the rest")
        if not os.access(node, os.R_OK | os.W_OK):
            raise Unavailable(f"{node} may not be opened for reading and writing", remedy)
