"""Attestation reports as a GPU in confidential-computing mode writes them, every field free to be wrong.

    contents = Contents("HOPPER", nonce=nonce)
    report = sign(contents.pack(), gpu.key)

The bytes are those that NVML gives: the SPDM request and its response (DMTF DSP0274 1.1, 10.11), in which the
64 measurements and NVIDIA's opaque data lie. `references` says what RIMs hold for exactly these measurements.
Layout: that of the reports in NVIDIA/attestation-sdk's test data; values are made up.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from hashlib import sha384
from typing import Literal, NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from stub_nvidia import CHIPS, FWID, Arch
from stub_nvidia import sign as ecdsa

BLOCKS, DIGEST = 64, 48
ZERO = bytes(DIGEST)

Kind = Literal["driver", "vbios"]

#: Which indexes a RIM of each kind makes active (SPDM index less one), and those whose value is zero in fact.
ACTIVE: dict[Kind, tuple[int, ...]] = {
    "driver": (7, *range(21, 41)),
    "vbios": (*range(7), *range(8, 13)),
}
EMPTY = frozenset({0, 8, 10, 23, 24, 28})
#: Indexes for which the RIM allows more than one value, and how many.
ALTERNATIVES = {23: 2, 24: 2, 32: 2, 35: 2, 12: 4}

DRIVERS: dict[Arch, str] = {"HOPPER": "550.90.07", "BLACKWELL": "595.91.07"}
VBIOSES: dict[Arch, str] = {"HOPPER": "96.00.9F.00.01", "BLACKWELL": "97.00.E4.00.1E"}

# Types of opaque data
DRIVER, GPU_INFO, VBIOS, NVDEC0, COUNTERS, CPR_INFO, BOARD = 3, 4, 6, 11, 12, 13, 14
CHIP_SKU, CHIP_SKU_MOD, PROJECT, PROJECT_SKU, PROJECT_SKU_MOD, FWID_FIELD, PPCIE = 15, 16, 17, 18, 19, 20, 21
OPAQUE_VERSION, CHIP_INFO, FEATURES, FSP_SVN = 34, 35, 36, 37

ON, OFF = b"\xaa", b"\x55"

#: The kind of value that version 2 writes before each size, as in sample_nvdaod_transcript.txt.
_VALUE_TYPES = {
    kind: value_type
    for value_type, kinds in (
        (0x01, (FWID_FIELD,)),
        (0x80, (GPU_INFO,)),
        (0x82, (BOARD, CHIP_SKU, CHIP_SKU_MOD, PROJECT, PROJECT_SKU, PROJECT_SKU_MOD, NVDEC0, CHIP_INFO)),
        (0x83, (CPR_INFO,)),
        (0x84, (COUNTERS,)),
        (0x85, (PPCIE, FEATURES)),
        (0x86, (VBIOS, DRIVER, OPAQUE_VERSION)),
        (0x87, (FSP_SVN,)),
    )
    for kind in kinds
}


class Field(NamedTuple):
    """One of the opaque data. `value_type` is version 2's."""

    type: int
    data: bytes
    value_type: int = 0x82


class Block(NamedTuple):
    """One measurement as the response has it (DSP0274 1.1, table 44; DMTF's own format, table 45)."""

    number: int  # from 1
    digest: bytes
    specification: int = 1
    type: int = 1

    def pack(self) -> bytes:
        value = struct.pack("<BH", self.type, len(self.digest)) + self.digest
        return struct.pack("<BBH", self.number, self.specification, len(value)) + value


