"""An SEV-SNP attestation report: 1184 bytes, of which the chip signs the first 672.

AMD SEV-SNP Firmware ABI Specification (56860) 1.58, table 23 (ATTESTATION_REPORT) and chapter 10 (the
signature); 1.51 and 1.55 for versions 2 and 3. Numbers are little-endian.

    version 2   the fields up to LAUNCH_TCB
    version 3   adds the CPU's family, model and stepping at 0x188
    version 5   adds the mitigation vectors at 0x1F8 and 0x200

A published layout of version 4 is not known to us, so it is refused as any other number is. `parse` says
where each field lies and refuses nothing else: whether a field *may* have its value is for the verifier's
checks, each of which has a name. They need `raw` for the bytes that no field covers.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from tinboot.formats.errors import Malformed

SIZE = 1184
SIGNED = 0x2A0  # bytes that the signature covers
VERSIONS = (2, 3, 5)

_CPUID_SINCE, _MITIGATIONS_SINCE = 3, 5

#: Table 23 up to the mitigation vectors' end, without reserved bytes between the fields.
_HEAD = struct.Struct("<IIQ16s16sII8sQI4x64s48s32s48s48s32s32s8sBBB21x64s8sBBBxBBBx8sQQ")

#: Chapter 10, "ECDSA P-384 with SHA-384 Signature": r and s of 72 bytes each, 368 bytes reserved.
NUMBER = 72
SIGNATURE_R, SIGNATURE_S = SIGNED, SIGNED + NUMBER
SIGNATURE_RESERVED = range(SIGNED + 2 * NUMBER, SIZE)


class Cpuid(NamedTuple):
    """Family and model with their extended parts added, as CPUID Fn0000_0001 defines them."""

    family: int
    model: int
    stepping: int

    def __str__(self) -> str:
        return f"family {self.family:#04x} model {self.model:#04x} stepping {self.stepping}"


class FirmwareVersion(NamedTuple):
    """Of the SNP firmware, compared in this order."""

    major: int
    minor: int
    build: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.build}"


class Report(NamedTuple):
    """Numbers and bit fields as int, identifiers and digests as bytes, TCBs as their 8 bytes (snptcb.py).

    `cpuid` is None in version 2, `launch_mitigations` and `current_mitigations` before version 5.
    `signature_r` and `signature_s` are the whole 72 bytes, so that padding that is not zero shows in them.
    """

    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    signature_algorithm: int
    current_tcb: bytes
    platform_info: int
    key_info: int
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: bytes
    cpuid: Cpuid | None
    chip_id: bytes
    committed_tcb: bytes
    current_version: FirmwareVersion
    committed_version: FirmwareVersion
    launch_tcb: bytes
    launch_mitigations: int | None
    current_mitigations: int | None
    signature_r: int
    signature_s: int
    raw: bytes

    @property
    def signed(self) -> bytes:
        """What the signature covers. A replay cache keys on these bytes: ECDSA signatures are malleable."""
        return self.raw[:SIGNED]


def parse(data: bytes) -> Report:
    """Raises `Malformed` for another length than `SIZE`, or a version that is not in `VERSIONS`."""
    if len(data) != SIZE:
        raise Malformed(
            f"the report has {len(data)} bytes, expected {SIZE}",
            "give the report alone: not the device's response around it, nor its hex digits",
        )
    raw = bytes(data)
    fields: tuple[Any, ...] = _HEAD.unpack_from(raw)
    family, model, stepping, chip_id, committed_tcb = fields[18:23]
    current, committed = fields[23:26], fields[26:29]  # each build, minor, major
    launch_tcb, launch_mitigations, current_mitigations = fields[29:]
    version = fields[0]
    if version not in VERSIONS:
        known = ", ".join(map(str, VERSIONS))
        raise Malformed(f"offset 0x0: version {version} of the report, expected one of {known}")
    vectors = version >= _MITIGATIONS_SINCE
    rest = (
        Cpuid(family, model, stepping) if version >= _CPUID_SINCE else None,
        chip_id,
        committed_tcb,
        FirmwareVersion(*reversed(current)),
        FirmwareVersion(*reversed(committed)),
        launch_tcb,
        launch_mitigations if vectors else None,
        current_mitigations if vectors else None,
        int.from_bytes(raw[SIGNATURE_R : SIGNATURE_R + NUMBER], "little"),
        int.from_bytes(raw[SIGNATURE_S : SIGNATURE_S + NUMBER], "little"),
        raw,
    )
    return Report._make(fields[:18] + rest)  # the first 18: version to reported_tcb


def reserved(version: int) -> tuple[range, ...]:
    """Offsets that the table reserves, and demands zero of, in a signed part of `version`."""
    cpuid = 0x18B if version >= _CPUID_SINCE else 0x188
    vectors = 0x208 if version >= _MITIGATIONS_SINCE else 0x1F8
    return (
        range(0x4C, 0x50),
        range(cpuid, 0x1A0),
        range(0x1EB, 0x1EC),
        range(0x1EF, 0x1F0),
        range(vectors, SIGNED),
    )
