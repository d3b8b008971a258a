"""The SNP attestation report: 1184 bytes of the PSP's, the first 672 of them signed.

AMD SEV-SNP Firmware ABI Specification (56860) 1.58, table 23, "ATTESTATION_REPORT"; the versions differ in
what they fill in: 3 added the CPUID of the chip, 5 the mitigation vectors. Numbers are little-endian.

    0x000 version          0x038 current TCB     0x0C0 host data          0x180 reported TCB
    0x004 guest SVN        0x040 platform info   0x0E0 ID key digest      0x188 family, model, stepping
    0x008 policy           0x048 key info        0x110 author key digest  0x1A0 chip id
    0x010 family id        0x050 report data     0x140 report id          0x1E0 committed TCB
    0x020 image id         0x090 measurement     0x160 report id of MA    0x1E8 current version
    0x030 VMPL             0x034 algorithm       0x1F0 launch TCB         0x1EC committed version
    0x1F8 mitigations at launch                  0x200 mitigations now
    0x2A0 signature: r, s of 72 bytes each, the rest zero

Only what makes the bytes another format is refused here. Whether a reserved byte is zero or a policy is
acceptable are checks with names of their own (tinboot/verify/).
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from tinboot.formats.errors import Malformed

SIZE = 1184

#: The signature covers the bytes before this offset. A signature (r, s) holds as (r, n - s) too, so these are
#: what identifies a report, never all of it.
SIGNED = 0x2A0

#: 56860 1.58: 2 up to firmware 1.54, 3 from 1.55, 5 from 1.58. 4 never was given out.
VERSIONS = (2, 3, 5)

_HEAD = struct.Struct("<IIQ16s16sII8sQI4x64s48s32s48s48s32s32s8s")
_VERSION = struct.Struct("<BBB")  # build, minor, major
_NUMBER = 72  # bytes of r, and of s


class Cpuid(NamedTuple):
    """CPUID Fn0000_0001_EAX of the chip, its base and extended parts added up."""

    family: int
    model: int
    stepping: int


class FirmwareVersion(NamedTuple):
    """Of the PSP's SEV firmware, as 1.55.22."""

    major: int
    minor: int
    build: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.build}"


class Report(NamedTuple):
    """A report. TCBs are the raw eight bytes (snptcb.py reads them); None: this version has no such field."""

    raw: bytes
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

    @property
    def signed(self) -> bytes:
        """The bytes that the signature covers."""
        return self.raw[:SIGNED]


def parse(data: bytes) -> Report:
    """Raises `Malformed` unless `data` is as long as a report and of a known version."""
    if len(data) != SIZE:
        raise Malformed(f"the report has {len(data)} bytes, expected {SIZE}")
    version = int.from_bytes(data[:4], "little")
    if version not in VERSIONS:
        known = ", ".join(map(str, VERSIONS))
        raise Malformed(f"offset 0x0: the report is of version {version}, expected one of {known}")
    fields = _HEAD.unpack_from(data)
    with_mitigations = version >= 5
    values: tuple[Any, ...] = (
        bytes(data),
        *fields,
        Cpuid(*data[0x188:0x18B]) if version >= 3 else None,
        data[0x1A0:0x1E0],
        data[0x1E0:0x1E8],
        _version(data, 0x1E8),
        _version(data, 0x1EC),
        data[0x1F0:0x1F8],
        _number(data, 0x1F8, 8) if with_mitigations else None,
        _number(data, 0x200, 8) if with_mitigations else None,
        _number(data, SIGNED, _NUMBER),
        _number(data, SIGNED + _NUMBER, _NUMBER),
    )
    return Report(*values)


#: Reserved bytes, must be zero: from, up to, and the versions that have them.
RESERVED = (
    (0x04C, 0x050, VERSIONS),
    (0x188, 0x1A0, (2,)),
    (0x18B, 0x1A0, (3, 5)),
    (0x1EB, 0x1EC, VERSIONS),
    (0x1EF, 0x1F0, VERSIONS),
    (0x1F8, 0x2A0, (2, 3)),
    (0x208, 0x2A0, (5,)),
)

#: Of the signature: above the 48 bytes that a number of P-384 has, and behind both numbers.
SIGNATURE_PADDING = ((SIGNED + 48, SIGNED + 72), (SIGNED + 120, SIGNED + 144), (SIGNED + 144, SIZE))


def nonzero(report: Report, start: int, end: int) -> int | None:
    """The offset of the first byte in `start`..`end` that is not zero."""
    return next((at for at in range(start, end) if report.raw[at]), None)


def _version(data: bytes, at: int) -> FirmwareVersion:
    build, minor, major = _VERSION.unpack_from(data, at)
    return FirmwareVersion(major, minor, build)


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")