class Contents(NamedTuple):
    """Request and response but for the signature. None: what follows from the other fields.

    `version`: of the opaque data, 1 or 2 (NVDAOD). `driver`, `vbios`: as the RIMs have them. NVDEC0 is on by
    default, since while it is off nobody compares measurement 35. `altered`: measurements that differ from
    the reference values.
    """

    arch: Arch = "HOPPER"
    nonce: bytes = bytes(32)
    driver: str = ""
    vbios: str = ""
    altered: Mapping[int, bytes] = {}
    blocks: tuple[Block, ...] | None = None
    responder_nonce: bytes = b"\x5a" * 32
    version: int = 1
    project: str = "G520"
    project_sku: str = "0200"
    chip_sku: str = "885"
    nvdec0: bytes = ON
    fwid: bytes = FWID
    protected_pcie: bytes = OFF
    extra: tuple[Field, ...] = ()
    opaque: tuple[Field, ...] | None = None
    header: bytes = bytes((0x11, 0xE0, 0x01, 0xFF))  # version, GET_MEASUREMENTS, signed, all
    slot: int = 0
    response: bytes = bytes((0x11, 0x60, 0x00, 0x00))
    block_count: int | None = None
    record_length: int | None = None
    opaque_length: int | None = None

    @property
    def versions(self) -> tuple[str, str]:
        """Of driver and VBIOS."""
        return self.driver or DRIVERS[self.arch], self.vbios or VBIOSES[self.arch]

    def measurements(self) -> tuple[bytes, ...]:
        """The 64; [i] is SPDM block i+1."""
        driver, vbios = self.versions
        good = {**references("driver", driver), **references("vbios", vbios)}
        return tuple(self.altered.get(i, good[i][0] if i in good else ZERO) for i in range(BLOCKS))

    def listed(self) -> tuple[Block, ...]:
        if self.blocks is not None:
            return self.blocks
        return tuple(Block(i + 1, digest) for i, digest in enumerate(self.measurements()))

    def fields(self) -> tuple[Field, ...]:
        """The opaque data, in the order of an H100 with driver 550."""
        if self.opaque is not None:
            return self.opaque
        driver, vbios = self.versions
        texts = [
            (CHIP_SKU, self.chip_sku.encode().ljust(9, b"\0")),
            (CHIP_SKU_MOD, b"0".ljust(5, b"\0")),
            (PROJECT, self.project.encode() + b"\0"),
            (PROJECT_SKU, self.project_sku.encode() + b"\0"),
            (PROJECT_SKU_MOD, bytes(2)),
            (DRIVER, driver.encode() + b"\0"),
        ]
        counters = b"".join(struct.pack("<I", int(any(digest))) for digest in self.measurements())
        values = [
            *((VBIOS, packed_vbios(vbios)), (BOARD, b"\x37\x04\0\0"), *texts),
            *((GPU_INFO, b"\x80\x01".ljust(8, b"\0")), (COUNTERS, counters), (CPR_INFO, b"\0\xc0\x01\0")),
            *((NVDEC0, self.nvdec0), *(((FWID_FIELD, self.fwid),) if self.fwid else ())),
            (PPCIE, self.protected_pcie),
        ]
        if self.arch == "BLACKWELL":
            chip = CHIPS[self.arch].encode() + b"\0"
            values += [(OPAQUE_VERSION, struct.pack("<H", self.version)), (CHIP_INFO, chip)]
            values.append((FEATURES, bytes(2)))
        if self.version == 2:
            values.append((FSP_SVN, bytes(2)))
        return (*(Field(kind, data, _VALUE_TYPES[kind]) for kind, data in values), *self.extra)

    def pack(self) -> bytes:
        record = b"".join(block.pack() for block in self.listed())
        opaque = pack_opaque(self.fields(), self.version)
        length = len(record) if self.record_length is None else self.record_length
        return b"".join(
            (
                *(self.header, self.nonce, bytes((self.slot,)), self.response),
                bytes((len(self.listed()) if self.block_count is None else self.block_count,)),
                *(length.to_bytes(3, "little"), record, self.responder_nonce),
                struct.pack("<H", len(opaque) if self.opaque_length is None else self.opaque_length),
                opaque,
            )
        )

    def rim_id(self, kind: Kind) -> str:
        """By which NVIDIA's RIM service knows the RIM of these contents."""
        driver, vbios = self.versions
        chip = CHIPS[self.arch]
        if kind == "driver":
            return f"NV_GPU_{'' if self.arch == 'HOPPER' else 'CC_'}DRIVER_{chip}_{driver}"
        plain = vbios.replace(".", "").upper()
        return f"NV_GPU_VBIOS_{self.project}_{self.project_sku}_{self.chip_sku}_{plain}"


def references(kind: Kind, version: str) -> dict[int, tuple[bytes, ...]]:
    """What a RIM of that version holds: index to alternatives, of which a good GPU has the first."""
    return {i: _alternatives(kind, version, i) for i in ACTIVE[kind]}


def _alternatives(kind: Kind, version: str, index: int) -> tuple[bytes, ...]:
    count = ALTERNATIVES.get(index, 1)
    made = [sha384(f"tinboot stub {kind} {version} {index} {n}".encode()).digest() for n in range(count)]
    if index in EMPTY:
        made = [ZERO, *made[1:]]
    return tuple(made)


def packed_vbios(version: str) -> bytes:
    """The 8 bytes of `96.00.9F.00.01`."""
    parts = bytes.fromhex(version.replace(".", ""))
    return bytes(reversed(parts[:4])) + parts[4:] + bytes(3)


def pack_opaque(fields: tuple[Field, ...], version: int = 1) -> bytes:
    if version == 1:
        return b"".join(struct.pack("<HH", f.type, len(f.data)) + f.data for f in fields)
    head = b"NVDAOD" + struct.pack("<HI", 0, version)
    return head + b"".join(struct.pack("<HHH", f.type, f.value_type, len(f.data)) + f.data for f in fields)


def sign(
    body: bytes, key: ec.EllipticCurvePrivateKey, *, r: int | None = None, s: int | None = None
) -> bytes:
    """The whole report. `r`, `s`: numbers below 2**384 in the place of the signature's."""
    own = decode_dss_signature(ecdsa(key, body))
    numbers = (own[0] if r is None else r, own[1] if s is None else s)
    return body + b"".join(number.to_bytes(DIGEST, "big") for number in numbers)
