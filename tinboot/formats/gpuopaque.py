"""The opaque data of a GPU's measurements: what the GPU says of itself beside them, signed with them.

Two encodings, told apart by how they begin; numbers are little-endian:

    1  legacy    [type u16][size u16][data] and so on to the end
    2  NVDAOD    "NVDAOD", profile u16, version u8[4], then [type u16][value type u16][size u16][data]

Types and sizes: NVIDIA attestation SDK, OpaqueDataTypes; sizes that it does not state are those of reports.
A type that is not listed here is refused, since nobody could say what it takes back; so is one that stands
twice.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from tinboot.formats.errors import Malformed

MAX_SIZE = 1024  # DMTF DSP0274 1.1, MEASUREMENTS response, OpaqueDataLength

MAGIC = b"NVDAOD"
_PROFILE, _MAJOR = 0, 2

DRIVER_VERSION = 3
GPU_INFO = 4
VBIOS_VERSION = 6
NVDEC0_STATUS = 11
MSRSCNT = 12
CPRINFO = 13
BOARD_ID = 14
CHIP_SKU = 15
CHIP_SKU_MOD = 16
PROJECT = 17
PROJECT_SKU = 18
PROJECT_SKU_MOD = 19
FWID = 20
PROTECTED_PCIE_STATUS = 21
SWITCH_PDI = 22
GPU_LINK_CONN = 32
SYS_ENABLE_STATUS = 33
OPAQUE_DATA_VERSION = 34
CHIP_INFO = 35
FEATURE_FLAG = 36
FSP_UCODE_SVN = 37
NVLE_STATUS = 38

_ANY = range(1, 257)

#: type -> how many bytes it may have.
_SIZES: dict[int, range | tuple[int, ...]] = {
    DRIVER_VERSION: range(2, 81),  # nvml.h: NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE
    GPU_INFO: (8,),
    VBIOS_VERSION: (8,),
    NVDEC0_STATUS: (1,),
    MSRSCNT: (256,),
    CPRINFO: (4,),
    BOARD_ID: (4,),
    CHIP_SKU: (4, 9),
    CHIP_SKU_MOD: (2, 5),
    PROJECT: (5,),
    PROJECT_SKU: (5,),
    PROJECT_SKU_MOD: (2, 5),
    FWID: (48,),
    PROTECTED_PCIE_STATUS: (1,),
    SWITCH_PDI: range(8, 8 * 18 + 1, 8),
    GPU_LINK_CONN: _ANY,
    SYS_ENABLE_STATUS: _ANY,
    OPAQUE_DATA_VERSION: (2,),
    CHIP_INFO: range(2, 33),
    FEATURE_FLAG: (2,),
    FSP_UCODE_SVN: _ANY,
    NVLE_STATUS: _ANY,
}

#: Of NVDEC0 and protected PCIe.
_ON, _OFF = 0xAA, 0x55

#: Values of FEATURE_FLAG: one GPU alone, several behind protected NVLink or PCIe.
SINGLE_GPU, MULTI_GPU, PROTECTED_PCIE = 0, 1, 2


class Opaque(NamedTuple):
    """`version`: 1 legacy, 2 NVDAOD. `fields`: type -> data. A property is None where its field is absent.

    Properties raise `Malformed` for data that is not what its type says; `parse` has looked at each of them.
    """

    version: int
    fields: dict[int, bytes]

    @property
    def driver_version(self) -> str | None:
        """As 550.90.07."""
        return self._text(DRIVER_VERSION)

    @property
    def vbios_version(self) -> str | None:
        """As 96.00.9F.00.01."""
        data = self.fields.get(VBIOS_VERSION)
        if data is None:
            return None
        if any(data[5:]):
            raise Malformed(f"the VBIOS version is {data.hex()}, expected zeros behind its five bytes")
        return f"{data[3]:02X}.{data[2]:02X}.{data[1]:02X}.{data[0]:02X}.{data[4]:02X}"

    @property
    def project(self) -> str | None:
        return self._text(PROJECT)

    @property
    def project_sku(self) -> str | None:
        return self._text(PROJECT_SKU)

    @property
    def chip_sku(self) -> str | None:
        return self._text(CHIP_SKU)

    @property
    def chip_info(self) -> str | None:
        """As GB100; Hopper's say nothing."""
        return self._text(CHIP_INFO)

    @property
    def nvdec0(self) -> bool | None:
        return self._switch(NVDEC0_STATUS)

    @property
    def protected_pcie(self) -> bool | None:
        return self._switch(PROTECTED_PCIE_STATUS)

    @property
    def fwid(self) -> bytes | None:
        """SHA-384 of the firmware that holds the attestation key; drivers before 550 do not state it."""
        return self.fields.get(FWID)

    @property
    def feature_flag(self) -> int | None:
        """`SINGLE_GPU` and so on, or a number that is none of them."""
        data = self.fields.get(FEATURE_FLAG)
        return None if data is None else int.from_bytes(data, "little")

    def _text(self, kind: int) -> str | None:
        data = self.fields.get(kind)
        if data is None:
            return None
        text, _, padding = data.partition(b"\0")
        if any(padding) or len(text) == len(data):
            raise Malformed(f"opaque type {kind} is {data[:80]!r}, expected text that ends with NUL")
        if not text or text.translate(None, _PLAIN):
            raise Malformed(f"opaque type {kind} is {text[:80]!r}, expected letters, digits and dots")
        return text.decode("ascii")

    def _switch(self, kind: int) -> bool | None:
        data = self.fields.get(kind)
        if data is None:
            return None
        if data[0] not in {_ON, _OFF}:
            raise Malformed(f"opaque type {kind} is {data[0]:#04x}, expected {_ON:#x} or {_OFF:#x}")
        return data[0] == _ON


