"""What a GPU says beside its measurements, in both encodings; the names of the RIMs that it leads to."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinboot.formats import gpuopaque
from tinboot.formats.errors import Malformed
from tinboot.formats.gpuopaque import Opaque, driver_rim_id, parse, vbios_rim_id

FIELDS = {
    6: bytes.fromhex("009f009601000000"),
    14: bytes.fromhex("b1030000"),
    15: b"882\0\0\0\0\0\0",
    17: b"1010\0",
    18: b"0200\0",
    3: b"550.90.07\0",
    11: b"\x55",
    20: bytes(range(48)),
    21: b"\x55",
    34: b"\1\0",
    36: b"\0\0",
}


def legacy(fields: dict[int, bytes]) -> bytes:
    return b"".join(struct.pack("<HH", kind, len(data)) + data for kind, data in fields.items())


def nvdaod(fields: dict[int, bytes], head: bytes = b"NVDAOD\0\0\2\0\0\0") -> bytes:
    return head + b"".join(struct.pack("<HHH", kind, 0x11, len(d)) + d for kind, d in fields.items())


@pytest.mark.parametrize(("encode", "version"), [(legacy, 1), (nvdaod, 2)])
def test_both_encodings_say_the_same(encode: object, version: int) -> None:
    assert callable(encode)
    found = parse(encode(FIELDS))
    assert found == Opaque(version, FIELDS)
    assert found.driver_version == "550.90.07"
    assert found.vbios_version == "96.00.9F.00.01"
    assert (found.project, found.project_sku, found.chip_sku) == ("1010", "0200", "882")
    assert found.nvdec0 is False
    assert found.protected_pcie is False
    assert found.fwid == bytes(range(48))
    assert found.feature_flag == gpuopaque.SINGLE_GPU
    assert found.chip_info is None


def test_what_is_absent_is_none() -> None:
    found = parse(b"")
    for name in ("driver_version", "vbios_version", "project", "fwid", "nvdec0", "protected_pcie"):
        assert getattr(found, name) is None
    assert found.feature_flag is None


def test_a_rims_name_is_of_what_the_report_states() -> None:
    found = parse(legacy(FIELDS))
    assert driver_rim_id(found, "hopper") == "NV_GPU_DRIVER_GH100_550.90.07"
    assert vbios_rim_id(found) == "NV_GPU_VBIOS_1010_0200_882_96009F0001"
    blackwell = parse(nvdaod(FIELDS | {35: b"GB100\0"}))
    assert driver_rim_id(blackwell, "blackwell") == "NV_GPU_CC_DRIVER_GB100_550.90.07"


@pytest.mark.parametrize(("kind", "what"), [(3, "driver version"), (35, "chip")])
def test_no_name_of_a_driver_that_is_not_stated(kind: int, what: str) -> None:
    fields = {k: v for k, v in (FIELDS | {35: b"GB100\0"}).items() if k != kind}
    with pytest.raises(Malformed, match=f"does not state its {what}"):
        driver_rim_id(parse(legacy(fields)), "blackwell")


@pytest.mark.parametrize("kind", [6, 15, 17, 18])
def test_no_name_of_a_board_that_is_not_stated(kind: int) -> None:
    fields = {k: v for k, v in FIELDS.items() if k != kind}
    with pytest.raises(Malformed, match="does not state its"):
        vbios_rim_id(parse(legacy(fields)))


@pytest.mark.parametrize("kind", [0, 1, 2, 5, 7, 10, 23, 25, 39, 255, 65535])
def test_an_unknown_type_is_refused(kind: int) -> None:
    with pytest.raises(Malformed, match=f"offset 0x64: opaque type {kind}, which is not known"):
        parse(legacy({kind: b"x"}), 100)


def test_a_type_that_stands_twice_is_refused() -> None:
    with pytest.raises(Malformed, match="offset 0x5: opaque type 11 stands twice"):
        parse(legacy({11: b"\xaa"}) + legacy({11: b"\x55"}))


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        (3, 1),
        (3, 81),
        (4, 7),
        (6, 9),
        (11, 0),
        (12, 255),
        (15, 8),
        (17, 4),
        (20, 47),
        (21, 2),
        (22, 4),
        (36, 4),
    ],
)
def test_a_type_of_another_size_is_refused(kind: int, size: int) -> None:
    with pytest.raises(Malformed, match=f"offset 0x0: opaque type {kind} of {size} bytes"):
        parse(legacy({kind: bytes(size)}))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\x03", "offset 0x0: 1 bytes, too few for an opaque field"),
        (legacy({11: b"\x55"}) + b"\x03\0\x05", "offset 0x5: 3 bytes, too few"),
        (struct.pack("<HH", 20, 48) + bytes(47), "offset 0x0: opaque type 20 of 48 bytes, 47 are there"),
        (b"NVDAOD\0\0\2", "9 bytes of NVDAOD, its head has 12"),
        (nvdaod({}, b"NVDAOD\1\0\2\0\0\0"), "NVDAOD of profile 1, version 2"),
        (nvdaod({}, b"NVDAOD\0\0\3\0\0\0"), "NVDAOD of profile 0, version 3"),
        (bytes(1025), "1025 bytes of opaque data, expected at most 1024"),
        (legacy({6: bytes.fromhex("009f009601000001")}), "expected zeros behind its five bytes"),
        (legacy({11: b"\x56"}), "opaque type 11 is 0x56, expected 0xaa or 0x55"),
        (legacy({21: b"\x00"}), "opaque type 21 is 0x00"),
        (legacy({3: b"550.90.07"}), "expected text that ends with NUL"),
        (legacy({3: b"550\0.90\0"}), "expected text that ends with NUL"),
        (legacy({3: b"\0\0"}), "expected letters, digits and dots"),
        (legacy({3: b"../../x\0"}), "expected letters, digits and dots"),
        (legacy({17: b"10\n0\0"}), "expected letters, digits and dots"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(data: bytes, told: str) -> None:
    with pytest.raises(Malformed, match=told):
        parse(data)


@settings(max_examples=500)
@given(st.binary(max_size=120), st.booleans())
def test_whatever_bytes_come_are_read_or_refused(noise: bytes, modern: bool) -> None:
    data = nvdaod(FIELDS) + noise if modern else noise
    with contextlib.suppress(Malformed):
        found = parse(data)
        encode = nvdaod if found.version == 2 else legacy
        assert len(encode(found.fields)) == len(data)
