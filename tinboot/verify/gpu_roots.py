"""NVIDIA's root of device identities, pinned by the SHA-256 of its DER. A test root is trusted where named.

It ends the chain of Hopper's and of Blackwell's GPUs. Nothing under it is pinned: its signatures count.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinboot.formats.errors import Malformed
from tinboot.verify.certificate import Certificate, read

#: Fingerprints, in lower-case hex. "NVIDIA Device Identity CA", equal in NVIDIA's attestation SDK (C++),
#: nv-local-gpu-verifier (`verifier_device_root.pem`) and every genuine chain's end.
NVIDIA = ("102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48",)


def one_root(data: bytes) -> Certificate:
    """The one certificate in `data`, PEM or DER, whose fingerprint somebody means to trust."""
    found = read(data)
    if len(found) != 1:
        raise Malformed(f"{len(found)} certificates, expected one root")
    return found[0]


def is_nvidias(fingerprint: str | None, pinned: Sequence[str] = NVIDIA) -> bool:
    return fingerprint in pinned
