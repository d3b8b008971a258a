"""Attestation reports as the PSP writes and signs them, every field of them free to be wrong.

    contents = Contents(GENOA, report_data=nonce)
    report = sign(contents.pack(), key)

A test replaces one field of `Contents`, or alters bytes between the two steps (`patched`), or gives `sign`
another r, s or tail. Layout: tinboot/formats/snpreport.py.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tinboot.formats.snpreport import NUMBER, SIGNED, SIZE, Cpuid, FirmwareVersion
from tinboot.formats.snptcb import GENOA, MILAN, TURIN, Line, Tcb, encode

#: P-384's order, NIST SP 800-186, 3.2.1.4: r and s are below it.
ORDER = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16
)

CHIP_ID = bytes(range(1, 65))

#: A CPU and a TCB of each line that no floor refuses.
CPUS = {MILAN: Cpuid(0x19, 0x01, 1), GENOA: Cpuid(0x19, 0x11, 1), TURIN: Cpuid(0x1A, 0x02, 1)}
TCBS = {
    MILAN: Tcb(4, 0, 0x1B, 0xDB, None),
    GENOA: Tcb(10, 0, 0x1B, 0x54, None),
    TURIN: Tcb(1, 1, 4, 0x48, 1),
}

#: POLICY: SMT allowed, and bit 17, which is always one; ABI 0.0.
POLICY = 0x30000

#: PLATFORM_INFO: SMT, ECC memory, alias check complete.
PLATFORM_INFO = 0x25

VCEK, VLEK = 0 << 2, 1 << 2  # KEY_INFO, SIGNING_KEY
MASK_CHIP_KEY = 1 << 1


class Contents(NamedTuple):
    """The signed part. A TCB is a `Tcb`, or its 8 bytes as they are; None: that of `TCBS`."""

    line: Line = GENOA
    version: int = 3
    guest_svn: int = 0
    policy: int = POLICY
    family_id: bytes = bytes(16)
    image_id: bytes = bytes(16)
    vmpl: int = 0
    signature_algorithm: int = 1
    current_tcb: Tcb | bytes | None = None
    platform_info: int = PLATFORM_INFO
    key_info: int = VCEK
    report_data: bytes = bytes(64)
    measurement: bytes = bytes(48)
    host_data: bytes = bytes(32)
    id_key_digest: bytes = bytes(48)
    author_key_digest: bytes = bytes(48)
    report_id: bytes = b"\x11" * 32
    report_id_ma: bytes = b"\xff" * 32  # no migration agent
    reported_tcb: Tcb | bytes | None = None
    cpuid: Cpuid | None = None  # None: that of `CPUS`
    chip_id: bytes | None = None  # None: `chip_id(line)`
    committed_tcb: Tcb | bytes | None = None
    current_version: FirmwareVersion = FirmwareVersion(1, 58, 1)
    committed_version: FirmwareVersion = FirmwareVersion(1, 58, 1)
    launch_tcb: Tcb | bytes | None = None
    launch_mitigations: int = 1
    current_mitigations: int = 1

    def pack(self) -> bytes:
        """The 672 bytes. What the version does not have stays zero."""
        body = bytearray(SIGNED)
        numbers = (self.version, self.guest_svn, self.policy, self.family_id, self.image_id)
        struct.pack_into(
            "<IIQ16s16sII8s", body, 0, *numbers, self.vmpl, self.signature_algorithm, self._tcb(0)
        )
        struct.pack_into("<QI", body, 0x40, self.platform_info, self.key_info)
        struct.pack_into("<64s48s32s", body, 0x50, self.report_data, self.measurement, self.host_data)
        struct.pack_into("<48s48s", body, 0xE0, self.id_key_digest, self.author_key_digest)
        struct.pack_into("<32s32s8s", body, 0x140, self.report_id, self.report_id_ma, self._tcb(1))
        if self.version >= 3:
            body[0x188:0x18B] = bytes(self.cpuid or CPUS[self.line])
        chip = chip_id(self.line) if self.chip_id is None else self.chip_id
        struct.pack_into("<64s8s", body, 0x1A0, chip, self._tcb(2))
        struct.pack_into("<BBB", body, 0x1E8, *reversed(self.current_version))
        struct.pack_into("<BBB", body, 0x1EC, *reversed(self.committed_version))
        body[0x1F0:0x1F8] = self._tcb(3)
        if self.version >= 5:
            struct.pack_into("<QQ", body, 0x1F8, self.launch_mitigations, self.current_mitigations)
        return bytes(body)

    def _tcb(self, which: int) -> bytes:
        tcb = (self.current_tcb, self.reported_tcb, self.committed_tcb, self.launch_tcb)[which]
        if isinstance(tcb, bytes):
            return tcb
        return encode(self.line, TCBS[self.line] if tcb is None else tcb)


def chip_id(line: Line) -> bytes:
    """CHIP_ID of a stub chip: as many bytes as the line gives its chips, then zeros."""
    return CHIP_ID[: line.hwid].ljust(64, b"\0")


def patched(data: bytes, at: int, new: bytes) -> bytes:
    """`data` with `new` in the place of what is at offset `at`."""
    return data[:at] + new + data[at + len(new) :]


def sign(
    body: bytes,
    key: ec.EllipticCurvePrivateKey,
    *,
    r: int | None = None,
    s: int | None = None,
    tail: bytes = bytes(SIZE - SIGNED - 2 * NUMBER),
) -> bytes:
    """The whole report. `r`, `s`: numbers below 2**576 in the place of the signature's; `tail`: 368 bytes."""
    own = decode_dss_signature(key.sign(body, ec.ECDSA(hashes.SHA384())))
    numbers = (own[0] if r is None else r, own[1] if s is None else s)
    return body + b"".join(number.to_bytes(NUMBER, "little") for number in numbers) + tail


def signature(report: bytes) -> tuple[int, int]:
    """r and s of a report."""
    halves = (report[SIGNED : SIGNED + NUMBER], report[SIGNED + NUMBER : SIGNED + 2 * NUMBER])
    return int.from_bytes(halves[0], "little"), int.from_bytes(halves[1], "little")
