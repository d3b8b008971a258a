"""TCG, or KVM where a probe boot shows that KVM runs this kernel up to user space.

That /dev/kvm opens, and even that it makes a vCPU, proves nothing: there are hosts whose KVM starts
the firmware and never brings up a stock kernel.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import tempfile
from functools import cache
from pathlib import Path

from boot import boot
from machine import find_qemu

from tinboot.formats import cpio
from tinboot.formats.errors import Unavailable

PROBE_SECONDS = 15.0
MARKER = "tinboot-probe: user space"

_DEVICE = Path("/dev/kvm")


@cache
def choose(kernel: Path, verdicts: Path) -> str:
    """`kvm` or `tcg`, for QEMU's `-accel`. Probes once for each QEMU, kernel and host kernel.

    The verdict is kept in the folder `verdicts`; processes that ask at once wait for one probe.
    """
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return "tcg"
    verdicts.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(os.uname().release.encode())
    for path in (Path(find_qemu()), kernel):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    verdict = verdicts / digest.hexdigest()
    with verdict.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        known = file.read()
        if known not in ("kvm", "tcg"):
            known = "kvm" if probe(kernel, "kvm", PROBE_SECONDS) else "tcg"
            file.truncate(0)
            file.write(known)
    return known


def probe(kernel: Path, accel: str, seconds: float) -> bool:
    """Boots `kernel` with an initrd of one tiny program; True if that program's line comes in time."""
    with tempfile.TemporaryDirectory(prefix="tinboot-probe-") as name:
        folder = Path(name)
        initrd = folder / "initrd"
        initrd.write_bytes(probe_initrd())
        try:
            result = boot(
                kernel,
                initrd,
                "console=ttyS0 quiet panic=-1",
                accel=accel,
                memory=512,
                deadline=seconds,
                marker=MARKER,
                log_dir=folder,
            )
        except Unavailable:  # QEMU itself gave up: so does KVM where it lacks a feature
            return False
        return result.event.text == MARKER


def probe_initrd() -> bytes:
    """An initrd whose /init, a static program of 250 bytes, prints `MARKER` and powers off."""
    return cpio.write(
        [
            cpio.directory("dev"),
            cpio.character_device("dev/console", 5, 1),
            cpio.file("init", _program(f"{MARKER}\n".encode()), 0o755),
        ]
    )


def _program(message: bytes) -> bytes:
    """x86-64 ELF: write(1, message), reboot(RB_POWER_OFF), and a loop behind that."""
    base, headers = 0x400000, 64 + 56
    code = b"\xb8\x01\0\0\0" + b"\xbf\x01\0\0\0"  # mov eax, SYS_write; mov edi, 1
    code += b"\x48\x8d\x35" + struct.pack("<i", 5 + 2 + 4 * 5 + 2 + 2)  # lea rsi, [rip + …]: the message
    code += b"\xba" + struct.pack("<I", len(message)) + b"\x0f\x05"  # mov edx, len; syscall
    # SYS_reboot and its magic numbers: include/uapi/linux/reboot.h
    code += b"\xb8\xa9\0\0\0" + b"\xbf" + struct.pack("<I", 0xFEE1DEAD)
    code += b"\xbe" + struct.pack("<I", 0x28121969) + b"\xba" + struct.pack("<I", 0x4321FEDC)
    code += b"\x0f\x05" + b"\xeb\xfe"  # syscall; jmp $
    size = headers + len(code) + len(message)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    elf = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + headers, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 4096)  # PT_LOAD, read and execute
    return ident + elf + segment + code + message