#: What versions and part numbers are written with: they become parts of file names.
_PLAIN = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._-"


def parse(data: bytes, offset: int = 0) -> Opaque:
    """`offset`: where `data` stands in the report, for messages. Raises `Malformed`."""
    if len(data) > MAX_SIZE:
        raise Malformed(f"offset {offset:#x}: {len(data)} bytes of opaque data, expected at most {MAX_SIZE}")
    version, at = 1, 0
    entry = struct.Struct("<HH")
    if data.startswith(MAGIC):
        version, at, entry = 2, _begin(data, offset), struct.Struct("<H2xH")
    fields: dict[int, bytes] = {}
    while at < len(data):
        if len(data) - at < entry.size:
            raise Malformed(f"offset {offset + at:#x}: {len(data) - at} bytes, too few for an opaque field")
        kind, size = entry.unpack_from(data, at)
        begin = at + entry.size
        if kind not in _SIZES:
            raise Malformed(f"offset {offset + at:#x}: opaque type {kind}, which is not known")
        if kind in fields:
            raise Malformed(f"offset {offset + at:#x}: opaque type {kind} stands twice")
        if size not in _SIZES[kind]:
            raise Malformed(f"offset {offset + at:#x}: opaque type {kind} of {size} bytes")
        if begin + size > len(data):
            raise Malformed(
                f"offset {offset + at:#x}: opaque type {kind} of {size} bytes, {len(data) - begin} are there"
            )
        fields[kind] = data[begin : begin + size]
        at = begin + size
    found = Opaque(version, fields)
    _read(found, offset)
    return found


def driver_rim_id(opaque: Opaque, architecture: str) -> str:
    """The name of the driver's RIM; `architecture`: hopper or blackwell. Raises `Malformed` without it."""
    version = _stated(opaque.driver_version, "driver version")
    if architecture == "hopper":
        return f"NV_GPU_DRIVER_GH100_{version}"
    return f"NV_GPU_CC_DRIVER_{_stated(opaque.chip_info, 'chip')}_{version}"


def vbios_rim_id(opaque: Opaque) -> str:
    """The name of the VBIOS's RIM, which is of a board and not only of a version. Raises `Malformed`."""
    parts = (
        _stated(opaque.project, "project"),
        _stated(opaque.project_sku, "project SKU"),
        _stated(opaque.chip_sku, "chip SKU"),
        _stated(opaque.vbios_version, "VBIOS version").replace(".", ""),
    )
    return "_".join(("NV_GPU_VBIOS", *(part.upper() for part in parts)))


def _begin(data: bytes, offset: int) -> int:
    """Where the fields of NVDAOD begin."""
    head = struct.Struct("<6xH4B")
    if len(data) < head.size:
        raise Malformed(f"offset {offset:#x}: {len(data)} bytes of NVDAOD, its head has {head.size}")
    profile, major, *_ = head.unpack_from(data)
    if (profile, major) != (_PROFILE, _MAJOR):
        raise Malformed(
            f"offset {offset:#x}: NVDAOD of profile {profile}, version {major}; expected {_PROFILE}, {_MAJOR}"
        )
    return head.size


def _read(opaque: Opaque, offset: int) -> None:
    """Every field that has a reading, read once."""
    try:
        for name in ("driver_version", "vbios_version", "project", "project_sku", "chip_sku", "chip_info"):
            getattr(opaque, name)
        _ = opaque.nvdec0, opaque.protected_pcie
    except Malformed as error:
        raise Malformed(f"offset {offset:#x}: {error.message}") from None


def _stated(value: str | None, what: str) -> str:
    if value is None:
        raise Malformed(f"the GPU's report does not state its {what}")
    return value
