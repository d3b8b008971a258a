"""docs/measure.md says what the code does; its launch manifest gives known digests of real firmware."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tinboot.formats import kernelhashes, launchdigest, launchmanifest, launchspec, vcpumodels

TEXT = (Path(__file__).parents[2] / "docs/measure.md").read_text()
EXAMPLE = TEXT.partition("```json\n")[2].partition("```")[0]
MANIFEST = launchmanifest.load(EXAMPLE.encode())

#: sev-snp-measure 0.0.13, --vcpu-type EPYC-v4 --guest-features 0x1, on ovmf-amdsev 2026.08+ds-2 (SHA-256
#: 3e4fd0b3fe3b2dbe481c3d9e99418a034174f26cbe1f55aa212b0f18c12d2d6f): with a kernel, vCPUs -> digest.
KNOWN = {
    (
        False,
        1,
    ): "d74bd3ea40b240c3228edc5177ce6193561ebff633dbd0be76d6c143b876d65102425c0e2e8a930857c48daa5eacda58",
    (
        False,
        4,
    ): "13a6ae9fbaa31c91ade309c36bd5214729438abac318e01176e02a97b8bec11a4bce86b4d2b1fba2ec0481dd24ff525f",
    (
        True,
        1,
    ): "69d5f2a246e5c1a511870b9df79498f46445ce574cf279ed0f7f7e8a67a857f24020221044631d9f17764315f288920b",
    (
        True,
        4,
    ): "b8ff8ddf1a45b04abdff8faea337bfaa89167696f95adb531ec6d03a3ab2ad2505844701698ae8de883d4b7fccef54f7",
}


@pytest.mark.parametrize(("kernel", "vcpus"), KNOWN)
def test_known_digests_of_real_firmware(kernel: bool, vcpus: int) -> None:
    manifest = MANIFEST if kernel else MANIFEST._replace(kernel=None)
    assert manifest.launch_digest(vcpus).hex() == KNOWN[kernel, vcpus]


def test_example() -> None:
    assert json.loads(MANIFEST.dump()) == json.loads(EXAMPLE)
    assert MANIFEST.vcpu.signature == vcpumodels.SIGNATURES[launchspec.DEFAULT_MODEL]
    assert MANIFEST.kernel is not None
    assert MANIFEST.kernel.command_line == kernelhashes.command_line_digest("console=ttyS0")


def test_every_member_is_described() -> None:
    rows = re.findall(r"^\| (`[a-z_.`, ]+`) \|", TEXT, re.MULTILINE)
    described = {name for row in rows for name in re.findall(r"[a-z_.]+", row)}
    outer = json.loads(MANIFEST.dump())
    members = (set(outer) | {f"firmware.{name}" for name in outer["firmware"]}) - {"firmware"}
    assert members <= described


@pytest.mark.parametrize("value", [*launchdigest.VMMS, *(f"{value:#x}" for value in launchspec.FEATURES)])
def test_values_are_named(value: str) -> None:
    assert value in TEXT
