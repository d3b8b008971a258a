"""The page of hashes that binds kernel, initrd and command line to the launch digest.

QEMU writes it (target/i386/sev.c, sev_add_kernel_loader_hashes) where the firmware's SEV hash table says,
and AmdSev OVMF (OvmfPkg/AmdSev/BlobVerifierLibSevHashes) compares what it loads with it.
"""

from __future__ import annotations

import hashlib
import struct

from tinboot.formats.ovmf import PAGE, guid

#: QEMU, target/i386/sev.c; edk2 has the same in BlobVerifierSevHashes.c.
_TABLE = guid("9438d606-4f22-4cc9-b479-a793d411fd21")
_COMMAND_LINE = guid("97d02dd8-bd20-4c94-aa78-e7714d36ab2a")
_INITRD = guid("44baf731-3a2f-4bd7-9af1-41e29169781d")
_KERNEL = guid("4de79437-abd2-427f-b835-d5b172d2045b")

_HEAD = struct.Struct("<16sH")  # GUID, length of head and data
_ALIGNMENT = 16

#: What stands for an initrd that is not there: the hash of nothing.
NO_INITRD = hashlib.sha256(b"").digest()


def command_line_digest(text: str) -> bytes:
    """SHA-256 of the command line as the loader sees it, its terminating NUL included.

    UTF-8; what a program's argument has besides is in `text` as surrogates, and QEMU gets the same bytes.
    """
    return hashlib.sha256(text.encode(errors="surrogateescape") + b"\0").digest()


def table(kernel: bytes, initrd: bytes, command_line: bytes) -> bytes:
    """The table of three SHA-256 digests, 32 bytes each: 176 bytes with its padding."""
    entries = b""
    for name, digest in ((_COMMAND_LINE, command_line), (_INITRD, initrd), (_KERNEL, kernel)):
        if len(digest) != 32:
            raise ValueError(f"a SHA-256 digest has 32 bytes, not {len(digest)}")
        entries += _HEAD.pack(name, _HEAD.size + 32) + digest
    whole = _HEAD.pack(_TABLE, _HEAD.size + len(entries)) + entries
    return whole + bytes(-len(whole) % _ALIGNMENT)


def page(hashes: bytes, base: int) -> bytes:
    """The whole page that is measured: `hashes` at the place in it that the address `base` says."""
    at = base % PAGE
    if at + len(hashes) > PAGE:
        raise ValueError(f"a table of {len(hashes)} bytes at {base:#x} crosses the end of its page")
    return bytes(at) + hashes + bytes(PAGE - at - len(hashes))
