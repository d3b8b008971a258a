"""The launch manifest: the same digests without the artefacts, and a strict reader."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_ovmf import HASH_TABLE, SECTIONS, image

from tinboot.formats import kernelhashes, launchdigest, launchmanifest, ovmf
from tinboot.formats.errors import Malformed, Refused
from tinboot.formats.launchdigest import VMMS, Vcpu
from tinboot.formats.launchmanifest import KernelHashes, LaunchManifest, load

IMAGE = image()
HASHES = KernelHashes(bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32)
MANIFEST = LaunchManifest(ovmf.parse(IMAGE), launchdigest.firmware_digest(IMAGE), HASHES, Vcpu(0x800F12, 0x1))


def test_digests_are_those_of_the_files() -> None:
    page = kernelhashes.page(kernelhashes.table(*HASHES), HASH_TABLE[0])
    before = launchdigest.sections(launchdigest.firmware_digest(IMAGE), SECTIONS, page)
    expected = list(launchdigest.vcpus(before, MANIFEST.vcpu, MANIFEST.firmware.reset_eip, 8))
    read = load(MANIFEST.dump())
    assert list(read.digests(8)) == expected
    assert [read.launch_digest(count) for count in (1, 8)] == [expected[0], expected[7]]


def test_it_is_small() -> None:
    assert len(MANIFEST.dump()) < 2048


@pytest.mark.parametrize(
    ("firmware", "message"),
    [
        (MANIFEST.firmware._replace(hash_table=None), "no room for a table of kernel hashes"),
        (MANIFEST.firmware._replace(sections=SECTIONS[:-1]), "no section for kernel hashes"),
    ],
)
def test_firmware_that_would_start_any_kernel_is_refused(firmware: ovmf.Firmware, message: str) -> None:
    with pytest.raises(Refused, match=message):
        MANIFEST._replace(firmware=firmware).launch_digest(1)
    assert len(MANIFEST._replace(firmware=firmware, kernel=None).launch_digest(1)) == 48


@given(
    digest=st.binary(min_size=48, max_size=48),
    kernel=st.none() | st.builds(KernelHashes, *(st.binary(min_size=32, max_size=32) for _ in range(3))),
    vcpu=st.builds(
        Vcpu,
        st.integers(0, (1 << 32) - 1),
        st.integers(0, (1 << 64) - 1),
        st.sampled_from(VMMS),
        st.just(True),  # what the file cannot say
    ),
    eip=st.none() | st.integers(1, (1 << 32) - 1),
    sections=st.permutations(SECTIONS),
    table=st.none() | st.just(HASH_TABLE),
)
def test_what_is_written_is_read(
    digest: bytes,
    kernel: KernelHashes | None,
    vcpu: Vcpu,
    eip: int | None,
    sections: list[ovmf.Section],
    table: tuple[int, int] | None,
) -> None:
    firmware = ovmf.Firmware(len(IMAGE), tuple(sections), eip, table)
    manifest = LaunchManifest(firmware, digest, kernel, vcpu)
    assert load(manifest.dump()) == manifest


def test_a_state_that_the_file_cannot_say_is_not_written() -> None:
    with pytest.raises(Malformed, match="does not survive"):
        MANIFEST._replace(vcpu=MANIFEST.vcpu._replace(fpu=False)).dump()


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    members = json.loads(MANIFEST.dump())
    change(members)
    return json.dumps(members).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not strict JSON"),
        (b"[]", "an array, expected an object"),
        (b" " * (launchmanifest.LIMIT + 1), "bytes, expected at most"),
        (changed(lambda m: m.pop("vmm")), "vmm is missing"),
        (changed(lambda m: m.update(more=1)), "unknown member 'more'"),
        (changed(lambda m: m.update(schema=2)), "schema is 2, expected 1"),
        (changed(lambda m: m.update(vmm="xen")), "vmm is 'xen'"),
        (changed(lambda m: m.update(signature=1 << 32)), "signature is 4294967296"),
        (changed(lambda m: m.update(features=True)), "features is true"),
        (changed(lambda m: m["firmware"].pop("digest")), "digest is missing"),
        (changed(lambda m: m["firmware"].update(digest="a" * 95)), "expected 96 lower-case hex digits"),
        (changed(lambda m: m["firmware"].update(reset_eip=0)), "reset_eip is 0"),
        (changed(lambda m: m["firmware"].update(x=0)), "unknown member 'x'"),
        (changed(lambda m: m["firmware"]["hash_table"].update(base=0)), "base is 0"),
        (changed(lambda m: m["firmware"]["hash_table"].update(size=4096)), "does not lie in one page"),
        (changed(lambda m: m["firmware"]["sections"][0].update(gpa=1)), "not of whole pages"),
        (changed(lambda m: m["firmware"]["sections"][0].pop("kind")), r"sections\[0\]\.kind is missing"),
        (changed(lambda m: m["firmware"]["sections"].append(m["firmware"]["sections"][0])), "overlaps"),
        (changed(lambda m: m["kernel"].update(initrd="A" * 64)), "lower-case"),
        (changed(lambda m: m["kernel"].pop("kernel")), "kernel.kernel is missing"),
    ],
)
def test_refuses(data: bytes, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        load(data)


@given(st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(max_size=4)), min_size=1, max_size=4))
def test_whatever_is_changed_it_is_read_or_refused(changes: list[tuple[int, bytes]]) -> None:
    data = MANIFEST.dump()
    for at, inserted in changes:
        place = at % len(data)
        data = data[:place] + inserted + data[place + 1 :]
    with contextlib.suppress(Malformed):
        assert load(load(data).dump()) == load(data)
