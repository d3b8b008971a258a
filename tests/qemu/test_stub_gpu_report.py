"""The stub GPUs' reports: a layout written out here, that of real ones, and what each part can be."""

from __future__ import annotations

import base64
import json
import struct

import pytest
import stub_gpu_report
import stub_nvidia
import vectors
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from stub_gpu_report import ACTIVE, ZERO, Block, Contents, Field, references
from stub_nvidia import FWID

NONCE = bytes(range(32))
KEY = stub_nvidia.key("any")

#: Reports of three drivers: 545, 535 and 590.
REAL = ("go-nvtrust/attestationReport.txt", "nvidia-attestation-sdk/hopperAttestationReport.txt", "")


def real(name: str) -> bytes:
    if name:
        return bytes.fromhex(vectors.read(f"gpu/{name}").decode())
    listed = json.loads(vectors.read("gpu/nvidia-attestation-sdk/hopper_evidence.json"))
    return base64.b64decode(listed[0]["evidence"])


def blocks(report: bytes) -> list[tuple[bytes, bytes]]:
    """Head and digest of each."""
    parts = [report[45 + 55 * at : 100 + 55 * at] for at in range(64)]
    return [(part[:7], part[7:]) for part in parts]


def opaque(report: bytes) -> tuple[bytes, bytes]:
    """The opaque data, and what follows."""
    (size,) = struct.unpack_from("<H", report, 3597)
    return report[3599 : 3599 + size], report[3599 + size :]


def fields(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        kind, size = struct.unpack_from("<HH", data)
        found.append((kind, data[4 : 4 + size]))
        data = data[4 + size :]
    return found


@pytest.mark.parametrize("name", REAL)
def test_head_and_blocks_are_as_real_ones(name: str) -> None:
    ours, theirs = stub_gpu_report.sign(Contents(nonce=NONCE).pack(), KEY), real(name)
    assert ours[:4] + ours[36:45] == theirs[:4] + theirs[36:45]
    assert [head for head, _ in blocks(ours)] == [head for head, _ in blocks(theirs)]
    covered = {*ACTIVE["driver"], *ACTIVE["vbios"], 41}  # 41: of newer drivers
    assert all(digest == ZERO for at, (_, digest) in enumerate(blocks(theirs)) if at not in covered)
    assert len(opaque(ours)[1]) == len(opaque(theirs)[1]) == 96


def test_opaque_data_is_as_real_one() -> None:
    """Types and sizes of what all Hoppers since driver 550 say; only the driver's version has its own."""
    sizes = [
        [(kind, len(data)) for kind, data in fields(opaque(report)[0])[:14] if kind != 3]
        for report in (Contents().pack() + bytes(96), real(""))
    ]
    assert sizes[0] == sizes[1]
    assert [kind for kind, _ in fields(opaque(Contents().pack())[0])] == [
        *(6, 14, 15, 16, 17, 18, 19, 3, 4, 12, 13, 11, 20, 21)
    ]


def test_what_it_says() -> None:
    contents = Contents(nonce=NONCE, driver="550.1", vbios="96.00.5E.00.01")
    report = contents.pack()
    assert report[4:36] == NONCE
    said = dict(fields(opaque(report)[0]))
    assert said[3] == b"550.1\0"
    assert said[6] == bytes.fromhex("005e009601000000")  # as in a real report of that version
    assert said[20] == FWID
    assert said[21] == b"\x55"
    assert contents.rim_id("driver") == "NV_GPU_DRIVER_GH100_550.1"
    assert contents.rim_id("vbios") == "NV_GPU_VBIOS_G520_0200_885_96005E0001"


def test_the_signature_is_over_all_of_it() -> None:
    body = Contents(nonce=NONCE).pack()
    report = stub_gpu_report.sign(body, KEY)
    numbers = (int.from_bytes(report[-96:-48], "big"), int.from_bytes(report[-48:], "big"))
    KEY.public_key().verify(encode_dss_signature(*numbers), body, ec.ECDSA(hashes.SHA384()))
    assert stub_gpu_report.sign(body, KEY, r=1, s=2)[-96:] == b"\1".rjust(48, b"\0") + b"\2".rjust(48, b"\0")


def test_measurements_are_the_reference_values() -> None:
    contents = Contents("BLACKWELL")
    driver, vbios = contents.versions
    listed = {**references("driver", driver), **references("vbios", vbios)}
    assert len(listed) == 33
    assert set(listed) == {*ACTIVE["driver"], *ACTIVE["vbios"]}
    for at, (_, digest) in enumerate(blocks(contents.pack())):
        assert digest == (listed[at][0] if at in listed else ZERO)


def test_versions_have_measurements_of_their_own() -> None:
    ours, other = Contents().measurements(), Contents(driver="550.1").measurements()
    assert {at for at in range(64) if ours[at] != other[at]} <= set(ACTIVE["driver"])
    assert ours[21] != other[21]


@pytest.mark.parametrize("at", range(64))
def test_a_measurement_is_altered(at: int) -> None:
    ours, other = (blocks(Contents(altered=a).pack()) for a in ({}, {at: b"x" * 48}))
    assert [index for index in range(64) if ours[index] != other[index]] == [at]


def test_blocks_of_ones_own() -> None:
    body = Contents(blocks=(Block(9, b"short", specification=2, type=3),), block_count=7).pack()
    assert body[41:45] == bytes((7, 12, 0, 0))
    assert body[45:57] == bytes((9, 2, 8, 0, 3, 5, 0)) + b"short"


def test_nvdaod() -> None:
    """Version 2: a head, and the kind of each value before its size."""
    data = opaque(Contents("BLACKWELL", version=2).pack() + bytes(96))[0]
    assert data[:12] == bytes.fromhex("4e5644414f44000002000000")
    found, at = {}, 12
    while at < len(data):
        kind, value_type, size = struct.unpack_from("<HHH", data, at)
        found[kind] = (value_type, data[at + 6 : at + 6 + size])
        at += 6 + size
    assert found[35] == (0x82, b"GB100\0")
    assert found[34] == (0x86, b"\2\0")
    assert found[3][1] == b"595.91.07\0"
    assert found[37] == (0x87, b"\0\0")


def test_opaque_data_of_ones_own() -> None:
    data, _ = opaque(Contents(extra=(Field(199, b"new"),), fwid=b"").pack() + bytes(96))
    assert fields(data)[-1] == (199, b"new")
    assert 20 not in dict(fields(data))
